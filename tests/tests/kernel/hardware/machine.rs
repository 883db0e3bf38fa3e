//! A node that has what the machine has, and what tests ask of it.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use driver::model::MacAddr;
use driver::sys::netns::Netns;
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, ResourceClaim, ResourceSlice};
use kube::Api;
use kube::api::DeleteParams;
use nix::sched::{self, CloneFlags};
use serde_json::{Value, json};
use tests::node::{DRIVER, Node};
use tests::runtime::Options;
use tests::sandbox::furnish;
use tests::sandbox::traffic::Route;

use crate::config::ip;
use crate::driver::configured::lines;
use crate::driver::world::{
    Deployed, PORT, answer_in, deploy_claim, exchange, introduce, told, until,
};

/// The machine's NICs, by their MAC addresses: the kernel names them in the order in which their drivers
/// find them.
pub(super) const IGB0: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x10]);
pub(super) const IGB1: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x11]);
pub(super) const VIRTIO: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x12]);

/// An emulated machine is about thirty times slower than others, so the driver may take its time.
const BUDGET_MS: &str = "30000";
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs a test on a node with a driver that is ready, in the machine's own network namespace, where its
/// hardware is and comes back to.
pub(super) fn on_the_machine(test: impl FnOnce(&mut Node) + Send) {
    in_its_namespace(|| {
        furnish().unwrap();
        tidy_up();
        let options = Options { request_timeout: REQUEST_TIMEOUT, ..Options::default() };
        let mut node = Node::new(&told("WEIR_BINARY"), 0, options).unwrap();
        set_up(&mut node);
        node.start_driver().unwrap();
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| test(&mut node)));
        assert!(outcome.is_ok(), "the driver said last:\n{}", node.driver.log_tail());
    });
}

/// Runs something in the machine's own network namespace, with mounts that are gone afterwards.
pub(super) fn in_its_namespace(work: impl FnOnce() + Send) {
    let machine = Netns::open(&told("WEIR_MACHINE")).unwrap();
    let outcome = machine.run(|_| {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                sched::unshare(CloneFlags::CLONE_NEWNS).expect("a guest is root");
                work();
            });
            worker.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
        });
    });
    outcome.unwrap();
}

/// Has the NICs as they were at first: what a test that failed has left shall not fail the next one.
pub(super) fn tidy_up() {
    for device in names_in("/sys/class/infiniband") {
        rdma(&["link", "delete", &device]).unwrap();
    }
    for function in names_in("/sys/bus/pci/devices") {
        let file = Path::new("/sys/bus/pci/devices").join(function).join("sriov_numvfs");
        if fs::read_to_string(&file).is_ok_and(|number| number.trim() != "0") {
            fs::write(&file, "0").unwrap();
        }
    }
    for link in ip(&["link"]).as_array().unwrap() {
        let name = link["ifname"].as_str().unwrap();
        if link["linkinfo"]["info_kind"].is_string() {
            // One of a pair goes with the other.
            let _ = Command::new("ip").args(["link", "del", name]).status();
        } else if name != "lo" {
            lines(&[&format!("link set {name} down mtu 1500"), &format!("addr flush dev {name}")]);
            // No addresses of the kernel's own making, which are tentative first.
            let silence = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            fs::write(silence, "1").unwrap();
        }
    }
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Has the API server know the node, and the driver take its time.
pub(super) fn set_up(node: &mut Node) {
    for argument in ["--attach-budget-ms", BUDGET_MS] {
        node.driver.add(argument);
    }
    introduce(node);
}

/// What is published of the node's devices.
pub(super) fn published(node: &Node) -> Vec<Device> {
    let slices = node.server.objects::<ResourceSlice>();
    let ours = slices.into_iter().filter(|slice| slice.spec.driver == DRIVER);
    ours.flat_map(|slice| slice.spec.devices.unwrap_or_default()).collect()
}

/// The published device of which this holds, once there is one.
pub(super) fn awaited(node: &Node, what: &str, holds: impl Fn(&Device) -> bool) -> Device {
    until(what, || {
        let devices = published(node);
        let found = devices.iter().find(|device| holds(device)).cloned();
        found.ok_or_else(|| format!("{devices:?}"))
    })
}

/// One of our own attributes.
pub(super) fn attribute<'d>(device: &'d Device, name: &str) -> Option<&'d DeviceAttribute> {
    device.attributes.as_ref()?.get(&format!("{DRIVER}/{name}"))
}

