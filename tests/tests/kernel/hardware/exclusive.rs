//! RDMA devices that are seen in one network namespace only (`rdma system set netns exclusive`).

use std::fs;
use std::path::Path;
use std::process::Command;

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
    let holders = Path::new("/sys/module").join(module).join("holders");
    for holder in fs::read_dir(holders).into_iter().flatten().flatten() {
        unload(&holder.file_name().to_string_lossy());
    }
    if Path::new("/sys/module").join(module).exists() {
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

/// Puts the machine back into the mode that it is in when it starts.
struct Exclusive;

impl Drop for Exclusive {
    fn drop(&mut self) {
        reload("netns_mode=1");
    }
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_nic_whose_rdma_device_cannot_follow_it_is_not_handed_over() {
    on_the_machine(|node| {
        // The box has namespaces, and so has every node with pods.
        let refused = rdma(&["system", "set", "netns", "exclusive"]).unwrap_err();
        assert!(refused.contains("busy"), "{refused}");

        reload("netns_mode=0");
        let exclusive = Exclusive;
        let nic = interface(IGB0);
        rdma(&["link", "add", "rxe0", "type", "rxe", "netdev", &nic]).unwrap();
        node.driver.stop().unwrap();
        node.start_driver().unwrap();
        awaited(node, "the RDMA device is published", |device| {
            is_called(device, &nic) && attribute(device, "rdmaDevice").is_some()
        });
        let before = Snapshot::take();
        let wish = Wish::of(&nic, config("net0", "10.9.0.1/24", "auto"));
        let web = deploy_claim(node, "web", &claim(&[wish]));
        node.prepare(&web.claims()).unwrap();
        let refused = format!("{:#}", node.run_sandbox(&web.pod).unwrap_err());
        assert!(refused.contains("rxe0"), "{refused}");
        before.is_as_now();
        node.unprepare(&web.claims()).unwrap();
        let uid = web.pod.metadata.uid.as_deref().unwrap();
        driver::sys::netns::Netns::remove(
            &std::path::Path::new(tests::sandbox::NETNS_DIRECTORY).join(uid),
        )
        .unwrap();
        nothing_is_left();
        // Where its NIC has been elsewhere, it is gone already.
        let _ = rdma(&["link", "delete", "rxe0"]);
        drop(exclusive);
    });
}
