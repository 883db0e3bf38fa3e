//! What a device is beside its interface: virtual functions, RDMA devices, and devices without any.

use super::*;
use crate::model::{
    Device, PciAddress, PciFacts, VFIO_DRIVER, VfSettings, VfVlan, VirtualFunction,
};
use crate::testing::{FakeRdma, FakeVf};

/// The index of the physical function's interface.
const PF: IfIndex = IfIndex(9);

/// What a physical function tells of a virtual one that nobody has set up.
pub(super) fn fresh_vf() -> VfSettings {
    VfSettings {
        mac: Some(MacAddr::default()),
        vlan: Some(VfVlan::default()),
        trust: Some(false),
        spoof_check: Some(true),
        min_tx_rate_mbps: Some(0),
        max_tx_rate_mbps: Some(0),
        link_state: None,
    }
}

pub(super) fn pci(function: u8) -> PciAddress {
    format!("0000:3b:00.{function}").parse().unwrap()
}

/// Adds a physical function, of which eth1 and eth2 are the virtual ones, and an RDMA device to each.
pub(super) fn add_functions(bench: &Bench, is_exclusive: bool) {
    let mut world = bench.node.world();
    let world = &mut *world;
    let host = world.interfaces.get_mut(&None).unwrap();
    let mut pf = host[&"eth1".parse().unwrap()].clone();
    (pf.identity, pf.index, pf.mac) = (PF.0, PF, MacAddr([2, 0, 0, 0, 0, 9]));
    (pf.addresses, pf.routes, pf.neighbors) = Default::default();
    host.insert("pf0".parse().unwrap(), pf);
    for (number, identity) in [(0, 1), (1, 2)] {
        world.vfs.insert((PF, number), FakeVf { identity, settings: fresh_vf() });
        let rdma = FakeRdma { index: identity, netns: None };
        world.rdma.insert(format!("mlx5_{number}"), rdma);
    }
    world.places.insert(PF.0, pci(0));
    world.is_rdma_exclusive = is_exclusive;
}

/// Makes of a device, the first or the second, a virtual function.
pub(super) fn make_vf(device: &mut Device, number: u32) {
    device.is_sriov_vf = true;
    let pf_interface = Some("pf0".parse().unwrap());
    device.vf = Some(VirtualFunction { pf: pci(0), pf_interface, index: number });
}

pub(super) fn make_rdma(device: &mut Device, number: u32) {
    device.rdma_device = Some(format!("mlx5_{number}"));
    device.rdma_nodes = vec![format!("/dev/infiniband/uverbs{number}").into()];
}

pub(super) fn make_rdma_only(device: &mut Device, number: u32) {
    make_rdma(device, number);
    (device.interface, device.index, device.mac) = (None, None, None);
}

pub(super) fn make_vfio(device: &mut Device, number: u32) {
    (device.interface, device.index, device.mac) = (None, None, None);
    device.driver = Some(VFIO_DRIVER.to_owned());
    device.iommu_group = Some(40 + number);
}

/// One device for `claim-NAME` and `pod-NAME`.
pub(super) fn one(
    name: &str,
    device: &str,
    change: impl FnOnce(&mut Device),
    wishes: Wishes,
) -> PrepareClaim {
    let mut wanted = wanted(claim(&format!("claim-{name}")));
    wanted.pod = pod(&format!("pod-{name}"));
    wanted.devices.retain(|wanted| wanted.name.as_str() == device);
    change(wanted.devices[0].found.as_mut().unwrap());
    wanted.devices[0].wishes = wishes;
    wanted
}

fn vf_wishes() -> Wishes {
    let mut wishes = wishes();
    wishes.sriov.vlan = Some(VfVlan { id: 100, ..VfVlan::default() });
    wishes.sriov.max_tx_rate_mbps = Some(200);
    wishes
}

fn told(bench: &Bench) -> VfSettings {
    bench.node.world().vfs[&(PF, 0)].settings.clone()
}

fn with_functions(is_exclusive: bool) -> Bench {
    let bench = Bench::new();
    add_functions(&bench, is_exclusive);
    bench
}

