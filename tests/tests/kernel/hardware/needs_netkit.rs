//! Pairs of netkit, which came with Linux 6.7.

use std::process::Command;

use super::machine::{Running, Wish, awaited, config, is_called, on_the_machine};
use crate::driver::configured::lines;
use crate::driver::snapshot::Snapshot;
use crate::driver::world::{nothing_is_left, told};

/// Runs the `ip` of the guest's tools: that of the machine may be older than netkit.
fn newer_ip(words: &str) {
    let tools = told("WEIR_TOOLS");
    let libraries = tools.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg(tools.join("usr/bin/ip"));
    let status = command.args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}: {status}");
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn an_end_of_a_netkit_pair_is_a_device_like_others() {
    on_the_machine(|node| {
        // Without names for both, the kernel makes one up that may be the other's.
        newer_ip("link add kit0 type netkit mode l2 peer name kit1");
        lines(&["link set kit0 up", "link set kit1 up"]);
        awaited(node, "the pair is published", |device| is_called(device, "kit1"));
        let before = Snapshot::take();
        let parameters = config("net0", "10.9.0.2/24", "auto");
        let pod = Running::start(node, "web", &[Wish::of("kit1", parameters)]);
        assert_eq!(pod.link("net0")["linkinfo"]["info_kind"], "netkit");
        pod.end(node);
        before.is_as_now();
        lines(&["link del kit0"]);
        nothing_is_left();
    });
}
