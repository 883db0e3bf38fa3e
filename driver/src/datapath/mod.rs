//! Owns eBPF: loads programs specialised to one attachment, attaches and pins them, replaces them
//! after an upgrade, and reads what they counted.
//!
//! Links and maps are pinned below `weir/<claim uid>/<device>/` on bpffs and outlive the driver: a
//! restart loses no packet and no count. Nothing is detached but by [`Datapath::remove`]. Where the
//! kernel has no TCX, programs are pinned instead of links, and [`clsact`] attaches them.
//!
//! What it never does: enter a namespace (attaching happens in the caller's, everything else
//! works on pins, wherever the interface is), decide what to attach, or touch programs of others.

mod ahead;
mod clsact;
mod constants;
mod counters;
mod drops;
mod error;
mod flows;
mod hits;
mod hook;
mod inspect;
mod layout;
mod memory;
mod object;
mod vitals;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use common::names;
use nix::net::if_::if_nametoindex;

pub use self::ahead::{AheadError, ahead};
pub use self::counters::{CounterError, CounterSource, MapCounters};
pub use self::drops::{DropError, Drops};
pub use self::error::DatapathError;
pub use self::flows::{Follower, flows};
pub use self::hook::Hook;
pub use self::inspect::{FilterForm, HookFacts, ProgramFacts, forms, programs};
use self::layout::{BpffsLayout, MAPS, Pin, PinPath, Place, STATE};
use self::object::{Loaded, Object};
pub use self::vitals::vitals;
use crate::model::{AttachmentId, BuildId, ClaimUid, DatapathSpec, IfIndex, IfName};
use crate::plan::{DatapathState, Was};
use crate::sys::bpf;
use crate::telemetry::{Part, Timings};

#[cfg(feature = "testing")]
pub use self::object::{Stage, load_for_test};

/// All datapaths of this node.
#[derive(Debug)]
pub struct Datapath {
    layout: BpffsLayout,
    object: Object,
}

/// Whether datapaths have been opened below `bpffs` since the node started: what is there ends with the
/// boot, and outlives whatever else a driver leaves behind.
pub fn has_been_opened(bpffs: &Path) -> bool {
    BpffsLayout::new(bpffs).root().exists()
}

impl Datapath {
    /// Opens the datapaths below `bpffs`, which is mounted if it is not.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NoObject`] where this build has no programs.
    pub fn open(bpffs: &Path) -> Result<Self, DatapathError> {
        let object = Object::embedded()?;
        bpf::mount_bpffs(bpffs)
            .map_err(|source| DatapathError::Mount { path: bpffs.to_owned(), source })?;
        let layout = BpffsLayout::new(bpffs);
        make_dir(layout.root())?;
        Ok(Self { layout, object })
    }

    /// Has the programs that are loaded from now on tell of each packet that they drop, for whoever
    /// reads it by [`Drops`].
    #[must_use]
    pub fn logging_drops(mut self) -> Self {
        self.object.is_logging = true;
        self
    }

    /// Has it report how long its parts take.
    #[must_use]
    pub fn timed(mut self, timings: Timings) -> Self {
        self.object.timings = timings;
        self
    }

    /// Which programs this build brings.
    pub fn build() -> BuildId {
        object::build()
    }

    /// Which programs this attaches. Those that tell of what they drop are others than those that do
    /// not, so that a start with or without them replaces what is attached.
    pub fn attaches(&self) -> BuildId {
        let BuildId(build) = object::build();
        BuildId(if self.object.is_logging { format!("{build}-log") } else { build })
    }

