//! Programs of others come and go, and are seen soon.

use std::os::fd::AsFd as _;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use common::names;
use driver::inventory::Inventory;
use driver::sys::bpf::{self, Place};
use driver::sys::netlink::{Netlink, Side};
use nix::mount::{MntFlags, umount2};
use tokio_util::sync::CancellationToken;

use super::index;
use crate::bench::{in_own_namespaces, run, until, veth_pair};
use crate::datapath::{has_tcx, spec, strangers, tc};

/// What the inventory says of `nic0`: whether there is XDP, and how many programs.
fn seen(inventory: &Inventory) -> (bool, usize) {
    let devices = inventory.devices();
    let nic0 = devices.iter().find(|device| device.called() == "nic0").unwrap();
    (nic0.ebpf.xdp_in_use, nic0.ebpf.programs.len())
}

fn watching(test: impl FnOnce(&Inventory, &mut Ebpf) + Send) {
    in_own_namespaces(|sysfs: &Path| {
        veth_pair(&Netlink::open().unwrap(), "nic0", "wire0");
        let shutdown = CancellationToken::new();
        let inventory = Inventory::start(sysfs.to_owned(), shutdown.clone()).unwrap();
        let _stop = shutdown.drop_guard();
        assert_eq!(seen(&inventory), (false, 0));
        test(&inventory, &mut strangers(&spec(tc(), None)));
    });
}

#[test]
fn xdp_by_a_link_is_seen_when_it_comes_and_when_it_goes() {
    watching(|inventory, ebpf| {
        let xdp: &mut Xdp = ebpf.program_mut(names::XDP).unwrap().try_into().unwrap();
        let link = xdp.attach("nic0", XdpMode::Skb).unwrap();
        until("XDP", || seen(inventory) == (true, 1));
        xdp.detach(link).unwrap();
        until("its end", || seen(inventory) == (false, 0));
    });
}

#[test]
fn xdp_by_netlink_is_seen_when_it_comes_and_when_it_goes() {
    watching(|inventory, ebpf| {
        let directory = tempfile::tempdir().unwrap();
        bpf::mount_bpffs(directory.path()).unwrap();
        let pin = directory.path().join("xdp");
        let xdp: &mut Xdp = ebpf.program_mut(names::XDP).unwrap().try_into().unwrap();
        xdp.pin(&pin).unwrap();
        run("ip", &["link", "set", "dev", "nic0", "xdpgeneric", "pinned", pin.to_str().unwrap()]);
        until("XDP", || seen(inventory) == (true, 1));
        run("ip", &["link", "set", "dev", "nic0", "xdpgeneric", "off"]);
        until("its end", || seen(inventory) == (false, 0));
        umount2(directory.path(), MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn tcx_by_a_link_is_seen_when_it_comes_and_when_it_goes() {
    if !has_tcx() {
        return assert!(super::kernel() < (6, 6));
    }
    watching(|inventory, ebpf| {
        let tc: &mut SchedClassifier =
            ebpf.program_mut(names::INGRESS).unwrap().try_into().unwrap();
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = tc.attach_with_options("nic0", TcAttachType::Ingress, options).unwrap();
        until("TCX", || seen(inventory) == (false, 1));
        tc.detach(link).unwrap();
        until("its end", || seen(inventory) == (false, 0));
    });
}

/// The kernel tells of filters, but their programs are loaded just before and listed once a second.
#[test]
fn a_filter_is_seen_when_it_comes_and_when_it_goes() {
    watching(|inventory, ebpf| {
        let netlink = Netlink::open().unwrap();
        let nic0 = index(&netlink, "nic0");
        let filters = || {
            let devices = inventory.devices();
            devices.iter().find(|it| it.called() == "nic0").unwrap().ebpf.tc_filters.clone()
        };
        let tc: &SchedClassifier = ebpf.program(names::INGRESS).unwrap().try_into().unwrap();
        let program = tc.fd().unwrap();
        netlink.add_clsact(nic0).unwrap();
        netlink.put_filter(nic0, Side::Ingress, "stranger", program.as_fd()).unwrap();
        until("the filter", || filters() == ["stranger"]);
        netlink.remove_filter(nic0, Side::Ingress).unwrap();
        until("its end", || filters().is_empty());

        netlink.put_filter(nic0, Side::Egress, "other", program.as_fd()).unwrap();
        until("another one", || filters() == ["other"]);
        // With what it is attached to it goes without a word of its own.
        run("tc", &["qdisc", "del", "dev", "nic0", "clsact"]);
        until("the end of all", || filters().is_empty());
    });
}

/// Neither a link nor the kernel tells of this one: only whoever asks the interface knows.
#[test]
fn tcx_without_a_link_is_seen_when_it_comes_and_when_it_goes() {
    if !has_tcx() {
        return assert!(super::kernel() < (6, 6));
    }
    watching(|inventory, ebpf| {
        let nic0 = index(&Netlink::open().unwrap(), "nic0");
        let tc: &SchedClassifier = ebpf.program(names::INGRESS).unwrap().try_into().unwrap();
        let id = tc.info().unwrap().id();
        bpf::attach_program(nic0, Place::TcxEgress, id).unwrap();
        until("TCX", || seen(inventory) == (false, 1));
        bpf::detach_program(nic0, Place::TcxEgress, id).unwrap();
        until("its end", || seen(inventory) == (false, 0));
    });
}
