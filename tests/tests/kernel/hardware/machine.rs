//! A node that has what the machine has, and what tests ask of it.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::thread;
use std::time::Duration;

use driver::model::MacAddr;
use driver::sys::netns::Netns;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use nix::sched::{self, CloneFlags};
use tests::node::{DRIVER, Node};
use tests::runtime::Options;
use tests::sandbox::furnish;

use crate::driver::world::{introduce, told, until};

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
    let machine = told("WEIR_MACHINE");
    let netns = Netns::open(&machine).unwrap();
    let outcome = netns.run(|_| {
        thread::scope(|scope| {
            let tester = scope.spawn(|| on_a_node(test));
            tester.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
        });
    });
    outcome.unwrap();
}

fn on_a_node(test: impl FnOnce(&mut Node)) {
    sched::unshare(CloneFlags::CLONE_NEWNS).expect("a guest is root");
    furnish().unwrap();
    let options = Options { request_timeout: REQUEST_TIMEOUT, ..Options::default() };
    let mut node = Node::new(&told("WEIR_BINARY"), 0, options).unwrap();
    node.driver.add("--attach-budget-ms");
    node.driver.add(BUDGET_MS);
    introduce(&node);
    node.start_driver().unwrap();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| test(&mut node)));
    assert!(outcome.is_ok(), "the driver said last:\n{}", node.driver.log_tail());
}

/// What is published of the node's devices.
pub(super) fn published(node: &Node) -> Vec<Device> {
    let slices = node.server.objects::<ResourceSlice>();
    let ours = slices.into_iter().filter(|slice| slice.spec.driver == DRIVER);
    ours.flat_map(|slice| slice.spec.devices.unwrap_or_default()).collect()
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

/// A file of sysfs about an interface.
pub(super) fn sysfs(interface: &str, file: &str) -> String {
    let path = Path::new("/sys/class/net").join(interface).join(file);
    fs::read_to_string(&path).unwrap().trim().to_owned()
}