/// Whether the device is this interface.
pub(super) fn is_called(device: &Device, interface: &str) -> bool {
    let name = attribute(device, "ifName").and_then(|name| name.string.as_deref());
    name == Some(interface)
}

/// One device that a claim wants, by CEL, and what is to become of it.
pub(super) struct Wish<'w> {
    pub(super) request: &'w str,
    pub(super) expression: String,
    pub(super) parameters: Value,
}

impl<'w> Wish<'w> {
    /// The interface of this name.
    pub(super) fn of(interface: &str, parameters: Value) -> Wish<'w> {
        let expression = format!(
            "has(device.attributes['{DRIVER}'].ifName) && \
             device.attributes['{DRIVER}'].ifName == '{interface}'"
        );
        Wish { request: "nic", expression, parameters }
    }
}

/// What a claim for these devices says.
pub(super) fn claim(wishes: &[Wish<'_>]) -> Value {
    let request = |wish: &Wish<'_>| {
        json!({ "name": wish.request, "exactly": {
            "deviceClassName": "nic", "selectors": [{ "cel": { "expression": wish.expression } }],
        }})
    };
    let configure = |wish: &Wish<'_>| {
        let opaque = json!({ "driver": DRIVER, "parameters": wish.parameters });
        json!({ "requests": [wish.request], "opaque": opaque })
    };
    json!({ "devices": {
        "requests": wishes.iter().map(request).collect::<Vec<_>>(),
        "config": wishes.iter().map(configure).collect::<Vec<_>>(),
    }})
}

/// What a claim may want of an interface: this name and address in the pod, and programs at this hook.
pub(super) fn config(name: &str, address: &str, hook: &str) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
        "interface": { "name": name, "addresses": [address] },
        "ebpf": { "hook": hook, "telemetry": "counters" },
    })
}

/// A pod that runs, with its claim's devices in it.
pub(super) struct Running {
    pub(super) deployed: Deployed,
    pub(super) netns: Netns,
}

impl Running {
    pub(super) fn start(node: &Node, name: &str, wishes: &[Wish<'_>]) -> Self {
        Self::of(node, deploy_claim(node, name, &claim(wishes)))
    }

    /// Has a pod that is scheduled run.
    pub(super) fn of(node: &Node, deployed: Deployed) -> Self {
        node.prepare(&deployed.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&deployed.pod).unwrap();
        Self { deployed, netns }
    }

    /// What `ip` shows of an interface in the pod.
    pub(super) fn link(&self, name: &str) -> Value {
        self.netns.run(|_| ip(&["link", "show", "dev", name])[0].take()).unwrap()
    }

    /// Sends datagrams to an address of another pod, and has all of them answered.
    pub(super) fn talks_to(&self, other: &Self, address: [u8; 4]) {
        let echo = answer_in(&other.netns);
        let route = Route {
            from: ([0, 0, 0, 0], 0).into(),
            to: (address, PORT).into(),
            pace: Duration::from_millis(2),
        };
        exchange(&self.netns, route);
        assert!(echo.stop() >= 51);
    }

    /// Ends the pod, and gives its devices back to be allocated.
    pub(super) fn end(self, node: &Node) {
        drop(self.netns);
        self.deployed.end(node);
        let claim = &self.deployed.claim;
        node.tokio.block_on(async {
            let client = node.server.client().unwrap();
            let claims = Api::<ResourceClaim>::namespaced(client, &claim.namespace);
            claims.delete(&claim.name, &DeleteParams::default()).await.unwrap();
        });
    }
}

/// The interface with this MAC address, once there is one.
pub(super) fn interface(mac: MacAddr) -> String {
    until("the NIC is there", || {
        let entries = fs::read_dir("/sys/class/net").map_err(|error| error.to_string())?;
        for entry in entries.flatten() {
            let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
            if address.trim() == mac.to_string() {
                return Ok(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Err(format!("{mac}"))
    })
}

/// Where sysfs has the PCI function of an interface.
pub(super) fn function(interface: &str) -> std::path::PathBuf {
    Path::new("/sys/class/net").join(interface).join("device")
}

/// Runs `rdma` in the calling thread's namespace.
///
/// # Errors
///
/// What it says.
pub(super) fn rdma(words: &[&str]) -> Result<(), String> {
    let output = Command::new("rdma").args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}