    /// Loads the programs that `spec` asks for, attaches them to `interface` in the calling
    /// thread's namespace, and pins all of it.
    ///
    /// What is there and attached to that interface stays as it is. What an install left that died
    /// half-way is removed first.
    ///
    /// # Errors
    ///
    /// Nothing of it is left behind then.
    pub fn install(&self, spec: &DatapathSpec, interface: &IfName) -> Result<Was, DatapathError> {
        let index = if_nametoindex(interface.as_str())
            .map(IfIndex)
            .map_err(|errno| DatapathError::Interface { interface: interface.clone(), errno })?;
        match self.observe(&spec.id)? {
            DatapathState::Absent => {}
            DatapathState::Attached if self.is_on(spec, index)? => return Ok(Was::Same),
            DatapathState::Attached | DatapathState::Broken => {
                self.remove(&spec.id)?;
            }
        }
        match self.install_afresh(spec, interface, index) {
            Ok(()) => Ok(Was::Otherwise),
            Err(error) => {
                // Should this fail too, pins are left, and `observe` tells that they are broken.
                // The first error is the one that says why.
                let _ = self.remove(&spec.id);
                Err(error)
            }
        }
    }

    fn install_afresh(
        &self,
        spec: &DatapathSpec,
        interface: &IfName,
        index: IfIndex,
    ) -> Result<(), DatapathError> {
        make_dir(&self.layout.claim(&spec.id.claim))?;
        make_dir(&self.layout.device(&spec.id))?;
        let timings = &self.object.timings;
        let mut loaded = timings.of(Part::Load, || self.load_whole(spec))?;
        timings.of(Part::Attach, || {
            self.pin_maps(&spec.id, &loaded)?;
            self.attach(spec, &mut loaded, interface, index)
        })
    }

    /// Attaches what is loaded, and pins it.
    fn attach(
        &self,
        spec: &DatapathSpec,
        loaded: &mut Loaded,
        interface: &IfName,
        index: IfIndex,
    ) -> Result<(), DatapathError> {
        for hook in Hook::of(spec) {
            let program = loaded.program(hook, spec.ingress)?;
            if hook.is_filter(spec) {
                clsact::pin(program, &self.layout.pin(&spec.id, Pin::Program(hook)))?;
                continue;
            }
            let attached = hook.attach(program, index).map_err(|source| DatapathError::Attach {
                hook,
                interface: interface.clone(),
                source,
            })?;
            let pin = self.layout.pin(&spec.id, Pin::Link(hook));
            attached
                .pin(pin.as_path())
                .map_err(|source| DatapathError::Pin { path: pin.into(), source })?;
        }
        Ok(())
    }

    /// Everything that has a place below our part of bpffs, also where nothing is left in it.
    pub fn all(&self) -> Result<Vec<AttachmentId>, DatapathError> {
        let mut all = Vec::new();
        for (claim, path) in named::<ClaimUid>(self.layout.root())? {
            for (Place { device, share }, _) in named(&path)? {
                all.push(AttachmentId { claim: claim.clone(), device, share });
            }
        }
        Ok(all)
    }

    /// Puts this build's programs in the place of those that are attached, wherever the interface
    /// is: one atomic exchange for each link. The counts go on. What is a filter gets its new program
    /// by [`Datapath::attach_filters`] after this.
    ///
    /// # Errors
    ///
    /// [`DatapathError::NotInstalled`] where a link or a program is missing, [`DatapathError::Severed`] where the
    /// interface is gone. Each link has its former or its new program then, both of which count in the
    /// same counters; doing it again is safe.
    pub fn replace(&self, spec: &DatapathSpec) -> Result<Was, DatapathError> {
        let (filters, hooks): (Vec<_>, Vec<_>) =
            Hook::of(spec).into_iter().partition(|hook| hook.is_filter(spec));
        for hook in &filters {
            clsact::program_at(&self.layout.pin(&spec.id, Pin::Program(*hook)), &spec.id)?;
        }
        let mut links = Vec::new();
        for hook in hooks {
            let pin = self.layout.pin(&spec.id, Pin::Link(hook));
            let link = link_at(&pin)?.ok_or_else(|| DatapathError::NotInstalled {
                id: spec.id.clone(),
                missing: pin.as_path().to_owned(),
            })?;
            if facts_of(&pin, &link)?.interface.is_none() {
                return Err(DatapathError::Severed { path: pin.into() });
            }
            links.push((hook, pin, link));
        }
        // All of them before the first exchange: what the verifier refuses changes nothing.
        let mut loaded = self.object.timings.of(Part::Load, || self.load_whole(spec))?;
        for (hook, pin, link) in links {
            let program = loaded.program(hook, spec.ingress)?;
            link.update(program).map_err(|source| match source.raw_os_error() {
                Some(nix::libc::ENOLINK) => DatapathError::Severed { path: pin.into() },
                _ => DatapathError::Replace { path: pin.into(), source },
            })?;
        }
        for hook in filters {
            let next = self.layout.pin(&spec.id, Pin::NextProgram(hook));
            next.remove()?;
            clsact::pin(loaded.program(hook, spec.ingress)?, &next)?;
            next.replace(&self.layout.pin(&spec.id, Pin::Program(hook)))?;
        }
        // Only now: the former programs read the former rules until the exchange.
        self.pin_maps(&spec.id, &loaded)?;
        self.remove_other_layouts(&spec.id)?;
        Ok(Was::Otherwise)
    }

