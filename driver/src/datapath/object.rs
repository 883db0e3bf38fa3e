//! The programs as they are in this binary, and as they are loaded for one attachment.

use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use aya::maps::{Array, MapData, MapError};
use aya::programs::{Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use common::{Bucket, Used, names};

use super::constants::{Constants, Specialised};
use super::layout::PinPath;
use super::{DatapathError, Hook};
use crate::model::{AttachmentId, BuildId, DatapathSpec, IngressHook, Telemetry};
use crate::policy;
use crate::sys::clock;
use crate::telemetry::{Part, Timings};

/// What `cargo xtask ebpf` built; empty where it did not run.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-datapath"));

/// A hash (64-bit FNV-1a) of the object file: two builds with the same programs are one build.
pub(super) fn build() -> BuildId {
    BuildId(format!("{:016x}", hash(OBJECT.iter())))
}

fn hash<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The object file, ready to be loaded.
///
/// The loader is kept because making one reads the kernel's whole BTF, which our programs do not
/// need: they look at nothing but the packet.
pub(super) struct Object {
    loader: Mutex<EbpfLoader<'static>>,
    constants: Constants,
    /// Ticks of the kernel's clock in a second.
    hz: u64,
    /// Whether programs tell of what they drop.
    pub(super) is_logging: bool,
    pub(super) timings: Timings,
}

impl Object {
    pub(super) fn embedded() -> Result<Self, DatapathError> {
        if OBJECT.is_empty() {
            return Err(DatapathError::NoObject);
        }
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        let constants = Constants::find(OBJECT).map_err(DatapathError::Object)?;
        let hz = clock::ticks_per_second().map_err(DatapathError::Clock)?;
        let loader = Mutex::new(loader);
        Ok(Self { loader, constants, hz, is_logging: false, timings: Timings::default() })
    }

    /// Creates the maps for `spec` and writes its rules; the programs are loaded as they are asked
    /// for. Maps that are pinned already are taken from there, others are new and pinned.
    pub(super) fn load(
        &self,
        spec: &DatapathSpec,
        pins: &[(&'static str, &Path)],
    ) -> Result<Loaded, DatapathError> {
        let compiled = match &spec.filter {
            Some(filter) => self
                .timings
                .of(Part::Compile, || policy::compile(filter, self.hz))
                .map_err(DatapathError::Filter)?,
            None => policy::Compiled::default(),
        };
        self.load_compiled(spec, &compiled, pins)
    }

    fn load_compiled(
        &self,
        spec: &DatapathSpec,
        compiled: &policy::Compiled,
        pins: &[(&'static str, &Path)],
    ) -> Result<Loaded, DatapathError> {
        let object = self.specialise(spec, compiled)?;
        // Nothing is half-done in a loader that somebody panicked with: all is set anew below.
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, entries) in sizes(spec, compiled) {
            loader.map_max_entries(name, entries);
        }
        loader.map_max_entries(names::LOGS, if self.has_log(spec) { RING } else { RING_LEAST });
        for &(name, path) in pins {
            loader.map_pin_path(name, path.to_owned());
        }
        let ebpf =
            loader.load(object.bytes()).map_err(|error| DatapathError::Load(Box::new(error)))?;
        drop(loader);
        let mut instance = Loaded(ebpf);
        instance.write(compiled)?;
        Ok(instance)
    }

    fn specialise(
        &self,
        spec: &DatapathSpec,
        compiled: &policy::Compiled,
    ) -> Result<Specialised<'_>, DatapathError> {
        let mut object = self.constants.copy();
        object
            .set(names::TELEMETRY, [u8::from(spec.telemetry != Telemetry::Off)])?
            .set(names::USED_INGRESS, compiled.ingress.used.0.to_ne_bytes())?
            .set(names::USED_EGRESS, compiled.egress.used.0.to_ne_bytes())?
            .set(names::FIRST_EGRESS, length(&compiled.ingress.rules).to_ne_bytes())?
            .set(names::GENERATION, spec.generation.to_ne_bytes())?
            .set(names::FLOW_PLACES, flow_places(spec).to_ne_bytes())?
            .set(names::FLOW_EXPORT, spec.flows.export_packets.to_ne_bytes())?
            .set(names::STATE_BUCKETS, state_buckets(compiled).to_ne_bytes())?
            .set(names::SEED, seed(&spec.id).to_ne_bytes())?
            .set(names::HZ, self.hz.to_ne_bytes())?
            .set(names::LOG, [u8::from(self.has_log(spec))])?;
        Ok(object)
    }

    /// Without a filter nothing is dropped, and there is nothing to tell.
    fn has_log(&self, spec: &DatapathSpec) -> bool {
        self.is_logging && spec.filter.is_some()
    }
}

/// How large the maps are for this attachment. What it has no use for is as small as can be.
fn sizes(spec: &DatapathSpec, compiled: &policy::Compiled) -> [(&'static str, u32); 8] {
    let rules = length(&compiled.ingress.rules) + length(&compiled.egress.rules);
    let limits = if has(compiled, Used::LIMIT) { rules } else { 0 };
    let narrow = match (&compiled.ingress.ruleset, &compiled.egress.ruleset) {
        (_, Some(_)) => 2,
        _ => 1,
    };
    let ring = if flow_places(spec) == 0 { RING_LEAST } else { RING };
    [
        (names::RULES, narrow),
        (names::ROWS, length(&compiled.rows).max(1)),
        (names::PAGES, length(&compiled.pages).max(1)),
        (names::HITS, rules.max(1)),
        (names::LIMITS, limits.max(1)),
        (names::STATE, state_buckets(compiled).max(1)),
        (names::FLOWS, flow_places(spec).max(1)),
        (names::EVICTED, ring),
    ]
}

/// Bytes of a ring: a page where it has no use, otherwise room for a thousand exported flows, or for
/// some two hundred dropped packets.
const RING_LEAST: u32 = 4096;
const RING: u32 = 1 << 16;

/// Places for conversations, where a filter is stateful: 8192, in 512 KiB.
const STATE_BUCKETS: u32 = 2048;

fn has(compiled: &policy::Compiled, feature: Used) -> bool {
    compiled.ingress.used.with(compiled.egress.used).has(feature)
}

fn state_buckets(compiled: &policy::Compiled) -> u32 {
    if has(compiled, Used::STATEFUL) { STATE_BUCKETS } else { 0 }
}

/// Whether the map at `pin`, if one is there, is a table of conversations as `spec` needs it.
pub(super) fn is_state_of(pin: &PinPath, spec: &DatapathSpec) -> Result<bool, DatapathError> {
    if !pin.as_path().exists() {
        return Ok(true);
    }
    let failed =
        |source: MapError| DatapathError::Map { map: names::STATE, source: Box::new(source) };
    let info = MapData::from_pin(pin.as_path()).and_then(|map| map.info()).map_err(failed)?;
    let directions = spec.filter.iter().flat_map(|filter| [&filter.ingress, &filter.egress]);
    let is_stateful = directions.flatten().any(|direction| direction.stateful);
    let buckets = if is_stateful { STATE_BUCKETS } else { 1 };
    Ok(info.max_entries() == buckets && info.value_size() as usize == size_of::<Bucket>())
}

fn flow_places(spec: &DatapathSpec) -> u32 {
    if spec.telemetry == Telemetry::Flows { spec.flows.entries } else { 0 }
}

/// Lists here are bounded far below 2^32.
fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// What places in tables are chosen with, so that nobody on the wire can tell which packets share
/// one. The same for each instance of an attachment's programs, which find what the former ones
/// left; made of the claim's UID, which is random and which no packet tells. Who may read the claim
/// can tell, and could crowd the tables of that claim alone.
fn seed(id: &AttachmentId) -> u64 {
    hash(id.claim.as_str().as_bytes().iter().chain(id.device.as_str().as_bytes()))
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("build", &build()).finish_non_exhaustive()
    }
}

/// The maps of one attachment, and its programs. Programs and maps that are neither attached nor
/// pinned go when this is dropped.
#[derive(Debug)]
pub(super) struct Loaded(Ebpf);

impl Loaded {
    /// Writes what the compiler made.
    fn write(&mut self, compiled: &policy::Compiled) -> Result<(), DatapathError> {
        let directions = [&compiled.ingress, &compiled.egress];
        let rulesets = (0..)
            .zip(directions)
            .filter_map(|(n, direction)| direction.ruleset.as_deref().map(|ruleset| (n, ruleset)));
        self.fill(names::RULES, rulesets)?;
        self.fill(names::ROWS, (0..).zip(&compiled.rows))?;
        self.fill(names::PAGES, (0..).zip(&compiled.pages))?;
        if has(compiled, Used::LIMIT) {
            let rules = directions.into_iter().flat_map(|direction| &direction.rules);
            self.fill(names::LIMITS, (0..).zip(rules.map(|rule| &rule.limit)))?;
        }
        Ok(())
    }

    fn fill<'v, T: aya::Pod>(
        &mut self,
        name: &'static str,
        values: impl Iterator<Item = (u32, &'v T)>,
    ) -> Result<(), DatapathError> {
        let map = self.0.map_mut(name).ok_or(DatapathError::Missing { name })?;
        let failed = |source: MapError| DatapathError::Map { map: name, source: Box::new(source) };
        let mut array: Array<_, T> = Array::try_from(map).map_err(failed)?;
        for (index, value) in values {
            array.set(index, value, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// Pins a map, for people and for those who read what the programs keep.
    pub(super) fn pin_map(&self, name: &'static str, pin: &PinPath) -> Result<(), DatapathError> {
        let map = self.0.map(name).ok_or(DatapathError::Missing { name })?;
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
    Ok(Object::embedded()?.load(spec, &[])?.0)
}

/// Programs that tests put one filter after the other before: to load some for each takes the
/// verifier longer than a test has.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct Stage(Loaded);

#[cfg(feature = "testing")]
impl Stage {
    /// For the filter that `general` was made of, and those that
    /// [differ in nothing](policy::generalise) that programs know. That of `spec` is not looked at.
    pub fn load(spec: &DatapathSpec, general: &policy::Compiled) -> Result<Self, DatapathError> {
        let roomy = policy::with_room(general);
        Ok(Self(Object::embedded()?.load_compiled(spec, &roomy, &[])?))
    }

    /// Puts another filter in the place of the one before.
    pub fn write(&mut self, general: &policy::Compiled) -> Result<(), DatapathError> {
        self.0.write(general)
    }

    pub fn ebpf(&self) -> &Ebpf {
        &self.0.0
    }

    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.0.0
    }
}
