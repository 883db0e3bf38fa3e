//! A node of a test's own, and what tests ask of it.

use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use driver::datapath::{CounterSource as _, HookFacts, MapCounters, programs};
use driver::model::{AttachmentId, ClaimRef, IfName, InterfaceState, Record};
use driver::state::read_records;
use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use nix::sched::{self, CloneFlags};
use serde_json::{Value, json};
use tests::node::{self, BPFFS, Counted, NODE, Node, STATE_DIR};
use tests::runtime;
use tests::sandbox::traffic::{self, Echo, Expect, Route};
use tests::sandbox::{Nic, WireCount, furnish, state_in};

/// Where pods answer.
pub(crate) const PORT: u16 = 7000;
/// How long something may take that nobody is told of.
const LIMIT: Duration = Duration::from_mins(1);

/// A path that `cargo xtask test` tells.
pub(crate) fn told(variable: &str) -> PathBuf {
    let told = env::var_os(variable);
    told.unwrap_or_else(|| panic!("{variable} is not set; use `cargo xtask test`")).into()
}

/// Runs a test on a node with a driver that is ready, in namespaces that end with the test.
pub(crate) fn on_a_node(nics: u8, options: runtime::Options, test: impl FnOnce(&mut Node) + Send) {
    thread::scope(|scope| {
        let tester = scope.spawn(|| {
            sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("the kernel ring needs root");
            furnish().unwrap();
            let mut node = Node::new(&told("WEIR_BINARY"), nics, options).unwrap();
            introduce(&node);
            node.start_driver().unwrap();
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| test(&mut node)));
            assert!(outcome.is_ok(), "the driver said last:\n{}", node.driver.log_tail());
        });
        tester.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
    });
}

/// Has the API server know the node and a class for its NICs, and the wires have addresses.
pub(crate) fn introduce(node: &Node) {
    node.server.apply(&format!("{}\n---\n{}", host(), class())).unwrap();
    for (nth, nic) in node.network.nics().iter().enumerate() {
        let peer = format!("198.18.{nth}.1/24").parse().unwrap();
        node.network.address_far_end(nic, peer).unwrap();
    }
}

fn host() -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } })
}

fn class() -> Value {
    let ours = json!([{ "cel": { "expression": "device.driver == 'weir.dev'" } }]);
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
        "metadata": { "name": "nic" }, "spec": { "selectors": ours },
    })
}

pub(super) fn nic(node: &Node, nth: u8) -> &Nic {
    &node.network.nics()[usize::from(nth)]
}

/// What a claim may want of NIC `nth`: called `netNTH` in the pod, where its wire's far end can
/// reach it.
pub(super) fn config(nth: u8, hook: &str) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
        "interface": { "name": format!("net{nth}"), "addresses": [format!("198.18.{nth}.10/24")] },
        "ebpf": { "hook": hook, "telemetry": "counters" },
    })
}

/// A pod that is scheduled with its claim.
pub(crate) struct Deployed {
    pub(crate) pod: Pod,
    pub(crate) claim: ClaimRef,
    devices: Vec<String>,
    wire: Vec<WireCount>,
}

/// Has a pod scheduled whose claim wants these NICs, each configured as told.
pub(super) fn deploy(node: &Node, name: &str, nics: &[(u8, Value)]) -> Deployed {
    let wanted: Vec<_> = nics
        .iter()
        .map(|(nth, parameters)| {
            (format!("r{nth}"), nic(node, *nth).name.to_string(), parameters.clone())
        })
        .collect();
    let wire = nics.iter().map(|&(nth, _)| node.network.count(nic(node, nth)).unwrap()).collect();
    Deployed { wire, ..deploy_interfaces(node, name, &wanted) }
}

/// What a claim for interfaces of the node says: of each the name of its request, its own name, and
/// how it shall be configured.
pub(crate) fn claim_spec(wanted: &[(String, String, Value)]) -> Value {
    let request = |(request, interface, _): &(String, String, Value)| {
        let expression = format!("device.attributes['weir.dev'].ifName == '{interface}'");
        json!({ "name": request, "exactly": {
            "deviceClassName": "nic", "selectors": [{ "cel": { "expression": expression } }],
        }})
    };
    let configure = |(request, _, parameters): &(String, String, Value)| {
        let opaque = json!({ "driver": node::DRIVER, "parameters": parameters });
        json!({ "requests": [request], "opaque": opaque })
    };
    json!({ "devices": {
        "requests": wanted.iter().map(request).collect::<Vec<_>>(),
        "config": wanted.iter().map(configure).collect::<Vec<_>>(),
    }})
}

/// Has a pod scheduled whose claim wants these interfaces of the node.
pub(crate) fn deploy_interfaces(
    node: &Node,
    name: &str,
    wanted: &[(String, String, Value)],
) -> Deployed {
    deploy_claim(node, name, &claim_spec(wanted))
}

/// Has a pod scheduled whose claim says this.
pub(crate) fn deploy_claim(node: &Node, name: &str, spec: &Value) -> Deployed {
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": name, "namespace": "default" }, "spec": spec,
    });
    let uses = json!([{ "name": "nics", "resourceClaimName": name }]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "i" }], "resourceClaims": uses },
    });
    node.server.apply(&format!("{claim}\n---\n{pod}")).unwrap();
    let pod: Pod = node.server.object(Some("default"), name).unwrap();
    let claim = node.schedule(&pod).unwrap().remove(0);
    Deployed::of(pod, &claim)
}

