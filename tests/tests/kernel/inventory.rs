//! The inventory, against real interfaces in a namespace of the test's own.

mod changes;
mod programs;

use std::path::Path;
use std::time::{Duration, Instant};

use driver::inventory::{Inventory, Scan, Scanner};
use driver::model::{By, IfIndex, IfName, Route, XdpFeatures, XskFeatures};
use driver::sys::netdev::Netdev;
use driver::sys::netlink::Netlink;
use driver::sys::sysfs::Sysfs;
use driver::sys::xdp;
use nix::sys::utsname::uname;
use tokio_util::sync::CancellationToken;

use crate::bench::{in_own_namespaces, run, until, veth_pair};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn index(netlink: &Netlink, of: &str) -> IfIndex {
    netlink.link(&By::Name(name(of))).unwrap().expect(of).index
}

/// Leads the way out through `interface`.
fn default_route(netlink: &Netlink, interface: &str) {
    let index = index(netlink, interface);
    netlink.add_address(index, "10.0.0.1/24".parse().unwrap()).unwrap();
    let gateway = Some("10.0.0.254".parse().unwrap());
    let destination = "0.0.0.0/0".parse().unwrap();
    netlink.add_route(index, &Route { gateway, ..Route::to(destination) }).unwrap();
}

fn scan(sysfs: &Path) -> Scan {
    Scanner::new(Sysfs::new(sysfs).unwrap()).unwrap().scan().unwrap()
}

fn device_names(scan: &Scan) -> Vec<&str> {
    scan.devices.iter().map(|device| device.name.as_str()).collect()
}

fn left_out(scan: &Scan) -> Vec<(&str, &str)> {
    scan.left_out.iter().map(|left| (left.called.as_str(), left.reason)).collect()
}

/// Major and minor number of the running kernel.
fn kernel() -> (u32, u32) {
    let release = uname().unwrap().release().to_str().unwrap().to_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn a_scan_finds_veths_but_neither_the_loopback_nor_the_way_out() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        veth_pair(&netlink, "nic0", "Wire_0");
        veth_pair(&netlink, "eth0", "uplink");
        default_route(&netlink, "eth0");
        let nic0 = index(&netlink, "nic0");
        netlink.add_address(nic0, "192.0.2.1/24".parse().unwrap()).unwrap();

        let scan = scan(sysfs);
        // Base32 of `Wire_0`, which is no DNS label.
        assert_eq!(device_names(&scan), ["net-k5uxezk7ga", "nic0", "uplink"]);
        assert_eq!(left_out(&scan), [("lo", "loopback"), ("eth0", "default route")]);

        let device = &scan.devices[1];
        let facts = netlink.link(&By::Index(nic0)).unwrap().unwrap();
        assert_eq!(
            (device.index, device.interface.as_ref(), device.mac),
            (Some(nic0), Some(&facts.name), facts.mac)
        );
        assert_eq!((device.mtu, device.state.as_str()), (1500, "up"));
        assert_eq!((device.kind.as_str(), device.encapsulation.as_str()), ("veth", "ether"));
        assert!(device.is_virtual && device.pci.is_none() && device.sriov.is_none());
        assert_eq!(device.addresses, ["192.0.2.1/24".parse().unwrap()]);
        assert_eq!(device.ebpf.tcx, kernel() >= (6, 6));
        assert!(!device.ebpf.xdp_in_use && device.ebpf.programs.is_empty());
    });
}

#[test]
fn the_members_of_a_bridge_that_leads_out_are_left_out() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        veth_pair(&netlink, "nic0", "wire0");
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        run("ip", &["link", "set", "nic0", "master", "br0"]);
        run("ip", &["link", "add", "link", "br0", "name", "top0", "type", "macvlan"]);
        for interface in ["br0", "top0"] {
            netlink.set_up(index(&netlink, interface)).unwrap();
        }
        default_route(&netlink, "top0");

        let scan = scan(sysfs);
        assert_eq!(device_names(&scan), ["wire0"]);
        let below = "below the default route";
        let mut left = left_out(&scan);
        left.sort_unstable();
        let expected =
            [("br0", below), ("lo", "loopback"), ("nic0", below), ("top0", "default route")];
        assert_eq!(left, expected);
    });
}

