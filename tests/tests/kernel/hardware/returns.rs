//! Hardware outlives the namespace that it was in, and is found again.

use std::fs;

use driver::model::MacAddr;
use serde_json::Value;
use tests::node::{Node, PATIENCE};

use super::machine::{IGB0, Running, VIRTIO, Wish, config, interface, on_the_machine};
use crate::config::ip;
use crate::driver::configured::lines;
use crate::driver::snapshot::Snapshot;
use crate::driver::world::{nothing_is_left, until};

/// The interface that is in the place of a NIC on the PCI bus.
fn in_its_place(path: &str) -> Option<String> {
    let nics = fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut names = nics.filter_map(|entry| {
        let device = fs::canonicalize(entry.path().join("device")).ok()?;
        (device.to_str()? == path).then(|| entry.file_name().to_string_lossy().into_owned())
    });
    names.next()
}

/// Has the NIC's pod end while no driver runs, and answers what the kernel calls the NIC then.
fn dies_unseen(node: &mut Node, mac: MacAddr, name: &str) -> String {
    let nic = interface(mac);
    let path = fs::canonicalize(format!("/sys/class/net/{nic}/device")).unwrap();
    let path = path.to_str().unwrap();
    let parameters = config(name, "10.9.0.1/24", "auto");
    let pod = Running::start(node, &format!("{nic}-in-a-pod"), &[Wish::of(&nic, parameters)]);
    assert_eq!(in_its_place(path), None);

    node.driver.kill().unwrap();
    assert!(node.runtime.wait_for_no_plugin(PATIENCE));
    let Running { deployed, netns } = pod;
    drop(netns);
    node.stop_sandbox(&deployed.pod).unwrap();
    let fallen = until("the NIC falls back", || {
        in_its_place(path).ok_or_else(|| "it is nowhere".to_owned())
    });
    node.start_driver().unwrap();
    node.unprepare(&deployed.claims()).unwrap();
    fallen
}

fn link(mac: MacAddr) -> Value {
    ip(&["link", "show", "dev", &interface(mac)])[0].take()
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_nic_whose_namespace_died_while_no_driver_ran_is_found_by_its_place_and_put_back() {
    on_the_machine(|node| {
        for mac in [IGB0, VIRTIO] {
            let nic = interface(mac);
            lines(&[
                &format!("link set {nic} mtu 1400 up"),
                &format!("addr add 10.8.0.1/24 broadcast + dev {nic}"),
            ]);
            let before = Snapshot::take();
            // The kernel lets it have the name that it had in the pod.
            assert_eq!(dies_unseen(node, mac, "net0"), "net0");
            before.is_as_now();
        }
        nothing_is_left();
    });
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_nic_that_came_back_under_another_name_gets_its_own_again() {
    on_the_machine(|node| {
        // `default_device_exit_net()` in `net/core/dev.c`, Linux 6.12: where its name is taken, it is
        // called `dev` and a number.
        lines(&["link add net0 type dummy"]);
        let before = Snapshot::take();
        for mac in [IGB0, VIRTIO] {
            let (nic, driver) = (interface(mac), link(mac)["parentdev"].take());
            let fallen = dies_unseen(node, mac, "net0");
            assert!(fallen.starts_with("dev"), "it is called {fallen}");
            assert_eq!((interface(mac), link(mac)["parentdev"].take()), (nic, driver));
        }
        before.is_as_now();
        lines(&["link del net0"]);
        nothing_is_left();
    });
}