/// Prepares a pod's claim; answers the CDI ids that its containers name.
pub(crate) fn prepared_ids(node: &Node, deployed: &Deployed) -> Vec<String> {
    let answers = node.ask_to_prepare(&deployed.claims()).unwrap();
    let devices = answers[deployed.claim.uid.as_str()].clone().unwrap();
    devices.into_iter().flat_map(|device| device.cdi_device_ids).collect()
}

fn devices(claim: &ResourceClaim) -> Vec<String> {
    let allocation = claim.status.as_ref().unwrap().allocation.as_ref().unwrap();
    let results = allocation.devices.as_ref().unwrap().results.iter().flatten();
    results.map(|result| result.device.clone()).collect()
}

impl Deployed {
    /// A pod with its claim, which the scheduler has allocated.
    pub(crate) fn of(pod: Pod, claim: &ResourceClaim) -> Self {
        let devices = devices(claim);
        Self { pod, claim: node::claim_ref(claim).unwrap(), devices, wire: Vec::new() }
    }

    pub(crate) fn claims(&self) -> [ClaimRef; 1] {
        [self.claim.clone()]
    }

    pub(crate) fn device(&self, nth: usize) -> &str {
        &self.devices[nth]
    }

    pub(super) fn id(&self, nth: usize) -> AttachmentId {
        AttachmentId {
            claim: self.claim.uid.clone(),
            device: self.devices[nth].parse().unwrap(),
            share: None,
        }
    }

    /// What was counted for a device, as its pins tell, driver or not.
    pub(crate) fn pinned_count(&self, nth: usize) -> u64 {
        MapCounters::new(Path::new(BPFFS)).read(&self.id(nth)).unwrap().ingress.total.packets
    }

    pub(super) fn hooks(&self, nth: usize) -> Vec<HookFacts> {
        programs(Path::new(BPFFS), &self.id(nth)).unwrap()
    }

    pub(super) fn link_ids(&self, nth: usize) -> Vec<u32> {
        self.hooks(nth).iter().filter_map(|hook| hook.link_id).collect()
    }

    /// Has `/metrics` agree with what the wire of NIC `nth` saw since the pod was scheduled.
    pub(super) fn agrees_with_the_wire(&self, node: &Node, nth: u8) -> Counted {
        let device = usize::from(nth);
        let before = self.wire[device];
        until("/metrics agrees with the wire", || {
            let wire = node.network.count(nic(node, nth)).unwrap();
            let counted = Counted::of(&node::scrape().unwrap(), self.device(device));
            let same = counted.received == wire.to_nic - before.to_nic
                && counted.sent == wire.from_nic - before.from_nic;
            if same { Ok(counted) } else { Err(format!("{counted:?}, {before:?} to {wire:?}")) }
        })
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = read_records(Path::new(STATE_DIR)).unwrap();
        records.retain(|record| record.claim == self.claim);
        records
    }

    /// The phases of what is recorded.
    pub(super) fn phases(&self) -> Vec<&'static str> {
        self.records().iter().map(|record| record.phase.name()).collect()
    }

    /// Ends the pod and its claim.
    pub(crate) fn end(&self, node: &Node) {
        node.stop_sandbox(&self.pod).unwrap();
        node.unprepare(&self.claims()).unwrap();
    }
}

/// Starts what answers in the pod.
pub(crate) fn answer_in(netns: &Netns) -> Echo {
    Echo::start(netns, PORT).unwrap()
}

pub(super) fn route(nth: u8) -> Route {
    Route {
        from: SocketAddr::from(([198, 18, nth, 1], 0)),
        to: SocketAddr::from(([198, 18, nth, 10], PORT)),
        pace: Duration::from_micros(500),
    }
}

/// Exchanges datagrams between the wire of NIC `nth` and the pod, and loses none.
pub(super) fn talk(node: &Node, nth: u8) {
    exchange(node.network.wire(), route(nth));
}

/// Exchanges datagrams between two namespaces, and loses none.
///
/// An interface that has just been set up drops what it shall send until the kernel's link watch has
/// run (`net/core/link_watch.c`), so the first ones may have to be repeated.
pub(crate) fn exchange(from: &Netns, route: Route) {
    let send = |count| {
        let expect = if count == 1 { Expect::Silence } else { Expect::Answers };
        traffic::burst(from, route, count, expect).unwrap()
    };
    until("the other end answers", || {
        let tally = send(1);
        if tally.answered == 1 { Ok(()) } else { Err(format!("{tally:?}")) }
    });
    let tally = send(50);
    assert_eq!((tally.sent, tally.answered), (50, 50));
}

/// What NIC `nth` is like on the node; the index set aside, which the kernel may give anew.
pub(super) fn looks(node: &Node, nth: u8) -> Option<InterfaceState> {
    let state = node.network.state(&nic(node, nth).name).unwrap();
    state.map(|state| InterfaceState { index: driver::model::IfIndex(0), ..state })
}

/// What is called `name` in a namespace.
pub(super) fn inside(netns: &Netns, name: &str) -> Option<InterfaceState> {
    let name: IfName = name.parse().unwrap();
    state_in(&Netlink::open_in(netns).unwrap(), &name).unwrap()
}

/// Looks until something holds, and answers it; what does not hold yet is said if it never does.
pub(crate) fn until<T>(what: &str, mut holds: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match holds() {
            Ok(value) => return value,
            Err(instead) => assert!(started.elapsed() < LIMIT, "waited for: {what}; {instead}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// All that a pod can leave on a node is gone.
pub(crate) fn nothing_is_left() {
    assert_eq!(node::residue(), Vec::<String>::new());
}

/// Sockets below a directory.
pub(crate) fn sockets(directory: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt as _;

    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(sockets(&entry.path()));
        } else if kind.is_socket() {
            found.push(entry.path());
        }
    }
    found
}
