//! The inventory's benchmark: what it costs to know 256 interfaces, once and again, and what becomes of
//! them in the API server.
//!
//! To the kernel the interfaces are 128 veth pairs, which it lists as it lists virtual functions. What
//! sysfs would tell of those is in a tree of files of the benchmark's own, as sysfs takes no others.

mod machine;
mod section;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use driver::inventory::Scanner;
use driver::model::{By, IfIndex, IfName};
use driver::sys::asked::asked;
use driver::sys::netlink::{Changes, Netlink};
use driver::sys::sysfs::Sysfs;
use driver::sys::sysfs::tree::plant_machine;
use k8s_openapi::api::resource::v1::ResourceSlice;
use serde::Serialize;

use self::machine::{DEVICES, Function};
use super::report::{Machine, Measurement, measurement};
use super::rounds::{median, processor_time};
use super::sections;
use crate::node::{NODE, Node};
use crate::{runtime, sandbox};

/// What the benchmark is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The driver's binary.
    #[arg(long, value_name = "PATH", default_value = "target/release/weir")]
    pub weir: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Also write its section of the documentation's page.
    #[arg(long, value_name = "PATH")]
    pub write: Option<PathBuf>,
    /// How often each is measured.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub rounds: usize,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Figures {
    machine: Machine,
    #[serde(skip)]
    is_real_time: bool,
    results: Vec<Measurement>,
}

/// Furnishes the box and measures in it.
pub fn inside(options: &Options) -> Result<()> {
    sandbox::inside()?;
    let one = furnish()?;
    let sysfs = tempfile::tempdir().context("make a place for the machine's files")?;
    let text = machine::functions_as_text();
    plant_machine(sysfs.path(), &text).context("write the machine's files")?;
    let mut results = scans(sysfs.path(), one, options.rounds)?;
    results.extend(driver(&options.weir, sysfs.path())?);
    let figures = Figures { machine: Machine::this()?, is_real_time: is_real_time()?, results };
    if let Some(path) = &options.write {
        let today = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let page = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let section = section::section(&figures, &today);
        let page = sections::replaced(&page, section::NAME, &section);
        fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
    }
    let text = if options.json {
        serde_json::to_string_pretty(&figures).context("write the report")?
    } else {
        figures.results.iter().map(section::line).collect()
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).context("print")
}

/// Whether this was started by somebody who wants it to wait for nobody, as `chrt` does. The policy is
/// the 41st field of `proc_pid_stat(5)`, and the name of the process, the second, may have spaces.
fn is_real_time() -> Result<bool> {
    const AFTER_NAME: usize = 41 - 3;
    let stat = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    let policy = fields.and_then(|mut fields| fields.nth(AFTER_NAME));
    Ok(policy.is_some_and(|policy| matches!(policy, "1" | "2")))
}

/// Makes the interfaces, all up; answers one of them.
fn furnish() -> Result<IfIndex> {
    let netlink = Netlink::open()?;
    let names: Vec<IfName> =
        (0..DEVICES).map(|nth| Function::nth(nth).interface().parse()).collect::<Result<_, _>>()?;
    for pair in names.chunks_exact(2) {
        netlink.add_veth(&pair[0], &pair[1])?;
        for name in pair {
            let link = netlink.link(&By::Name(name.clone()))?.context("it was just made")?;
            netlink.set_up(link.index)?;
        }
    }
    // Carriers are told of by and by.
    thread::sleep(Duration::from_secs(2));
    let last = names.last().context("there are interfaces")?;
    Ok(netlink.link(&By::Name(last.clone()))?.context("it was just made")?.index)
}

/// What one thing took: on the clock, of the processor, and in requests.
#[derive(Default)]
struct Costs {
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
    requests: u64,
}

impl Costs {
    fn add<T>(&mut self, work: impl FnOnce() -> T) -> Result<T> {
        let (started, processor, before) = (Instant::now(), processor_time()?, asked());
        let answer = work();
        self.wall_ms.push(started.elapsed().as_secs_f64() * 1e3);
        let processor = processor_time()?.saturating_sub(processor);
        self.cpu_ms.push(processor.as_secs_f64() * 1e3);
        self.requests = asked() - before;
        Ok(answer)
    }

