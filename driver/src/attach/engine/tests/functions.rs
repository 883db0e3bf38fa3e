//! What a device is beside its interface: virtual functions, RDMA devices, and devices without any.

mod rdma;
mod vfio;

use super::*;
use crate::model::{
    Device, PciAddress, PciFacts, PfState, VFIO_DRIVER, VfSettings, VfVlan, VirtualFunction,
};
use crate::plan::FunctionSeen;
use crate::testing::{FakeRdma, FakeVf};

/// Functions of PCI that user space may have, each in an IOMMU group of its own: 42 and 43.
const VFIO: [u8; 2] = [2, 3];

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
        let rdma = FakeRdma { index: identity, number, netns: None };
        world.rdma.insert(format!("mlx5_{number}"), rdma);
    }
    for function in VFIO {
        let (driver, iommu_group) = (Some(VFIO_DRIVER.to_owned()), Some(40 + u32::from(function)));
        let seen = FunctionSeen { driver, iommu_group, held_up_by: Vec::new() };
        world.functions.insert(pci(function), seen);
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
    at_pci(device, VFIO[number as usize]);
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

/// Its own is all that can be put in place of an address that is not taken back.
#[test]
fn a_function_whose_address_is_not_taken_back_gets_its_own_and_can_be_used_again() {
    let bench = with_functions(false);
    bench.node.world().do_pfs_keep_macs = true;
    let fresh = bench.node.snapshot();
    let (notices, mut waiting) = crate::attach::Notices::pair();
    let own = MacAddr([2, 0, 0, 0, 0, 1]);
    for (round, mac_before) in [(1, MacAddr::default()), (2, own)] {
        let boot = bench.node.snapshot();
        assert_eq!(told(&bench).mac, Some(mac_before));
        bench.run(None, |engine| {
            engine.notices = Some(notices.clone());
            engine.prepare(&one("a", "eth1", |device| make_vf(device, 0), vf_wishes())).unwrap();
            assert_eq!(told(&bench).mac, vf_wishes().interface.mac);
            attach(engine).unwrap();
            engine.unprepare(&claim("claim-a").uid).unwrap();
        });
        assert_eq!(told(&bench), VfSettings { mac: Some(own), ..fresh_vf() });
        assert_eq!(bench.node.snapshot().interfaces, fresh.interfaces);
        assert!(bench.records().is_empty());
        let said = waiting.try_recv().ok().map(|notice| notice.message);
        let is_news =
            said.is_some_and(|it| it.contains("held to its own address 02:00:00:00:00:01"));
        assert_eq!(is_news, round == 1);
        // A prepare that fails at its last step leaves it as usable.
        *bench.node.world() = boot;
        let failed = |engine: &mut Engine<FakeNode>| {
            let wanted = one("a", "eth1", |device| make_vf(device, 0), vf_wishes());
            engine.prepare(&wanted).unwrap_err()
        };
        let error = bench.run(Some(Fault::FailAfter(5 - round)), failed).unwrap();
        assert!(matches!(&error, AttachError::Step { residue, .. } if residue.is_empty()));
        assert_eq!(told(&bench).mac, Some(own));
        assert_eq!(bench.node.snapshot().interfaces, fresh.interfaces);
        assert!(bench.records().is_empty());
    }
}

/// Takes the physical function's interface from the host, or puts it there again under an index.
fn pf(bench: &Bench, index: Option<IfIndex>) {
    let mut world = bench.node.world();
    let world = &mut *world;
    let name: IfName = "pf0".parse().unwrap();
    let (from, to) = match index {
        Some(_) => (Some(netns(200).id), None),
        None => (None, Some(netns(200).id)),
    };
    let mut pf = world.interfaces.get_mut(&from).unwrap().remove(&name).unwrap();
    if let Some(index) = index {
        let vfs = std::mem::take(&mut world.vfs).into_iter();
        world.vfs = vfs.map(|((_, number), vf)| ((index, number), vf)).collect();
        pf.index = index;
    }
    world.interfaces.get_mut(&to).unwrap().insert(name, pf);
}

#[test]
fn what_a_physical_function_was_told_is_owed_while_it_is_in_another_namespace() {
    let bench = with_functions(false);
    bench.node.world().physical_functions = vec![PfState { num_vfs: 2, ..physical_function() }];
    let vf = |device: &mut Device| {
        make_vf(device, 0);
        at_pci(device, 1);
    };
    let again = one("b", "eth1", vf, Wishes::default());
    bench.run(None, |engine| {
        engine.prepare(&one("a", "eth1", vf, vf_wishes())).unwrap();
        pf(&bench, None);
        engine.unprepare(&claim("claim-a").uid).unwrap();
        assert_eq!(bench.phases(), ["unpreparing"]);
        let error = engine.prepare(&again).unwrap_err();
        assert!(matches!(error, AttachError::Owed { .. }), "{error}");
        assert!(error.to_string().contains("pf0 is in another network namespace"), "{error}");
        // Its index may be another's by now.
        pf(&bench, Some(IfIndex(77)));
        engine.prepare(&again).unwrap();
    });
    assert_eq!(bench.node.world().vfs[&(IfIndex(77), 0)].settings, fresh_vf());
}

/// It comes back under another name, and something else on it is there before.
#[test]
fn what_is_owed_is_put_back_past_the_representors_of_a_physical_function() {
    let bench = with_functions(false);
    bench.node.world().physical_functions = vec![PfState { num_vfs: 2, ..physical_function() }];
    let vf = |device: &mut Device| {
        make_vf(device, 0);
        at_pci(device, 1);
    };
    bench.run(None, |engine| {
        engine.prepare(&one("a", "eth1", vf, vf_wishes())).unwrap();
        pf(&bench, None);
        engine.unprepare(&claim("claim-a").uid).unwrap();
        {
            let mut world = bench.node.world();
            world.places.insert(78, pci(0));
            let host = world.interfaces.get_mut(&None).unwrap();
            let mut representor = host[&"eth2".parse().unwrap()].clone();
            (representor.identity, representor.index) = (78, IfIndex(78));
            host.insert("rep0".parse().unwrap(), representor);
        }
        engine.settle();
        assert_eq!(bench.phases(), ["unpreparing"]);
        pf(&bench, Some(IfIndex(77)));
        {
            let mut world = bench.node.world();
            let host = world.interfaces.get_mut(&None).unwrap();
            let renamed = host.remove(&"pf0".parse().unwrap()).unwrap();
            host.insert("uplink".parse().unwrap(), renamed);
        }
        engine.settle();
    });
    assert!(bench.records().is_empty());
    assert_eq!(bench.node.world().vfs[&(IfIndex(77), 0)].settings, fresh_vf());
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

        engine.prepare(&one("b", "eth2", |device| at_pci(device, 0), Wishes::default())).unwrap();
        let vf = one("a", "eth1", |device| make_vf(device, 0), vf_wishes());
        let error = refused(engine, &vf);
        assert!(error.contains("eth2 is for pod default/pod-b itself"), "{error}");
    });
    assert_eq!(told(&bench), fresh_vf());
}

pub(super) fn at_pci(device: &mut Device, function: u8) {
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

pub(super) fn physical_function() -> PfState {
    PfState {
        address: pci(0),
        driver: Some("igb".to_owned()),
        interfaces: vec!["pf0".parse().unwrap()],
        needed: None,
        vendor: None,
        device: None,
        total_vfs: 8,
        num_vfs: 0,
        vfs: Vec::new(),
    }
}