    /// Detaches, and removes all pins, wherever the interface is and also when it is gone.
    pub fn remove(&self, id: &AttachmentId) -> Result<Was, DatapathError> {
        let pins = self.layout.pins(id)?;
        let Some(pins) = pins else { return Ok(Was::Same) };
        for hook in Hook::ALL {
            let pin = self.layout.pin(id, Pin::Link(hook));
            if let Some(link) = link_at(&pin)? {
                link.detach()
                    .map_err(|source| DatapathError::Detach { path: pin.into(), source })?;
            }
        }
        for pin in pins {
            pin.remove()?;
        }
        self.layout.remove_dirs(id)?;
        Ok(Was::Otherwise)
    }

    /// What is there of a datapath. Changes nothing. Whether filters are where they should be is not
    /// looked at: that takes a visit to the interface's namespace.
    pub fn observe(&self, id: &AttachmentId) -> Result<DatapathState, DatapathError> {
        observe(&self.layout, id)
    }

    /// What is ours among the programs of an interface.
    pub fn own_programs(&self, id: &AttachmentId) -> Result<OwnPrograms, DatapathError> {
        let mut own = OwnPrograms::default();
        for hook in Hook::ALL {
            let pin = self.layout.pin(id, Pin::Link(hook));
            if let Some(link) = link_at(&pin)? {
                let facts = facts_of(&pin, &link)?;
                own.links.push(facts.id);
                own.programs.push(facts.program);
            }
            let pin = self.layout.pin(id, Pin::Program(hook));
            own.programs.extend(clsact::program_id_at(&pin)?);
        }
        Ok(own)
    }

