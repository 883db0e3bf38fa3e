//! Loads the programs that are measured: ours by the driver's own loader, the peers from the objects
//! that `cargo xtask bench` compiled or that the machine has.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, PerCpuHashMap, PerCpuValues, ProgramArray};
use aya::programs::{Program as Loadable, ProgramFd};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use common::{Ruleset, names};
use driver::datapath::load_for_test;
use driver::model::{DatapathSpec, Telemetry};
use driver::policy;
use driver::sys::{bpf, clock};

use super::plan::Program;
use super::rounds::Loaded;
use super::rules;

/// Where objects are.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    /// `weir.o` and `textbook.o`, where there was a compiler.
    pub(super) peers: Option<PathBuf>,
    pub(super) flood: PathBuf,
    /// For maps that insist on being pinned.
    pub(super) bpffs: PathBuf,
}

/// Loads a program.
///
/// # Errors
///
/// For the peers also where their objects are not to be had.
pub(super) fn load(program: &Program, objects: &Objects) -> Result<Loaded> {
    let (ebpf, program) = match program {
        Program::Own(spec, program) => {
            (load_for_test(spec).context("load our own programs")?, *program)
        }
        Program::InC(spec) => (in_c(spec, &objects.peer("weir.o")?)?, names::XDP),
        Program::Textbook => (textbook(&objects.peer("textbook.o")?)?, "textbook"),
        Program::XdpFilter => (xdp_filter(&objects.bpffs)?, XDP_FILTER),
    };
    loaded(ebpf, program)
}

impl Objects {
    fn peer(&self, name: &str) -> Result<Vec<u8>> {
        let folder = self.peers.as_ref().context("there was no clang to compile it")?;
        read(&folder.join(name))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn loaded(mut ebpf: Ebpf, name: &'static str) -> Result<Loaded> {
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no {name}"))?;
    match program {
        Loadable::Xdp(program) => program.load(),
        Loadable::SchedClassifier(program) => program.load(),
        other => bail!("{name} is no program for packets: {other:?}"),
    }
    .with_context(|| format!("load {name}"))?;
    Ok(Loaded { ebpf, program: name })
}

/// Our logic in C, with the rules that our compiler made.
fn in_c(spec: &DatapathSpec, object: &[u8]) -> Result<Ebpf> {
    let compiled = match &spec.filter {
        Some(filter) => policy::compile(filter, clock::ticks_per_second()?)?,
        None => policy::Compiled::default(),
    };
    let places = if spec.telemetry == Telemetry::Flows { spec.flows.entries } else { 0 };
    let telemetry = u8::from(spec.telemetry != Telemetry::Off);
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .override_global(names::TELEMETRY, &telemetry, true)
        .override_global(names::USED_INGRESS, &compiled.ingress.used.0, true)
        .override_global(names::GENERATION, &spec.generation, true)
        .override_global(names::FLOW_PLACES, &places, true)
        .override_global(names::FLOW_EXPORT, &spec.flows.export_packets, true)
        .override_global(names::SEED, &0x5eed_u64, true)
        .map_max_entries(names::FLOWS, places.max(1))
        .load(object)
        .context("load the logic in C")?;
    let map = ebpf.map_mut(names::RULES).context("the object has no map of rules")?;
    if let Some(ruleset) = &compiled.ingress.ruleset {
        Array::<_, Ruleset>::try_from(map)?.set(0, **ruleset, 0)?;
    }
    Ok(ebpf)
}

/// A thousand networks of different lengths, none of which the packet is from.
fn textbook(object: &[u8]) -> Result<Ebpf> {
    let mut ebpf =
        EbpfLoader::new().btf(None).load(object).context("load the textbook's design")?;
    let map = ebpf.map_mut("prefixes").context("the object has no trie")?;
    let mut trie = LpmTrie::<_, [u8; 4], u32>::try_from(map)?;
    for n in 0..1000_u16 {
        let [upper, lower] = n.to_be_bytes();
        let network = Ipv4Addr::new(192, 169 + upper, lower, 0);
        trie.insert(&Key::new(24 + u32::from(n % 8), network.octets()), 1, 0)?;
    }
    Ok(ebpf)
}

/// The object that passes what is not listed, and looks at addresses only.
const XDP_FILTER: &str = "xdpfilt_alw_ip";
/// An entry of the list counts sources (`MAP_FLAG_SRC` in xdp-filter's common header).
const OF_SOURCE: u64 = 1;

/// xdp-filter as its package has it, with our deny list; without the dispatcher that its command
/// line would put in front, which costs some nanoseconds more.
fn xdp_filter(bpffs: &Path) -> Result<Ebpf> {
    let path = xdp_filter_object()?;
    bpf::mount_bpffs(bpffs).with_context(|| format!("mount {}", bpffs.display()))?;
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .default_map_pin_directory(bpffs)
        .load(&read(&path)?)
        .with_context(|| format!("load {}", path.display()))?;
    let map = ebpf.map_mut("filter_ipv4").context("the object has no list of addresses")?;
    let mut list = PerCpuHashMap::<_, [u8; 4], u64>::try_from(map)?;
    let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!("read {path}: {error}"))?;
    for address in rules::deny_list() {
        list.insert(address.octets(), PerCpuValues::try_from(vec![OF_SOURCE; cpus])?, 0)?;
    }
    Ok(ebpf)
}

/// In the folder of the machine's architecture, or above it.
fn xdp_filter_object() -> Result<PathBuf> {
    let libraries = Path::new("/usr/lib");
    let mut folders = vec![libraries.to_owned()];
    let entries = fs::read_dir(libraries).context("read /usr/lib")?;
    folders.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    let objects = folders.into_iter().map(|folder| folder.join(format!("bpf/{XDP_FILTER}.o")));
    objects.into_iter().find(|path| path.exists()).context("xdp-tools is not installed")
}

/// A flood of packets in front of `target`; with a mask of zero they are all the same.
pub(super) fn flood(objects: &Objects, mask: u32, target: &Loaded) -> Result<Loaded> {
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .override_global("FLOOD_MASK", &mask, true)
        .load(&read(&objects.flood)?)
        .context("load the flood")?;
    let next: &ProgramFd = target.get()?.fd()?;
    let map = ebpf.map_mut("flood_next").context("the flood has no next program")?;
    ProgramArray::try_from(map)?.set(0, next, 0).context("put a program behind the flood")?;
    loaded(ebpf, "weir_flood")
}

/// Whether `loaded` answers as it should: otherwise what is measured is something else.
pub(super) fn check(name: &str, loaded: &Loaded, packet: &[u8], expected: u32) -> Result<()> {
    let answer = loaded.answer(packet)?;
    ensure!(answer == expected, "{name}: the program answers {answer}, not {expected}");
    Ok(())
}
