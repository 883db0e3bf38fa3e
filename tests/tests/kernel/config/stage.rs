//! A node with an interface in a pod, and what `ip` and `/proc/sys` tell of it.

use std::fs;
use std::process::Command;

use driver::cdi::{CdiDir, Gate};
use driver::datapath::Datapath;
use driver::model::{At, By, IfIndex, IfName, InterfaceState, NetnsRef, Place, Segments};
use driver::node::{LinuxNode, Node, StepError};
use driver::plan::{Observed, Step, Subject, Was};
use driver::sys::netlink::Netlink;
use serde_json::Value;

use crate::bench::{MadeNetns, in_own_namespaces, veth_pair};

/// What the interface is called on the host; the other end is `v1`.
pub(crate) const ON_HOST: &str = "v0";
/// What it is called in the pod.
pub(crate) const IN_POD: &str = "net1";

pub(crate) struct Stage {
    pub(crate) node: LinuxNode,
    pub(crate) host: Netlink,
    pub(crate) pod: MadeNetns,
    /// Where the node pins what it loads; gone with the stage.
    _bpffs: tempfile::TempDir,
}

/// What somebody else would see of an interface and of its namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) addresses: Value,
    pub(crate) routes: Value,
    pub(crate) rules: Value,
    pub(crate) neighbors: Value,
    pub(crate) link: Value,
}

/// Runs a test with a veth pair on the host.
pub(crate) fn on_host(test: impl FnOnce(&mut Stage) + Send) {
    in_own_namespaces(|_| {
        let host = Netlink::open().unwrap();
        let bpffs = tempfile::tempdir().unwrap();
        let pod = MadeNetns::new();
        silence();
        pod.netns.run(|_| silence()).unwrap();
        veth_pair(&host, ON_HOST, "v1");
        let gate = Gate::install(bpffs.path()).unwrap();
        let cdi = CdiDir::open(&bpffs.path().join("cdi"), "weir.dev", gate).unwrap();
        let node = LinuxNode::open(Datapath::open(bpffs.path()).unwrap(), cdi).unwrap();
        test(&mut Stage { node, host, pod, _bpffs: bpffs });
    });
}

/// Runs a test with one end of a veth pair in a pod, up.
pub(crate) fn in_pod(test: impl FnOnce(&mut Stage) + Send) {
    on_host(|stage| {
        stage.enter_pod();
        stage.node.apply(&Step::SetUp { at: stage.in_pod() }).unwrap();
        test(stage);
    });
}

/// No addresses of the kernel's own making, which come when they like.
fn silence() {
    fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1").unwrap();
}

impl Stage {
    pub(crate) fn on_host() -> At {
        At { place: Place::Host, interface: ON_HOST.parse().unwrap() }
    }

    pub(crate) fn place(&self) -> Place {
        Place::Pod(self.netns())
    }

    pub(crate) fn netns(&self) -> NetnsRef {
        NetnsRef { path: self.pod.path(), id: self.pod.netns.id() }
    }

    pub(crate) fn in_pod(&self) -> At {
        At { place: self.place(), interface: IN_POD.parse().unwrap() }
    }

    pub(crate) fn enter_pod(&mut self) {
        let step = Step::Move { from: Self::on_host(), to: self.in_pod() };
        assert_eq!(self.node.apply(&step).unwrap(), Was::Otherwise);
    }

    pub(crate) fn leave_pod(&mut self) {
        let step = Step::Move { from: self.in_pod(), to: Self::on_host() };
        assert_eq!(self.node.apply(&step).unwrap(), Was::Otherwise);
    }

    /// Applies a step twice: the second time it changes nothing.
    pub(crate) fn twice(&mut self, step: &Step) -> Was {
        let was = self.node.apply(step).unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_ne!(was, Was::Same, "{step}");
        let again = self.node.apply(step).unwrap_or_else(|error| panic!("{step}, again: {error}"));
        assert_eq!(again, Was::Same, "{step}, again");
        was
    }

