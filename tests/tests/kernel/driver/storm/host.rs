//! All that a driver could leave on a node, or take from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use driver::model::{By, EthtoolState, Family, IfName, SYSCTLS};
use driver::state::read_records;
use driver::sys::ethtool::Ethtool;
use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;
use serde_json::Value;
use tests::node::{self, CDI_DIR, Node, ROOT, STATE_DIR};
use tests::sandbox::NETNS_DIRECTORY;

use crate::config::ip;

/// What probes are called in the wire.
const PROBE: &str = "probe";
/// The NICs that come and go.
const NICS: [&str; 2] = ["nic1", "nic2"];

/// What was found, by what it is.
#[derive(Debug)]
pub(super) struct Host(BTreeMap<&'static str, BTreeSet<String>>);

impl Host {
    pub(super) fn look(node: &Node) -> Self {
        let strings = |found: Vec<Value>| found.iter().map(ToString::to_string).collect();
        let routes = ["-4", "-6"].map(|family| list(&[family, "route", "show", "table", "all"]));
        let records = read_records(Path::new(STATE_DIR)).unwrap();
        let (gate, kubelet) = (format!("{ROOT}/bin"), format!("{ROOT}/kubelet"));
        let directories = [STATE_DIR, CDI_DIR, &gate, &kubelet];
        Self(BTreeMap::from([
            ("link", list(&["link", "show"]).into_iter().map(link).collect()),
            ("address", list(&["address", "show"]).iter().map(addresses).collect()),
            ("route", strings(routes.concat())),
            ("rule", strings([list(&["-4", "rule"]), list(&["-6", "rule"])].concat())),
            ("neighbour", strings(list(&["neighbour", "show", "nud", "permanent"]))),
            ("driver's setting", NICS.into_iter().flat_map(settings).collect()),
            ("sysctl", NICS.into_iter().flat_map(sysctls).collect()),
            ("residue", node::residue().into_iter().collect()),
            ("record", records.iter().map(|record| format!("{record:?}")).collect()),
            ("file", directories.iter().flat_map(|below| files(Path::new(below))).collect()),
            ("namespace", namespaces()),
            ("namespace that lives", probes(node)),
        ]))
    }

    /// Whether `now` is the same; else what differs.
    pub(super) fn compare(&self, now: &Self) -> Result<(), String> {
        let mut differences = Vec::new();
        for (what, before) in &self.0 {
            let now = &now.0[what];
            differences.extend(before.difference(now).map(|one| format!("{what} gone: {one}")));
            differences.extend(now.difference(before).map(|one| format!("{what} new: {one}")));
        }
        if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
    }
}

/// Puts one end of a pair into a namespace and the other into the wire, where it is gone as soon as
/// the namespace is: whoever holds it, by whatever descriptor.
pub(super) fn probe(netns: &Netns) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let far: IfName = format!("{PROBE}{}", NUMBER.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
    let links = Netlink::open_in(netns).unwrap();
    links.add_veth(&"near".parse().unwrap(), &far).unwrap();
    let wire = Netns::open(&Path::new(NETNS_DIRECTORY).join("wire")).unwrap();
    let index = links.link(&By::Name(far.clone())).unwrap().unwrap().index;
    links.move_to(index, &wire, &far).unwrap();
}

fn probes(node: &Node) -> BTreeSet<String> {
    let links = Netlink::open_in(node.network.wire()).unwrap().links().unwrap();
    let names = links.into_iter().map(|link| link.name.to_string());
    names.filter(|name| name.starts_with(PROBE)).collect()
}

fn list(arguments: &[&str]) -> Vec<Value> {
    ip(arguments).as_array().unwrap().clone()
}

/// What of an interface does not change by and by, nor with its index.
fn link(mut link: Value) -> String {
    let of_the_moment = ["ifindex", "operstate", "qdisc", "link_index", "link_netnsid", "link"];
    let fields = link.as_object_mut().unwrap();
    fields.retain(|key, _| !of_the_moment.contains(&key.as_str()));
    let passing = ["LOWER_UP", "NO-CARRIER", "M-DOWN"];
    if let Some(flags) = fields.get_mut("flags").and_then(Value::as_array_mut) {
        flags.retain(|flag| flag.as_str().is_none_or(|flag| !passing.contains(&flag)));
    }
    link.to_string()
}

fn addresses(interface: &Value) -> String {
    format!("{} {}", interface["ifname"], interface["addr_info"])
}

/// What the driver of a NIC is set to.
fn settings(name: &str) -> Vec<String> {
    let link = Netlink::open().unwrap().link(&By::Name(name.parse().unwrap())).unwrap();
    let Some(link) = link else { return Vec::new() };
    let EthtoolState { features, channels, rings, coalesce, .. } =
        Ethtool::open().unwrap().state(link.index).unwrap();
    let features =
        features.into_iter().map(|(feature, is_on)| format!("{name} {feature}: {is_on}"));
    let numbers = [channels, rings, coalesce].map(|numbers| format!("{name} {numbers:?}"));
    features.chain(numbers).collect()
}

fn sysctls(name: &str) -> Vec<String> {
    let read = |(family, sysctl): (Family, &str)| {
        let family = match family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        let path = format!("/proc/sys/net/{family}/conf/{name}/{sysctl}");
        format!("{path} {:?}", fs::read_to_string(&path).ok())
    };
    SYSCTLS.into_iter().map(read).collect()
}

fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        }
        found.push(entry.path().display().to_string());
    }
    found
}

/// The network namespaces that some process of the box is in or holds open, or that are mounted.
fn namespaces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for process in entries(Path::new("/proc")) {
        for task in entries(&process.join("task")) {
            found.extend(fs::read_link(task.join("ns/net")));
        }
        found.extend(
            entries(&process.join("fd")).into_iter().filter_map(|fd| fs::read_link(fd).ok()),
        );
    }
    let mut found: BTreeSet<_> = found.into_iter().map(|path| path.display().to_string()).collect();
    found.retain(|name| name.starts_with("net:["));
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    found.extend(mounts.split(' ').filter(|word| word.starts_with("net:[")).map(str::to_owned));
    found
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
