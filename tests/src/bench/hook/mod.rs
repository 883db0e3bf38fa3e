//! The hook's benchmark: how long a pod waits for its devices, beside the least that the kernel could
//! be asked for the same result, and how long preparing them takes, part by part.
//!
//! Everything goes over the real sockets: the runtime's for the hook, kubelet's for prepare. What the
//! parts take is what the driver's own `/metrics` says.

mod bare;
mod figures;
mod scene;
mod section;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use driver::model::{By, IfIndex, IfName};
use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;

use self::bare::{Carrier, Journey};
use self::figures::{Figures, Rounds};
use self::scene::Deployed;
use super::report::Machine;
use super::sections;
use crate::node::{self, Node, Samples};
use crate::sandbox::{self, NETNS_DIRECTORY};

/// What the benchmark is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The driver's binary, as it is shipped.
    #[arg(long, value_name = "PATH", default_value = "target/release/weir")]
    pub weir: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Also write its section of the documentation's page.
    #[arg(long, value_name = "PATH")]
    pub write: Option<PathBuf>,
    /// How often a pod with one device is started.
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub rounds: usize,
    /// How often a pod with eight devices is started.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub rounds_of_8: usize,
    /// Where a directory for the driver's checkpoint can be made: on a disk, as it is on a node.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub disk: PathBuf,
}

/// Furnishes the box and measures in it.
pub fn inside(options: &Options) -> Result<()> {
    sandbox::inside()?;
    let state = tempfile::tempdir_in(&options.disk).context("make a directory on the disk")?;
    let mut node = scene::start(&options.weir, state.path())?;
    let one = measure(&mut node, &scene::ONE, options.rounds)?;
    let eight = measure(&mut node, &scene::EIGHT, options.rounds_of_8)?;
    node.driver.stop()?;
    let figures = Figures { machine: Machine::this()?, one, eight };
    if let Some(path) = &options.write {
        let today = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let page = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let page = sections::replaced(&page, section::NAME, &section::section(&figures, &today));
        fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
    }
    let text = if options.json { figures.json()? } else { figures.table() };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).context("print")
}

/// What comes after a change, such as the driver's look at which devices there are, shall be over
/// before the next is timed. It is the same for both sides.
const PAUSE: Duration = Duration::from_millis(150);

/// Starts a pod with these devices `rounds` times, by the driver and by the least that does it, in
/// turn: what disturbs one disturbs the other.
fn measure(node: &mut Node, nics: &Range<u8>, rounds: usize) -> Result<Rounds> {
    let pod = scene::deploy(node, nics)?;
    let journeys = scene::journeys(nics)?;
    let carrier = Carrier::new()?;
    let mut seen = Rounds::default();
    // The first is not like the others: pages are not there yet, sockets are not open.
    for round in 0..=rounds {
        node.driver.check()?;
        let is_warm = round > 0;
        let before = node::scrape()?;
        let prepared = node.prepare(&pod.claims)?;
        let after = node::scrape()?;
        if is_warm {
            seen.prepare.push(prepared);
            note(&mut seen.of_prepare, &before, &after);
        }
        // With the programs attached both times.
        for is_ours in [round % 2 == 0, round % 2 != 0] {
            thread::sleep(PAUSE);
            if is_ours {
                by_driver(node, &pod, &journeys, is_warm.then_some(&mut seen))?;
            } else {
                let took = by_hand(&carrier, &journeys)?;
                if is_warm {
                    seen.bare.push(took);
                }
            }
        }
        thread::sleep(PAUSE);
        node.unprepare(&pod.claims)?;
        thread::sleep(PAUSE);
    }
    Ok(seen)
}

fn by_driver(
    node: &Node,
    pod: &Deployed,
    journeys: &[Journey],
    seen: Option<&mut Rounds>,
) -> Result<()> {
    let before = node::scrape()?;
    let (netns, took) = node.run_sandbox(&pod.pod)?;
    let after = node::scrape()?;
    check(&netns, journeys).context("attached by the driver")?;
    // Nobody may keep it open, or it would not end.
    drop(netns);
    node.stop_sandbox(&pod.pod)?;
    if let Some(seen) = seen {
        seen.hook.push(took);
        note(&mut seen.of_hook, &before, &after);
    }
    Ok(())
}

fn by_hand(carrier: &Carrier, journeys: &[Journey]) -> Result<Duration> {
    let path = Path::new(NETNS_DIRECTORY).join("bare");
    let netns = Netns::create(&path)?;
    let took = carrier.attach(&netns, journeys)?;
    check(&netns, journeys).context("attached by hand")?;
    carrier.detach(&netns, journeys)?;
    Netns::remove(&path)?;
    Ok(took)
}

/// Both sides have to come to the same: each interface is there, is up, and has its address and route.
fn check(netns: &Netns, journeys: &[Journey]) -> Result<()> {
    let pod = Netlink::open_in(netns)?;
    for it in journeys {
        let name: IfName = it.name.parse()?;
        let link = pod.link(&By::Name(name))?.with_context(|| format!("no {}", it.name))?;
        ensure!(link.up && link.index == IfIndex(it.index), "{} is not up", it.name);
        let (address, prefix) = it.address;
        let addresses = pod.addresses(link.index)?;
        let has_address = addresses.iter().any(|n| n.addr() == address && n.prefix_len() == prefix);
        ensure!(has_address && addresses.len() == 1, "{}: {addresses:?}", it.name);
        let routes = pod.routes(link.index)?;
        let has_route = routes.iter().any(|route| {
            route.destination.addr() == it.route.0 && route.gateway == Some(it.gateway.into())
        });
        ensure!(has_route, "{}: {routes:?}", it.name);
    }
    Ok(())
}

/// Adds what parts and steps took between two scrapes, in seconds, by the names of their labels.
fn note(seen: &mut BTreeMap<String, Vec<f64>>, before: &Samples, after: &Samples) {
    for (family, label) in [("weir_part", "part"), ("weir_step", "step")] {
        let name = format!("{family}_duration_seconds_sum");
        let before = before.by_label(&name, label);
        for (value, total) in after.by_label(&name, label) {
            let spent = total - before.get(&value).copied().unwrap_or_default();
            let key = if label == "part" { value } else { format!("step_{value}") };
            seen.entry(key).or_default().push(spent);
        }
    }
}
