//! The datapath's benchmark: what its programs cost, beside those of others, and what is left of a
//! link's throughput. Others are in [`hook`] and
//! [`inventory`].
//!
//! Started by `cargo xtask bench datapath` in a box of its own. It measures and tells; what the
//! numbers should be is written beside them in the page that it makes, and nothing fails for them.

pub mod hook;
pub mod inventory;
mod load;
mod packet;
mod page;
mod plan;
mod report;
mod rounds;
mod rules;
mod sections;
mod stream;
mod veth;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use self::load::Objects;
use self::plan::{Group, Hook};
pub use self::report::{Machine, Measurement};
use self::report::{Report, Size, measurement};
use self::rounds::{Loaded, Net, Subject};
use crate::sandbox;

/// What the benchmark is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The object that makes floods.
    #[arg(long, value_name = "PATH", default_value = "target/ebpf-object/weir-flood")]
    pub flood: PathBuf,
    /// The directory of the peers' objects.
    #[arg(long, value_name = "DIR")]
    pub peers: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Also write the page of the documentation.
    #[arg(long, value_name = "PATH")]
    pub write: Option<PathBuf>,
    /// How often everything is measured.
    #[arg(long, value_name = "N", default_value_t = 25)]
    pub rounds: usize,
}

/// Furnishes the box and measures in it.
pub fn inside(options: &Options) -> Result<()> {
    sandbox::inside()?;
    let objects = Objects {
        peers: options.peers.clone(),
        flood: options.flood.clone(),
        bpffs: Path::new(BPFFS).join("peers"),
    };
    let mut report = Report {
        machine: Machine::this()?,
        costs: Vec::new(),
        sizes: Vec::new(),
        others: Vec::new(),
        absent: Vec::new(),
    };
    on_one_cpu(|| costs(&mut report, &objects, options.rounds))??;
    ratios(&mut report);
    report.others.extend(veth::measure(&Path::new(BPFFS).join("weir"))?);
    if let Some(path) = &options.write {
        let today = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let former = fs::read_to_string(path).unwrap_or_default();
        let mut page = page::page(&report, &today);
        if !sections::kept(&former).is_empty() {
            page = format!("{page}\n{}", sections::kept(&former));
        }
        fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
    }
    let text = if options.json { report.json()? } else { report.table() };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).context("print")
}

/// In the box's own `/run`.
const BPFFS: &str = "/run/bench";

/// Keeps this thread on one CPU while it does something.
fn on_one_cpu<T>(work: impl FnOnce() -> T) -> Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).context("ask for this thread's CPUs")?;
    // The last: interrupts and whoever did not choose are more often on the first.
    let last = (0..CpuSet::count()).rev().find(|&cpu| before.is_set(cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("this thread has no CPU")?)?;
    sched_setaffinity(this, &one).context("stay on one CPU")?;
    let outcome = work();
    sched_setaffinity(this, &before).context("leave the one CPU")?;
    Ok(outcome)
}

/// Loads everything, and times it.
fn costs(report: &mut Report, objects: &Objects, rounds: usize) -> Result<()> {
    let empty = |program| load::load(&plan::empty(program), objects);
    let (xdp, tcx) = (empty(common::names::XDP)?, empty(common::names::INGRESS)?);
    let mut groups = Vec::new();
    for group in plan::groups() {
        match load::load(&group.program, objects) {
            Ok(loaded) => {
                check(&group, &loaded)?;
                report.sizes.push((group.name.clone(), size_of(&loaded)?));
                groups.push((group, loaded));
            }
            // What is ours is never absent.
            Err(error) if matches!(group.program, plan::Program::Own(..)) => {
                return Err(error).with_context(|| format!("load the programs of {}", group.name));
            }
            Err(error) => report.absent.push(format!("{}: {error:#}", group.name)),
        }
    }
    let floods = Floods::load(objects, &xdp, &groups)?;
    let packet = packet::v4(packet::SOURCE);
    let baseline = |loaded| Subject { loaded, packet: &packet, against: 0 };
    let [changing, same] = &floods.empty;
    let baselines = [&xdp, &tcx, changing, same].map(baseline);
    let mut subjects = Vec::new();
    for (group, loaded) in &groups {
        let against = match group.program.hook() {
            Hook::Xdp => 0,
            Hook::Tcx => 1,
        };
        subjects.extend(group.cases.iter().map(|case| Subject {
            loaded,
            packet: &case.packet,
            against,
        }));
    }
    let cases = subjects.len();
    for (_, [changing, same]) in &floods.of {
        subjects.push(Subject { loaded: changing, packet: &packet, against: 2 });
        subjects.push(Subject { loaded: same, packet: &packet, against: 3 });
    }
    let nets = rounds::measure(&subjects, &baselines, rounds)?;
    let (of_cases, of_floods) = nets.split_at(cases);
    let names = groups.iter().flat_map(|(group, _)| &group.cases).map(|case| case.name.clone());
    report.costs.extend(names.zip(of_cases.iter().copied()));
    for ((name, _), pair) in floods.of.iter().zip(of_floods.as_chunks().0) {
        let [changing, same]: &[Net; 2] = pair;
        let extra = Net { best: changing.best - same.best, median: changing.median - same.median };
        report.costs.push(((*name).to_owned(), extra));
    }
    Ok(())
}