#[test]
fn a_virtual_function_is_set_up_on_its_physical_one_and_put_back() {
    let bench = with_functions(false);
    bench.node.world().vfs.get_mut(&(PF, 0)).unwrap().settings.max_tx_rate_mbps = Some(50);
    let fresh = bench.node.snapshot();
    bench.run(None, |engine| {
        let wanted = one("a", "eth1", |device| make_vf(device, 0), vf_wishes());
        engine.prepare(&wanted).unwrap();
        let mac = vf_wishes().interface.mac;
        let set = VfSettings {
            mac,
            vlan: vf_wishes().sriov.vlan,
            max_tx_rate_mbps: Some(200),
            ..fresh_vf()
        };
        assert_eq!(told(&bench), set);
        attach(engine).unwrap();
        engine.detach(&pod_a());
        assert_eq!(told(&bench), set, "from prepare to unprepare");
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert_eq!(bench.node.snapshot(), fresh);
}

#[test]
fn a_trusted_function_chooses_its_address_itself() {
    let bench = with_functions(false);
    bench.run(None, |engine| {
        let mut wishes = vf_wishes();
        wishes.sriov.trust = Some(true);
        engine.prepare(&one("a", "eth1", |device| make_vf(device, 0), wishes)).unwrap();
        assert_eq!(told(&bench).mac, Some(MacAddr::default()));
        attach(engine).unwrap();
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert_eq!(told(&bench), fresh_vf());
}

/// The claim ends while the function is in a namespace that is not all gone: neither here nor there.
#[test]
fn what_a_physical_function_was_told_is_put_back_wherever_the_virtual_one_is() {
    let bench = with_functions(false);
    bench.run(None, |engine| {
        engine.prepare(&one("a", "eth1", |device| make_vf(device, 0), vf_wishes())).unwrap();
        attach(engine).unwrap();
        bench.node.world().interfaces.remove(&Some(netns(100).id));
        engine.detach(&pod_a());
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert_eq!(told(&bench), fresh_vf());
    assert!(bench.records().is_empty());
}

#[test]
fn what_is_no_virtual_function_or_cannot_be_told_is_refused() {
    let bench = with_functions(false);
    let refused = |engine: &mut Engine<FakeNode>, wanted: &PrepareClaim| {
        let error = engine.prepare(wanted).unwrap_err();
        assert!(matches!(error, AttachError::Impossible { .. }), "{error}");
        error.to_string()
    };
    bench.run(None, |engine| {
        let plain = one("a", "eth1", |_| {}, vf_wishes());
        let said = "device eth1: sriov: eth1 is no virtual function of SR-IOV";
        assert_eq!(refused(engine, &plain), said);

        let mut wishes = vf_wishes();
        wishes.sriov.link_state = Some(crate::model::VfLinkState::Enable);
        let unknown = one("a", "eth1", |device| make_vf(device, 0), wishes);
        let said = "device eth1: sriov.linkState: the driver of pf0 does not have it";
        assert_eq!(refused(engine, &unknown), said);

        let away = |device: &mut Device| {
            make_vf(device, 0);
            device.vf.as_mut().unwrap().pf_interface = None;
        };
        let error = refused(engine, &one("a", "eth1", away, vf_wishes()));
        assert!(error.contains("0000:3b:00.0 has no interface on the host"), "{error}");

        let is_pf = |device: &mut Device| {
            let root = "pci0000:3a".to_owned();
            device.pci = Some(PciFacts {
                address: pci(0),
                root,
                vendor: None,
                device: None,
                subsystem: None,
            });
        };
        engine.prepare(&one("b", "eth2", is_pf, Wishes::default())).unwrap();
        let vf = one("a", "eth1", |device| make_vf(device, 0), vf_wishes());
        let error = refused(engine, &vf);
        assert!(error.contains("eth2 is for pod default/pod-b itself"), "{error}");
    });
    assert_eq!(told(&bench), fresh_vf());
}

fn at_pci(device: &mut Device, function: u8) {
    let (address, root) = (pci(function), "pci0000:3a".to_owned());
    device.pci = Some(PciFacts { address, root, vendor: None, device: None, subsystem: None });
}

#[test]
fn a_function_with_settings_of_an_earlier_claim_is_for_nobody() {
    let bench = with_functions(false);
    let vf = |device: &mut Device| {
        make_vf(device, 0);
        at_pci(device, 1);
    };
    let again = one("b", "eth1", vf, Wishes::default());
    // The same function, renamed meanwhile.
    let renamed = |device: &mut Device| {
        vf(device);
        device.name = "eth7".parse().unwrap();
    };
    let mut renamed = one("b", "eth1", renamed, Wishes::default());
    renamed.devices[0].name = "eth7".parse().unwrap();
    let is_owed = |engine: &mut Engine<FakeNode>, wanted: &PrepareClaim| {
        let error = engine.prepare(wanted).unwrap_err();
        assert!(matches!(error, AttachError::Owed { .. }), "{error}");
    };
    bench.run(None, |engine| {
        engine.prepare(&one("a", "eth1", vf, vf_wishes())).unwrap();
        bench.node.world().are_pfs_deaf = true;
        engine.unprepare(&claim("claim-a").uid).unwrap();
        is_owed(engine, &again);
        is_owed(engine, &renamed);
    });
    bench.run(None, |engine| {
        engine.settle();
        is_owed(engine, &again);
        bench.node.world().are_pfs_deaf = false;
        engine.prepare(&again).unwrap();
        assert_eq!(told(&bench), fresh_vf());
        engine.unprepare(&claim("claim-b").uid).unwrap();
    });
    assert!(bench.records().is_empty());
}

#[test]
fn what_is_owed_to_a_function_that_is_gone_is_forgotten() {
    let bench = with_functions(false);
    bench.run(None, |engine| {
        engine.prepare(&one("a", "eth1", |device| make_vf(device, 0), vf_wishes())).unwrap();
        bench.node.world().are_pfs_deaf = true;
        engine.unprepare(&claim("claim-a").uid).unwrap();
        assert_eq!(bench.phases(), ["unpreparing"]);
        bench.node.world().vfs.clear();
        engine.settle();
    });
    assert!(bench.records().is_empty());
}

#[test]
fn a_physical_function_stays_while_one_of_its_virtual_ones_is_set_up() {
    let bench = with_functions(false);
    let whole = || {
        let name = |device: &mut Device| {
            device.interface = Some("pf0".parse().unwrap());
            at_pci(device, 0);
        };
        one("b", "eth2", name, Wishes::default())
    };
    bench.run(None, |engine| {
        engine.prepare(&one("a", "eth1", |device| make_vf(device, 0), vf_wishes())).unwrap();
        let error = engine.prepare(&whole()).unwrap_err().to_string();
        assert!(
            error.contains("eth1 is set up by way of it, for claim default/claim-a"),
            "{error}"
        );
        engine.unprepare(&claim("claim-a").uid).unwrap();
        engine.prepare(&whole()).unwrap();
    });
}

#[test]
fn another_interface_of_its_name_is_not_taken_for_the_physical_function() {
    let bench = with_functions(false);
    bench.node.world().places.insert(PF.0, pci(7));
    bench.run(None, |engine| {
        let wanted = one("a", "eth1", |device| make_vf(device, 0), vf_wishes());
        let error = engine.prepare(&wanted).unwrap_err().to_string();
        assert!(error.contains("pf0 is not its physical function 0000:3b:00.0"), "{error}");
    });
    assert_eq!(told(&bench), fresh_vf());
}

fn rdma_place(bench: &Bench) -> Option<crate::model::NetnsId> {
    bench.node.world().rdma["mlx5_0"].netns
}

#[test]
fn an_rdma_device_goes_with_its_interface_only_where_it_is_not_shared() {
    for is_exclusive in [false, true] {
        let bench = with_functions(is_exclusive);
        let fresh = bench.node.snapshot();
        bench.run(None, |engine| {
            let wanted = one("a", "eth1", |device| make_rdma(device, 0), wishes());
            engine.prepare(&wanted).unwrap();
            attach(engine).unwrap();
            assert_eq!(rdma_place(&bench), is_exclusive.then_some(netns(100).id));
            engine.detach(&pod_a());
            engine.unprepare(&claim("claim-a").uid).unwrap();
        });
        assert_eq!(bench.node.snapshot(), fresh);
    }
}

#[test]
fn devices_without_an_interface_are_handed_over_and_return() {
    let make = [make_rdma_only as fn(&mut Device, u32), make_vfio];
    for (make, nodes) in make.into_iter().zip([1, 2]) {
        let bench = with_functions(true);
        let fresh = bench.node.snapshot();
        bench.run(None, |engine| {
            let wanted = one("a", "eth1", |device| make(device, 0), Wishes::default());
            let prepared = engine.prepare(&wanted).unwrap();
            assert_eq!(bench.node.snapshot(), fresh, "nothing is to be prepared");
            assert_eq!(engine.prepare(&wanted).unwrap(), prepared);
            let attached = attach(engine).unwrap();
            assert_eq!(attach(engine).unwrap(), attached);
            assert_eq!(bench.node.world().cdi[&claim("claim-a").uid].devices[0].nodes.len(), nodes);
            engine.synchronize(&[pod_a()]);
            assert_eq!(bench.phases(), ["attached"]);
            assert_eq!(engine.detach(&pod_a()).len(), 1);
            assert!(bench.node.world().cdi.is_empty());
            engine.unprepare(&claim("claim-a").uid).unwrap();
        });
        assert_eq!(bench.node.snapshot(), fresh);
        assert!(bench.records().is_empty());
    }
}

#[test]
fn an_rdma_device_is_waited_for_until_its_namespace_is_gone() {
    let bench = with_functions(true);
    let fresh = bench.node.snapshot();
    bench.run(None, |engine| {
        let wanted = one("a", "eth1", |device| make_rdma_only(device, 0), Wishes::default());
        engine.prepare(&wanted).unwrap();
        attach(engine).unwrap();
        bench.node.world().interfaces.remove(&Some(netns(100).id));
        assert!(engine.detach(&pod_a()).is_empty());
        bench.node.remove_netns(netns(100).id);
        engine.synchronize(&[]);
        assert_eq!(bench.phases(), ["prepared"]);
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert_eq!(bench.node.snapshot().rdma, fresh.rdma);
    assert!(bench.records().is_empty());
}

#[test]
fn an_rdma_device_is_not_forgotten_in_a_namespace_while_its_interface_is_home() {
    let bench = with_functions(true);
    let fresh = bench.node.snapshot();
    bench.run(None, |engine| {
        let wanted = one("a", "eth1", |device| make_rdma(device, 0), wishes());
        engine.prepare(&wanted).unwrap();
        attach(engine).unwrap();
        bench.node.world().is_rdma_stuck = true;
        assert!(engine.detach(&pod_a()).is_empty());
        assert!(bench.node.world().interfaces[&None].contains_key(&"eth1".parse().unwrap()));
        assert_eq!(bench.phases(), ["detaching"]);
        let error = engine.unprepare(&claim("claim-a").uid).unwrap_err();
        assert!(matches!(error, AttachError::Stranded { .. }), "{error}");
        bench.node.world().is_rdma_stuck = false;
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert_eq!(bench.node.snapshot(), fresh);
    assert!(bench.records().is_empty());
}

#[test]
fn an_rdma_device_that_ends_with_the_move_is_not_waited_for() {
    let bench = with_functions(true);
    let fresh = bench.node.snapshot();
    bench.run(None, |engine| {
        let wanted = one("a", "eth1", |device| make_rdma(device, 0), wishes());
        engine.prepare(&wanted).unwrap();
        bench.node.world().is_rdma_software = true;
        let error = attach(engine).unwrap_err().to_string();
        assert!(error.contains("mlx5_0: no such device"), "{error}");
        assert_eq!(bench.phases(), ["prepared"]);
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    let now = bench.node.snapshot();
    assert!(!now.rdma.contains_key("mlx5_0"));
    assert_eq!((now.interfaces, now.vfs), (fresh.interfaces, fresh.vfs));
    assert!(bench.records().is_empty());
}

#[test]
fn what_needs_an_interface_is_refused_by_its_field() {
    let bench = with_functions(false);
    bench.run(None, |engine| {
        let mut wishes = Wishes::default();
        wishes.interface.mtu = Some(9000);
        wishes.routes = super::wishes().routes;
        let wanted = one("a", "eth1", |device| make_rdma_only(device, 0), wishes);
        assert_eq!(
            engine.prepare(&wanted).unwrap_err().to_string(),
            "device eth1: interface.mtu: the device has no network interface; \
             routes: the device has no network interface"
        );
    });
}

#[test]
fn an_iommu_group_goes_to_one_claim_at_a_time() {
    let bench = with_functions(false);
    bench.run(None, |engine| {
        let vfio = |name, device| one(name, device, |it| make_vfio(it, 0), Wishes::default());
        engine.prepare(&vfio("a", "eth1")).unwrap();
        let error = engine.prepare(&vfio("b", "eth2")).unwrap_err().to_string();
        assert!(error.contains("IOMMU group 40 is in use by claim default/claim-a"), "{error}");
        let none = |device: &mut Device| {
            make_vfio(device, 0);
            device.iommu_group = None;
        };
        let error = engine.prepare(&one("b", "eth2", none, Wishes::default())).unwrap_err();
        assert!(error.to_string().contains("in no IOMMU group"), "{error}");
        let held_up = |device: &mut Device| {
            make_vfio(device, 1);
            device.iommu_group_held_up_by = vec![pci(7)];
        };
        let error = engine.prepare(&one("b", "eth2", held_up, Wishes::default())).unwrap_err();
        let said = format!("group 41 cannot be used: drivers of the kernel use {} of it", pci(7));
        assert!(error.to_string().contains(&said), "{error}");
    });
}
