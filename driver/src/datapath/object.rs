//! The programs as they are in this binary, and as they are loaded for one attachment.

use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use aya::maps::{Array, MapError};
use aya::programs::{Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use common::{Action, Ruleset, names};

use super::layout::PinPath;
use super::{DatapathError, Hook};
use crate::model::{BuildId, DatapathSpec, IngressHook, Telemetry};
use crate::policy;

/// What `cargo xtask ebpf` built; empty where it did not run.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-datapath"));

/// A hash (64-bit FNV-1a) of the object file: two builds with the same programs are one build.
pub(super) fn build() -> BuildId {
    let hash = OBJECT.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    BuildId(format!("{hash:016x}"))
}

/// The object file, ready to be loaded.
///
/// The loader is kept because making one reads the kernel's whole BTF, which our programs do not
/// need: they look at nothing but the packet.
pub(super) struct Object {
    loader: Mutex<EbpfLoader<'static>>,
}

impl Object {
    pub(super) fn embedded() -> Result<Self, DatapathError> {
        if OBJECT.is_empty() {
            return Err(DatapathError::NoObject);
        }
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        Ok(Self { loader: Mutex::new(loader) })
    }

    /// Creates the maps for `spec` and writes its rules; the programs are loaded as they are asked
    /// for. The map of counters is the one pinned at `counters`, or a new one that is pinned there.
    pub(super) fn load(
        &self,
        spec: &DatapathSpec,
        counters: &Path,
    ) -> Result<Loaded, DatapathError> {
        self.load_with(spec, Some(counters))
    }

    fn load_with(
        &self,
        spec: &DatapathSpec,
        counters: Option<&Path>,
    ) -> Result<Loaded, DatapathError> {
        let compiled = match &spec.filter {
            Some(filter) => policy::compile(filter).map_err(DatapathError::Filter)?,
            None => policy::Compiled::default(),
        };
        // Nothing is half-done in a loader that somebody panicked with: all is set anew below.
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        loader
            .override_global(names::TELEMETRY, switch(spec.telemetry != Telemetry::Off), true)
            .override_global(names::FILTER_INGRESS, switch(compiled.ingress.is_some()), true)
            .override_global(names::FILTER_EGRESS, switch(compiled.egress.is_some()), true);
        if let Some(counters) = counters {
            loader.map_pin_path(names::COUNTERS, counters.to_owned());
        }
        let ebpf = loader.load(OBJECT).map_err(|error| DatapathError::Load(Box::new(error)))?;
        drop(loader);
        let mut instance = Loaded(ebpf);
        instance.write_rules(&compiled)?;
        Ok(instance)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("build", &build()).finish_non_exhaustive()
    }
}

/// A constant at load.
fn switch(is_on: bool) -> &'static u8 {
    if is_on { &1 } else { &0 }
}

/// The maps of one attachment, and its programs. Programs and maps that are neither attached nor
/// pinned go when this is dropped.
pub(super) struct Loaded(Ebpf);

impl Loaded {
    fn write_rules(&mut self, compiled: &policy::Compiled) -> Result<(), DatapathError> {
        let missing = DatapathError::Missing { name: names::RULES };
        let map = self.0.map_mut(names::RULES).ok_or(missing)?;
        let failed =
            |source: MapError| DatapathError::Map { map: names::RULES, source: Box::new(source) };
        let mut rules: Array<_, Ruleset> = Array::try_from(map).map_err(failed)?;
        for (index, direction) in (0..).zip([&compiled.ingress, &compiled.egress]) {
            let open = Ruleset::with_default(Action::Allow);
            let ruleset = direction.as_ref().map_or(&open, |direction| &*direction.ruleset);
            rules.set(index, ruleset, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// Pins the map of rules, so that `bpftool map dump pinned` shows what is in force.
    pub(super) fn pin_rules(&self, pin: &PinPath) -> Result<(), DatapathError> {
        let missing = DatapathError::Missing { name: names::RULES };
        let map = self.0.map(names::RULES).ok_or(missing)?;
        map.pin(pin.as_path()).map_err(|error| DatapathError::Pin {
            path: pin.as_path().to_owned(),
            source: std::io::Error::other(error),
        })
    }

    /// The program for `hook`, loaded.
    pub(super) fn program(
        &mut self,
        hook: Hook,
        ingress: IngressHook,
    ) -> Result<BorrowedFd<'_>, DatapathError> {
        let name = match (hook, ingress) {
            (Hook::Xdp, IngressHook::XdpFrags) => names::XDP_FRAGS,
            (Hook::Xdp, _) => names::XDP,
            (Hook::Ingress, _) => names::INGRESS,
            (Hook::Egress, _) => names::EGRESS,
        };
        let program = self.0.program_mut(name).ok_or(DatapathError::Missing { name })?;
        let loaded = match program {
            Program::Xdp(program) => load_once(program, Xdp::load),
            Program::SchedClassifier(program) => load_once(program, SchedClassifier::load),
            _ => return Err(DatapathError::Missing { name }),
        };
        let failed = |source| DatapathError::Program { program: name, source: Box::new(source) };
        loaded.map_err(failed)?;
        Ok(program.fd().map_err(failed)?.as_fd())
    }
}

/// Loads a program; that it is loaded already is no error.
fn load_once<P>(
    program: &mut P,
    load: impl FnOnce(&mut P) -> Result<(), aya::programs::ProgramError>,
) -> Result<(), aya::programs::ProgramError> {
    match load(program) {
        Err(aya::programs::ProgramError::AlreadyLoaded) => Ok(()),
        result => result,
    }
}

/// The maps and programs of `spec`, neither pinned nor attached, for tests that run them on packets
/// of their own.
#[cfg(feature = "testing")]
pub fn load_for_test(spec: &DatapathSpec) -> Result<Ebpf, DatapathError> {
    Ok(Object::embedded()?.load_with(spec, None)?.0)
}