    #[expect(clippy::cast_precision_loss, reason = "requests are few")]
    fn results(self, wall: &str, cpu: &str, requests: &str) -> Vec<Measurement> {
        vec![
            measurement(wall, median(self.wall_ms), "ms"),
            measurement(cpu, median(self.cpu_ms), "ms"),
            measurement(requests, self.requests as f64, "requests"),
        ]
    }
}

fn scans(sysfs: &Path, one: IfIndex, rounds: usize) -> Result<Vec<Measurement>> {
    ensure!(rounds > 0, "nothing is measured in no rounds");
    let netlink = Netlink::open()?;
    let mut first = Costs::default();
    let mut scanner = first.add(|| -> Result<Scanner> {
        let mut scanner = Scanner::new(Sysfs::new(sysfs)?)?;
        machine::check(&scanner.scan()?.devices)?;
        Ok(scanner)
    })??;
    let (mut full, mut again, mut poll) = (Costs::default(), Costs::default(), Costs::default());
    for round in 0..rounds {
        full.add(|| scanner.scan())??;
        let mtu = if round % 2 == 0 { 1400 } else { 1500 };
        netlink.set_mtu(one, mtu)?;
        let changes = Changes { interfaces: [one].into(), ..Changes::default() };
        let seen = again.add(|| scanner.rescan(&changes))??;
        let is_seen = seen.devices.iter().any(|it| it.index == Some(one) && it.mtu == mtu);
        ensure!(is_seen, "the change is not seen");
        let changes = poll.add(|| scanner.attached())??;
        ensure!(changes.is_empty(), "nobody attached anything: {changes:?}");
    }
    let mut results =
        first.results("scan_first_256_ms", "scan_first_256_cpu_ms", "scan_first_256_requests");
    results.extend(full.results("scan_256_ms", "scan_256_cpu_ms", "scan_256_requests"));
    results.extend(again.results("rescan_one_wall_ms", "rescan_one_ms", "rescan_one_requests"));
    results.extend(poll.results("poll_wall_ms", "poll_ms", "poll_requests"));
    Ok(results)
}

/// What the driver itself makes of them.
fn driver(weir: &Path, sysfs: &Path) -> Result<Vec<Measurement>> {
    let mut node = Node::new(weir, 0, runtime::Options::default())?;
    node.driver.add("--sysfs");
    node.driver.add(sysfs.to_str().context("its path is no text")?);
    let host = serde_json::json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE },
    });
    node.server.apply(&host.to_string()).context("introduce the node")?;
    node.start_driver()?;
    let slices = published(&node)?;
    let bytes: usize = slices
        .iter()
        .map(|slice| serde_json::to_vec(slice).map(|bytes| bytes.len()))
        .sum::<Result<_, _>>()?;
    // Whoever published lets go of memory soon after.
    thread::sleep(Duration::from_secs(1));
    let pid = node.driver.pid().context("the driver is not running")?;
    let rss = resident_kib(pid)? / 1024.0;
    node.driver.stop()?;
    #[expect(clippy::cast_precision_loss, reason = "slices are few and small")]
    Ok(vec![
        measurement("slices_256", slices.len() as f64, "slices"),
        measurement("slices_256_bytes", bytes as f64, "bytes"),
        measurement("rss_mib", rss, "MiB"),
    ])
}

fn published(node: &Node) -> Result<Vec<ResourceSlice>> {
    let started = Instant::now();
    loop {
        let slices = node.server.objects::<ResourceSlice>();
        let devices: usize =
            slices.iter().map(|slice| slice.spec.devices.as_ref().map_or(0, Vec::len)).sum();
        if devices == DEVICES {
            return Ok(slices);
        }
        if started.elapsed() > crate::node::PATIENCE {
            bail!(
                "{devices} devices are published; the driver said last:\n{}",
                node.driver.log_tail()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn resident_kib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.with_context(|| format!("{path} has no VmRSS"))?.trim().parse().context("read VmRSS")
}