/// The oracle is libbpf, so this needs the driver's feature of that name (`cargo xtask` selects it).
#[test]
fn libbpf_agrees_with_our_listing_of_what_xdp_can_do() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        veth_pair(&netlink, "nic0", "wire0");
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        let netdev = Netdev::open().unwrap();
        assert_eq!(netdev.is_some(), kernel() >= (6, 3));
        let listed = netdev.as_ref().map(|netdev| netdev.devices().unwrap());
        for link in netlink.links().unwrap() {
            let ours = listed.as_ref().map(|listed| listed[&link.index]);
            let theirs = xdp::features_by_libbpf(link.index).unwrap();
            assert_eq!(ours.map(|facts| facts.xdp), theirs.map(|(xdp, _)| xdp), "{}", link.name);
            let segments = ours.map(|facts| facts.zero_copy_segments.unwrap_or_default());
            assert_eq!(segments, theirs.map(|(_, segments)| segments), "{}", link.name);
            let alone = netdev.as_ref().map(|netdev| netdev.device(link.index).unwrap().unwrap());
            assert_eq!(alone, ours, "asked for by itself");
        }

        let scan = scan(sysfs);
        let nic0 = scan.devices.iter().find(|device| device.called() == "nic0").unwrap();
        let basic_redirect_and_frags = listed.is_some().then_some(XdpFeatures(1 | 2 | 32));
        assert_eq!(nic0.ebpf.xdp, basic_redirect_and_frags);
        // What the veth driver has had since 6.7 (`veth_xdp_metadata_ops` in `drivers/net/veth.c`).
        if kernel() >= (6, 8) {
            let metadata = nic0.ebpf.rx_metadata.unwrap();
            assert!(metadata.has_hash() && metadata.has_timestamp() && metadata.has_vlan_tag());
            assert_eq!(nic0.ebpf.xsk, Some(XskFeatures(0)));
        }
        if let Some(netdev) = netdev {
            assert_eq!(netdev.device(IfIndex(9999)).unwrap(), None);
        }
    });
}

#[test]
fn a_program_query_on_an_interface_that_is_gone_says_so() {
    in_own_namespaces(|_| {
        let error = xdp::tcx_programs(IfIndex(9999)).unwrap_err();
        assert!(error.is_absent(), "{error:?}");
    });
}

#[test]
fn speed_of_every_kind() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        netlink.add_veth(&name("nic0"), &name("wire0")).unwrap();
        let sysfs = Sysfs::new(sysfs).unwrap();
        let speed = |of: &str| sysfs.look().speed_mbps(&name(of)).unwrap();
        assert_eq!(speed("lo"), None);
        assert_eq!(speed("nic0"), None, "down");
        netlink.set_up(index(&netlink, "nic0")).unwrap();
        assert_eq!(speed("nic0"), Some(10_000), "up, without a carrier");
    });
}

#[test]
fn an_interface_that_sysfs_does_not_show_is_left_out() {
    in_own_namespaces(|_| {
        veth_pair(&Netlink::open().unwrap(), "hidden0", "hidden1");
        // This one shows the namespace of the process.
        let scan = scan("/sys".as_ref());
        let left = left_out(&scan);
        assert!(left.contains(&("hidden0", "not in sysfs")), "{left:?}");
        assert_eq!(scan.devices, []);
    });
}

#[test]
fn a_change_is_seen_within_two_seconds_and_nothing_is_after_shutdown() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        let shutdown = CancellationToken::new();
        let inventory = Inventory::start(sysfs.to_owned(), shutdown.clone()).unwrap();
        assert_eq!(inventory.devices().len(), 0);

        veth_pair(&netlink, "nic0", "wire0");
        until("two devices", || inventory.devices().len() == 2);
        default_route(&netlink, "wire0");
        until("one device, the other leads out", || inventory.devices().len() == 1);
        netlink.delete(index(&netlink, "nic0")).unwrap();
        until("no devices", || inventory.devices().is_empty());

        let watch = inventory.watch();
        shutdown.cancel();
        until("the end of the thread", || watch.has_changed().is_err());
    });
}

#[test]
fn a_wish_is_granted_before_the_second_is_over() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        let shutdown = CancellationToken::new();
        let inventory = Inventory::start(sysfs.to_owned(), shutdown.clone()).unwrap();
        let _stop = shutdown.drop_guard();
        // Each look is followed by a second's rest. Of some wishes one is granted sooner, however
        // busy the machine is.
        let took = |n: usize| {
            netlink.add_veth(&name(&format!("nic{n}")), &name(&format!("wire{n}"))).unwrap();
            let asked = Instant::now();
            inventory.rescan();
            until("two devices more", || inventory.devices().len() == 2 * (n + 1));
            asked.elapsed()
        };
        assert!((0..10).map(took).any(|took| took < Duration::from_millis(900)));
    });
}
