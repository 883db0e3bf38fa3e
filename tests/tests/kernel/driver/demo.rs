//! The demo: what it measures is so, and nothing of it outlives it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use driver::sys::netlink::Netlink;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::world::{told, until};

fn demo() -> Command {
    let mut demo = Command::new(told("WEIR_BINARY").with_file_name("demo"));
    demo.arg("--weir").arg(told("WEIR_BINARY"));
    demo.arg("--examples").arg(told("WEIR_EXAMPLES"));
    demo
}

#[test]
fn the_demo_counts_what_the_wire_counts_and_leaves_nothing() {
    let output = demo().arg("--json").output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {complaint}"));

    assert!(output.status.success(), "{report:#}\n{complaint}");
    let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report:#}"));
    // Bursts of 200: two are denied, and three and the streams of the restart are not.
    assert_eq!(number("rx_denied"), 400);
    assert!(number("rx_packets") >= 1000 + number("sent_during_restart"), "{report:#}");
    for (counted, expected) in [
        ("rx_packets", "expected_rx_packets"),
        ("rx_denied", "expected_rx_denied"),
        ("tx_packets", "expected_tx_packets"),
    ] {
        assert_eq!(number(counted), number(expected), "{counted}");
    }
    assert!(number("sent_during_restart") > 0);
    assert_eq!(number("lost_during_restart"), 0);
    assert_eq!(report["restored"], json!(true));
    assert_eq!(report["residue"], json!([]));
    assert_eq!(report["hooks"], json!({ "filtered": "xdp", "plain": "tcx" }));
    assert_eq!((number("devices"), number("slices")), (3, 1));
    assert_eq!(report["allocated"], json!({ "filtered": "nic0", "plain": "nic1" }));
    for request in ["filtered", "plain"] {
        let selector = report["claim_selector"][request].as_str().unwrap();
        assert!(selector.contains("ifName.startsWith"), "{selector}");
    }
    for took in ["prepare_ms", "hook_ms"] {
        assert!(report[took].as_f64().unwrap() > 0.0, "{took}");
    }
}

#[test]
fn the_story_is_told_to_its_end_and_shows_the_objects_where_asked() {
    let output = demo().arg("--yaml").output().unwrap();
    let story = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{story}");
    let heads =
        ["Node ", "Driver ", "Slices ", "Class ", "Claim ", "Prepare ", "Sandbox ", "In pod "];
    let ends = ["Traffic ", "Counters ", "Restart ", "Pod gone ", "Residue ", "Checked "];
    for head in heads.iter().chain(&ends) {
        assert!(story.lines().any(|line| line.starts_with(head)), "{head}: {story}");
    }
    for kind in ["ResourceSlice", "DeviceClass", "ResourceClaim", "Pod"] {
        assert!(story.lines().any(|line| line == format!("kind: {kind}")), "{kind}: {story}");
    }
}

/// What there is on this machine that a demo could add to.
#[derive(Debug, Eq, PartialEq)]
struct Surroundings {
    namespaces: BTreeSet<PathBuf>,
    programs: Vec<String>,
    interfaces: Vec<String>,
    pins: Vec<PathBuf>,
    mounts: String,
}

impl Surroundings {
    fn look() -> Self {
        let mut namespaces = BTreeSet::new();
        let mut programs = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            namespaces.extend(fs::read_link(entry.path().join("ns/net")));
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if ["weir", "demo"].contains(&name.trim()) {
                programs.push(format!("{} {}", entry.path().display(), name.trim()));
            }
        }
        let links = Netlink::open().unwrap().links().unwrap();
        let bpffs = fs::read_dir(Path::new("/sys/fs/bpf")).unwrap();
        Self {
            namespaces,
            programs,
            interfaces: links.iter().map(|link| link.name.to_string()).collect(),
            pins: bpffs.flatten().map(|entry| entry.path()).collect(),
            mounts: fs::read_to_string("/proc/thread-self/mountinfo").unwrap(),
        }
    }
}

fn started() -> Child {
    demo().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_demo_that_is_killed_at_any_moment_leaves_nothing_behind() {
    let before = Surroundings::look();
    assert_eq!(before.programs, Vec::<String>::new());
    for moment in [300, 1000, 2000, 3000] {
        let signals = [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM];
        let demos = signals.map(|signal| (signal, started()));
        std::thread::sleep(Duration::from_millis(moment));
        if moment >= 1000 {
            let during = Surroundings::look();
            assert!(during.namespaces.len() > before.namespaces.len(), "{during:#?}");
        }
        for (signal, mut demo) in demos {
            assert_eq!(demo.try_wait().unwrap(), None, "it ended before {moment} ms");
            kill(Pid::from_raw(demo.id().cast_signed()), signal).unwrap();
            demo.wait().unwrap();
        }
        until("all is as before", || {
            let now = Surroundings::look();
            if now == before { Ok(()) } else { Err(format!("{moment} ms: {now:#?}")) }
        });
    }
}