    /// Takes a step back, twice as well.
    pub(crate) fn back(&mut self, step: &Step, was: &Was) {
        let undo = step.undo(was).unwrap_or_else(|| panic!("{step}: no way back from {was:?}"));
        self.twice(&undo);
    }

    /// Applies a step, has `look` read it back, and takes it back.
    pub(crate) fn there_and_back(&mut self, at: &At, step: &Step, look: impl FnOnce(&Seen)) {
        let before = self.seen(at);
        let was = self.twice(step);
        let after = self.seen(at);
        assert_ne!(after, before, "{step}");
        look(&after);
        self.back(step, &was);
        assert_eq!(self.seen(at), before, "{step}, taken back");
    }

    pub(crate) fn refused(&mut self, step: &Step) -> StepError {
        self.node.apply(step).expect_err(&step.to_string())
    }

    pub(crate) fn state(&mut self, at: &At) -> InterfaceState {
        let subject =
            Subject::Interface { place: at.place.clone(), by: By::Name(at.interface.clone()) };
        match self.node.observe(&subject).unwrap() {
            Observed::Interface(Some(state)) => state,
            other => panic!("{at}: {other:?}"),
        }
    }

    /// Those limits that this kernel has.
    pub(crate) fn known(&mut self, segments: Segments) -> Segments {
        match self.state(&Self::on_host()).segments.gso_ipv4_max_size {
            Some(_) => segments,
            None => Segments { gso_ipv4_max_size: None, gro_ipv4_max_size: None, ..segments },
        }
    }

    pub(crate) fn index(&mut self, interface: &str) -> IfIndex {
        let name: IfName = interface.parse().unwrap();
        self.host.link(&By::Name(name)).unwrap().unwrap().index
    }

    pub(crate) fn seen(&self, at: &At) -> Seen {
        let name = at.interface.as_str();
        self.inside(&at.place, || Seen {
            addresses: ip(&["addr", "show", "dev", name])[0]["addr_info"].take(),
            routes: Value::Array([routes("-4", name), routes("-6", name)].concat()),
            rules: Value::Array([list(&["-4", "rule"]), list(&["-6", "rule"])].concat()),
            neighbors: ip(&["neigh", "show", "dev", name, "nud", "permanent"]),
            link: link(name),
        })
    }

    /// What a setting below `/proc/sys/net` is in a namespace.
    pub(crate) fn sysctl(&self, place: &Place, name: &str) -> String {
        let path = format!("/proc/sys/net/{name}");
        let text = self.inside(place, || fs::read_to_string(&path).unwrap());
        text.trim_end().to_owned()
    }

    pub(crate) fn inside<T: Send>(&self, place: &Place, work: impl FnOnce() -> T + Send) -> T {
        match place {
            Place::Host => work(),
            Place::Pod(_) => self.pod.netns.run(|_| work()).unwrap(),
        }
    }
}

/// What `ip` tells, with numbers for names.
pub(crate) fn ip(arguments: &[&str]) -> Value {
    let output = Command::new("ip").args(["-j", "-N", "-d"]).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {words}");
    if output.stdout.trim_ascii().is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list(arguments: &[&str]) -> Vec<Value> {
    ip(arguments).as_array().unwrap().clone()
}

/// `ip` filters by itself, so a route says nothing of its interface.
fn routes(family: &str, interface: &str) -> Vec<Value> {
    list(&[family, "route", "show", "table", "all", "dev", interface])
}

/// What of an interface does not change by and by.
fn link(name: &str) -> Value {
    let mut link = ip(&["link", "show", "dev", name])[0].take();
    let of_the_moment = ["operstate", "qdisc", "link_index", "link_netnsid", "link"];
    link.as_object_mut().unwrap().retain(|key, _| !of_the_moment.contains(&key.as_str()));
    let is_lasting = |flag: &Value| {
        let passing = ["LOWER_UP", "NO-CARRIER", "M-DOWN"];
        flag.as_str().is_none_or(|flag| !passing.contains(&flag))
    };
    link["flags"].as_array_mut().unwrap().retain(is_lasting);
    link
}
