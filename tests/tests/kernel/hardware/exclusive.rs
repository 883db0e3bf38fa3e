//! RDMA devices that are seen in one network namespace only (`rdma system set netns exclusive`).

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;

use driver::sys::netns::Netns;
use tests::node::{Node, sandbox};

use super::machine::{
    IGB0, Wish, attribute, awaited, claim, config, interface, is_called, on_the_machine, rdma,
};
use crate::driver::snapshot::Snapshot;
use crate::driver::world::{deploy_claim, nothing_is_left, told};

fn busybox(words: &[&str]) {
    let status = Command::new(told("WEIR_TOOLS").join("usr/bin/busybox")).args(words).status();
    assert!(status.unwrap().success(), "busybox {words:?}");
}

/// Unloads a module after those that stand on it.
fn unload(module: &str) {
    let folder = Path::new("/sys/module").join(module);
    for holder in fs::read_dir(folder.join("holders")).into_iter().flatten().flatten() {
        unload(&holder.file_name().to_string_lossy());
    }
    if folder.exists() {
        busybox(&["rmmod", module]);
    }
}

/// Loads the modules of RDMA anew. Other than by `rdma`, the mode can be chosen then whatever namespaces
/// there are (`netns_mode` of `ib_core`).
fn reload(mode: &str) {
    unload("ib_core");
    busybox(&["modprobe", "ib_core", mode]);
    busybox(&["modprobe", "-a", "rdma_rxe", "ib_uverbs", "ib_umad", "rdma_ucm"]);
}

/// A claim for the NIC with its RDMA device, which has to move with it and cannot.
fn is_refused(node: &mut Node) {
    let nic = interface(IGB0);
    rdma(&["link", "add", "rxe0", "type", "rxe", "netdev", &nic]).unwrap();
    node.start_driver().unwrap();
    awaited(node, "the RDMA device is published", |device| {
        is_called(device, &nic) && attribute(device, "rdmaDevice").is_some()
    });
    let before = Snapshot::take();
    let wish = Wish::of(&nic, config("net0", "10.9.0.1/24", "auto"));
    let web = deploy_claim(node, "web", &claim(&[wish]));
    node.prepare(&web.claims()).unwrap();
    let refused = format!("{:#}", node.run_sandbox(&web.pod).map(drop).unwrap_err());
    assert!(refused.contains("rxe0"), "{refused}");
    node.unprepare(&web.claims()).unwrap();
    before.is_as_now();
    // The sandbox is not there, but its namespace is, as the runtime has made it.
    Netns::remove(&sandbox(&web.pod).netns.unwrap()).unwrap();
    nothing_is_left();
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_nic_whose_rdma_device_cannot_follow_it_is_not_handed_over() {
    on_the_machine(|node| {
        // The box has namespaces, and so has every node with pods.
        let refused = rdma(&["system", "set", "netns", "exclusive"]).unwrap_err();
        assert!(refused.contains("busy"), "{refused}");
        // Whoever has a socket of RDMA's netlink holds the modules.
        node.driver.stop().unwrap();
        reload("netns_mode=0");
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| is_refused(node)));
        node.driver.kill().unwrap();
        reload("netns_mode=1");
        outcome.unwrap_or_else(|panic| panic::resume_unwind(panic));
    });
}