/// A program behind a flood of changing packets, and behind one of packets that are the same.
type Pair = [Loaded; 2];

struct Floods {
    empty: Pair,
    of: Vec<(&'static str, Pair)>,
}

impl Floods {
    fn load(objects: &Objects, empty: &Loaded, groups: &[(Group, Loaded)]) -> Result<Self> {
        let pair = |target| -> Result<Pair> {
            Ok([load::flood(objects, u32::MAX, target)?, load::flood(objects, 0, target)?])
        };
        let mut of = Vec::new();
        for (name, flooded) in plan::FLOODS {
            if let Some((_, target)) = groups.iter().find(|(group, _)| group.name == flooded) {
                of.push((name, pair(target)?));
            }
        }
        Ok(Self { empty: pair(empty)?, of })
    }
}

fn check(group: &Group, loaded: &Loaded) -> Result<()> {
    for case in &group.cases {
        let expected = group.program.hook().answer(case.passes);
        load::check(&case.name, loaded, &case.packet, expected)?;
    }
    Ok(())
}

/// What an older kernel does not tell is zero.
fn size_of(loaded: &Loaded) -> Result<Size> {
    let info = loaded.get()?.info().context("ask for a program's sizes")?;
    Ok(Size {
        verified: info.verified_instruction_count().unwrap_or_default(),
        translated_bytes: info.size_translated().unwrap_or_default(),
        jited_bytes: info.size_jitted(),
    })
}

/// How we compare, where there is whom to compare with.
fn ratios(report: &mut Report) {
    let pairs = [("c_ratio", plan::FULL, plan::C_FULL), (XDP_FILTER_RATIO, OWN, XDP_FILTER)];
    for (name, ours, theirs) in pairs {
        if let (Some(ours), Some(theirs)) = (report.cost(ours), report.cost(theirs)) {
            report.others.push(measurement(name, ours.best / theirs.best, "times"));
        }
    }
}

const XDP_FILTER_RATIO: &str = "xdp_filter_ratio";
const OWN: &str = "own_equal";
const XDP_FILTER: &str = "xdp_filter_equal";

#[cfg(test)]
mod tests {
    use super::*;

    /// What the project's other benchmarks, and people, look for.
    const PROMISED: [&str; 12] = [
        "counters",
        "counters_flows",
        "counters_flows_rules16",
        "flood_extra",
        "rules64_miss",
        "rules1024_miss",
        "rules4096_miss",
        "c_counters_flows_rules16",
        "textbook",
        "xdp_filter_equal",
        "own_equal",
        "veth_tcp_ratio",
    ];

    #[test]
    fn the_json_has_every_promised_name_once() {
        let net = Net { best: 1.0, median: 2.0 };
        let groups = plan::groups();
        let names = groups.iter().flat_map(|group| &group.cases).map(|case| case.name.clone());
        let floods = plan::FLOODS.iter().map(|(name, _)| (*name).to_owned());
        let size = Size { verified: 1, translated_bytes: 8, jited_bytes: 8 };
        let mut report = Report {
            machine: Machine::this().unwrap(),
            costs: names.chain(floods).map(|name| (name, net)).collect(),
            sizes: groups.iter().map(|group| (group.name.clone(), size)).collect(),
            others: veth::results(&veth::Measured::default()),
            absent: Vec::new(),
        };
        ratios(&mut report);

        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();

        assert!(json["machine"]["cores"].as_u64().unwrap() > 0);
        let mut seen: Vec<_> = json["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| {
                assert!(result["unit"].is_string(), "{result}");
                result["name"].as_str().unwrap()
            })
            .collect();
        for name in PROMISED {
            assert!(seen.contains(&name), "{name}");
        }
        seen.sort_unstable();
        let all = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), all, "a name stands for two numbers");
    }

    #[test]
    fn what_is_flooded_is_a_group() {
        let groups = plan::groups();
        for (name, flooded) in plan::FLOODS {
            assert!(groups.iter().any(|group| group.name == flooded), "{name}: {flooded}");
        }
    }
}
