//! Programs that run in the drivers of NICs: claims get them where the kernel tells that it can be (6.3).

use super::machine::{
    IGB0, Running, VIRTIO, Wish, awaited, config, interface, is_called, on_the_machine,
};
use crate::driver::snapshot::Snapshot;
use crate::driver::world::{nothing_is_left, until};

/// What `ip` calls a program in the driver (`XDP_ATTACHED_DRV` of `linux/if_link.h`).
const IN_DRIVER: u64 = 1;

#[test]
#[ignore = "needs hardware: vm ring"]
fn an_igb_and_a_virtio_nic_count_by_xdp_in_their_drivers() {
    on_the_machine(|node| {
        let before = Snapshot::take();
        let pods = [(IGB0, "igb", 1), (VIRTIO, "virtio", 2)].map(|(mac, name, host)| {
            let nic = interface(mac);
            let device = awaited(node, "the NIC is published", |device| is_called(device, &nic));
            let parameters = config("net0", &format!("10.9.0.{host}/24"), "xdp");
            let pod = Running::start(node, name, &[Wish::of(&nic, parameters)]);
            let link = pod.link("net0");
            assert_eq!(link["address"], mac.to_string());
            assert_eq!(link["xdp"]["mode"], IN_DRIVER, "{link:#}");
            assert_eq!(pod.deployed.device(0), device.name);
            pod
        });
        pods[0].talks_to(&pods[1], [10, 9, 0, 2]);
        for pod in &pods {
            let counted =
                tests::node::Counted::of(&tests::node::scrape().unwrap(), pod.deployed.device(0));
            assert!(counted.received >= 51 && counted.sent >= 51, "{counted:?}");
            until("the pins tell as much", || {
                let pinned = pod.deployed.pinned_count(0);
                if pinned >= counted.received { Ok(()) } else { Err(pinned.to_string()) }
            });
        }
        for pod in pods {
            pod.end(node);
        }
        before.is_as_now();
        nothing_is_left();
    });
}