    /// All links that `spec` asks for are on the interface `index`, and all programs are pinned that
    /// it asks for as filters.
    fn is_on(&self, spec: &DatapathSpec, index: IfIndex) -> Result<bool, DatapathError> {
        for hook in Hook::of(spec) {
            if hook.is_filter(spec) {
                if !self.layout.pin(&spec.id, Pin::Program(hook)).as_path().exists() {
                    return Ok(false);
                }
                continue;
            }
            let pin = self.layout.pin(&spec.id, Pin::Link(hook));
            let Some(link) = link_at(&pin)? else { return Ok(false) };
            if facts_of(&pin, &link)?.interface != Some(index) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As [`Self::load`], and all its programs have passed the verifier.
    fn load_whole(&self, spec: &DatapathSpec) -> Result<Loaded, DatapathError> {
        let mut loaded = self.load(spec)?;
        for hook in Hook::of(spec) {
            loaded.program(hook, spec.ingress)?;
        }
        Ok(loaded)
    }

    /// Programs for `spec`, with the counters and the conversations that there are.
    fn load(&self, spec: &DatapathSpec) -> Result<Loaded, DatapathError> {
        let counters = self.layout.pin(&spec.id, Pin::Counters);
        let state = self.layout.pin(&spec.id, Pin::Map(STATE));
        // Another filter's table has no room, and that of a build with another layout makes no sense.
        if !counters.as_path().exists() || !object::is_state_of(&state, spec)? {
            state.remove()?;
        }
        let pins = [(names::COUNTERS, counters.as_path()), (names::STATE, state.as_path())];
        self.object.load(spec, &pins)
    }

    /// Pins the maps of the programs that are attached now, in the place of those before.
    fn pin_maps(&self, id: &AttachmentId, loaded: &Loaded) -> Result<(), DatapathError> {
        // The loader has pinned that one.
        for (pin, map) in MAPS.into_iter().filter(|(pin, _)| *pin != STATE) {
            let pin = self.layout.pin(id, Pin::Map(pin));
            pin.remove()?;
            loaded.pin_map(map, &pin)?;
        }
        Ok(())
    }

    /// Maps that only programs of another layout could read.
    fn remove_other_layouts(&self, id: &AttachmentId) -> Result<(), DatapathError> {
        let present = self.layout.pin(id, Pin::Counters);
        for pin in self.layout.pins(id)?.unwrap_or_default() {
            if pin.is_counters() && pin != present {
                pin.remove()?;
            }
        }
        Ok(())
    }
}

/// Numbers of links and programs of one attachment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OwnPrograms {
    pub links: Vec<u32>,
    pub programs: Vec<u32>,
}

/// The link at `pin`; `None` where there is none.
fn link_at(pin: &PinPath) -> Result<Option<bpf::Link>, DatapathError> {
    match bpf::Link::from_pin(pin.as_path()) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DatapathError::Open { path: pin.as_path().to_owned(), source }),
    }
}

fn facts_of(pin: &PinPath, link: &bpf::Link) -> Result<bpf::LinkFacts, DatapathError> {
    link.facts().map_err(|source| DatapathError::Open { path: pin.as_path().to_owned(), source })
}

fn observe(layout: &BpffsLayout, id: &AttachmentId) -> Result<DatapathState, DatapathError> {
    let Some(pins) = layout.pins(id)? else { return Ok(DatapathState::Absent) };
    let has = |pin: Pin| pins.contains(&layout.pin(id, pin));
    let is_one = |pins: &[Pin]| pins.iter().filter(|pin| has(**pin)).count() == 1;
    let ingress = [Pin::Link(Hook::Xdp), Pin::Link(Hook::Ingress), Pin::Program(Hook::Ingress)];
    let egress = [Pin::Link(Hook::Egress), Pin::Program(Hook::Egress)];
    // Counters of this layout or, before an upgrade, of another.
    let has_counters = pins.iter().any(PinPath::is_counters);
    if !is_one(&ingress) || !is_one(&egress) || !has_counters {
        return Ok(DatapathState::Broken);
    }
    for hook in Hook::ALL {
        let pin = layout.pin(id, Pin::Link(hook));
        if let Some(link) = link_at(&pin)?
            && facts_of(&pin, &link)?.interface.is_none()
        {
            return Ok(DatapathState::Broken);
        }
    }
    Ok(DatapathState::Attached)
}

fn make_dir(path: &Path) -> Result<(), DatapathError> {
    bpf::private_dir(path)
        .map_err(|source| DatapathError::Directory { path: path.to_owned(), source })
}

/// What lies in a directory under a name of ours; other names are not ours to touch.
fn named<T: FromStr>(directory: &Path) -> Result<Vec<(T, PathBuf)>, DatapathError> {
    let entries = list(directory)?.unwrap_or_default();
    let name =
        |entry: fs::DirEntry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()));
    Ok(entries.into_iter().filter_map(name).collect())
}

/// Reads a directory; `None` where there is none.
fn list(path: &Path) -> Result<Option<Vec<fs::DirEntry>>, DatapathError> {
    let failed = |source| DatapathError::Directory { path: path.to_owned(), source };
    match fs::read_dir(path) {
        Ok(entries) => entries.collect::<Result<_, _>>().map(Some).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
