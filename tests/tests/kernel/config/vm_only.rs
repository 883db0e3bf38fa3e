//! What kernels without modules, such as one that the kernel ring may run on, do not have.

use driver::cdi::{CdiDir, Gate};
use driver::datapath::Datapath;
use driver::model::{
    By, IpvlanMode, MacAddr, Route, RouteScope, SubinterfaceKind, TableId, VfPlace, VfSettings,
    VfVlan, Vrf,
};
use driver::node::{LinuxNode, Node};
use driver::plan::{Observed, Step, Subject, Was};
use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;
use driver::sys::sysfs::Sysfs;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::links::made_and_removed;
use super::stage::{in_pod, ip, on_host};
use crate::driver::world::told;

#[test]
#[ignore = "needs ipvlan: vm ring"]
fn ipvlans_of_all_modes_are_made_and_removed() {
    on_host(|stage| {
        for (mode, word) in
            [(IpvlanMode::L2, "l2"), (IpvlanMode::L3, "l3"), (IpvlanMode::L3s, "l3s")]
        {
            let info = made_and_removed(stage, SubinterfaceKind::Ipvlan { mode });
            assert_eq!(info["info_kind"], "ipvlan");
            assert_eq!(info["info_data"]["mode"], word, "{info:#}");
        }
    });
}

#[test]
#[ignore = "needs vlan: vm ring"]
fn vlans_are_made_and_removed() {
    on_host(|stage| {
        for vlan_id in [1, 4094] {
            let info = made_and_removed(stage, SubinterfaceKind::Vlan { vlan_id });
            assert_eq!(info["info_kind"], "vlan");
            assert_eq!(info["info_data"]["id"], vlan_id, "{info:#}");
        }
    });
}

#[test]
#[ignore = "needs vrf: vm ring"]
fn a_vrf_is_made_up_and_is_removed() {
    in_pod(|stage| {
        let place = stage.place();
        let vrf = Vrf { name: "blue".parse().unwrap(), table: TableId(70_000) };
        let step = Step::AddVrf { place: place.clone(), vrf: vrf.clone() };
        let was = stage.twice(&step);
        let link = stage.inside(&place, || ip(&["link", "show", "dev", "blue"])[0].take());
        assert_eq!(link["linkinfo"]["info_data"]["table"], 70_000, "{link:#}");
        assert!(link["flags"].to_string().contains("\"UP\""), "{link:#}");

        let other = Vrf { table: TableId(5), ..vrf };
        let add = Step::AddVrf { place: place.clone(), vrf: other.clone() };
        assert!(stage.refused(&add).message.contains("VRF of table 5"));
        stage.refused(&Step::RemoveVrf { place, vrf: other });
        stage.back(&step, &was);
    });
}

#[test]
#[ignore = "needs vrf: vm ring"]
fn a_member_of_a_vrf_has_its_routes_in_the_table_of_the_vrf() {
    in_pod(|stage| {
        let (place, at) = (stage.place(), stage.in_pod());
        let vrf = Vrf { name: "blue".parse().unwrap(), table: TableId(1500) };
        stage.twice(&Step::AddVrf { place: place.clone(), vrf });
        let join =
            Step::SetController { at: at.clone(), controller: Some("blue".parse().unwrap()) };
        let was = stage.twice(&join);
        stage.node.apply(&Step::SetUp { at: at.clone() }).unwrap();
        let address = "10.0.0.1/24".parse().unwrap();
        stage.twice(&Step::AddAddress { at: at.clone(), address, dad: driver::model::Dad::Skip });
        let route = Route {
            table: TableId(1500),
            scope: RouteScope::UNIVERSE,
            gateway: "10.0.0.9".parse().ok(),
            ..Route::to("0.0.0.0/0".parse().unwrap())
        };
        stage.twice(&Step::AddRoute { at: at.clone(), route });
        let routes = stage.seen(&at).routes;
        let unicast = routes.as_array().unwrap().iter().filter(|route| route["type"] == "unicast");
        for route in unicast.filter(|route| route["dst"] != "fe80::/64") {
            assert_eq!(route["table"], "1500", "{route:#}");
        }
        stage.back(&join, &was);
        assert!(stage.seen(&at).link["master"].is_null());
    });
}

/// The first igb of a guest (`xtask/src/vm/hardware.rs`).
const IGB: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x10]);

/// Runs a test in the machine's own namespace, where its hardware is, with a node that can make
/// virtual functions.
fn on_the_machine(test: impl FnOnce(&mut LinuxNode, &Netlink) + Send) {
    let machine = Netns::open(&told("WEIR_MACHINE")).unwrap();
    let tested = machine.run(|_| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let (nothing, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(nothing, "/", nothing, private, nothing).unwrap();
        let directory = tempfile::tempdir().unwrap();
        mount(nothing, directory.path(), Some("sysfs"), MsFlags::empty(), nothing).unwrap();
        let bpffs = tempfile::tempdir().unwrap();
        let gate = Gate::install(bpffs.path()).unwrap();
        let cdi = CdiDir::open(&bpffs.path().join("cdi"), "weir.dev", gate).unwrap();
        let datapath = Datapath::open(bpffs.path()).unwrap();
        let sysfs = Sysfs::new(directory.path()).unwrap();
        let mut node = LinuxNode::open(datapath, cdi).unwrap().with_sysfs(sysfs);
        test(&mut node, &Netlink::open().unwrap());
    });
    tested.unwrap();
}

/// The second time it changes nothing.
fn twice(node: &mut LinuxNode, step: &Step) -> Was {
    let was = node.apply(step).unwrap_or_else(|error| panic!("{step}: {error}"));
    assert_ne!(was, Was::Same, "{step}");
    assert_eq!(node.apply(step).unwrap(), Was::Same, "{step}, again");
    was
}

fn function(node: &mut LinuxNode, place: &VfPlace) -> VfSettings {
    match node.observe(&Subject::Vf(place.clone())).unwrap() {
        Observed::Vf(Some(settings)) => settings,
        other => panic!("{place}: {other:?}"),
    }
}

/// Makes virtual functions of the first igb, tries something on the first of them, and leaves the
/// machine as it was.
fn on_a_function(test: impl FnOnce(&mut LinuxNode, &VfPlace) + Send) {
    on_the_machine(|node, netlink| {
        let pf = netlink.links().unwrap().into_iter().find(|link| link.mac == Some(IGB));
        let pf = pf.expect("the first igb");
        let address = pf.bus_device.clone().unwrap().parse().unwrap();
        let make = Step::SetVfCount { pf: address, from: 0, to: 2 };
        assert_eq!(twice(node, &make), Was::Otherwise);
        let Observed::PhysicalFunctions(all) = node.observe(&Subject::PhysicalFunctions).unwrap()
        else {
            panic!()
        };
        let found = all.into_iter().find(|it| it.address == address).unwrap();
        assert_eq!((found.num_vfs, found.vfs.len()), (2, 2), "{found:?}");
        let place = VfPlace { pf: pf.name, pf_index: pf.index, number: 0 };
        test(node, &place);
        twice(node, &Step::SetVfCount { pf: address, from: 2, to: 0 });
        assert!(netlink.link(&By::Index(place.pf_index)).unwrap().is_some());
        assert_eq!(node.observe(&Subject::Vf(place)).unwrap(), Observed::Vf(None));
    });
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn what_a_physical_function_is_told_is_told_once_and_taken_back() {
    on_a_function(|node, place| {
        let before = function(node, place);
        let settings = VfSettings {
            mac: Some(MacAddr([2, 0, 0, 0, 9, 1])),
            vlan: Some(VfVlan { id: 100, qos: 3, ..VfVlan::default() }),
            trust: before.trust.map(|is| !is),
            spoof_check: before.spoof_check.map(|is| !is),
            ..VfSettings::default()
        };
        let step = Step::SetVf { vf: place.clone(), settings: settings.clone() };
        let was = twice(node, &step);
        assert!(settings.lacking(&function(node, place)).is_empty());
        let shown = &ip(&["link", "show", "dev", place.pf.as_str()])[0]["vfinfo_list"][0].take();
        assert_eq!(shown["address"], "02:00:00:00:09:01", "{shown:#}");
        assert_eq!(shown["vlan_list"][0]["vlan"], 100, "{shown:#}");
        twice(node, &step.undo(&was).unwrap());
        assert_eq!(function(node, place), before);
    });
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn what_the_driver_of_a_physical_function_does_not_have_is_refused_by_its_name() {
    on_a_function(|node, place| {
        let before = function(node, place);
        // igb has no `ndo_set_vf_link_state`.
        let link_state = Some(driver::model::VfLinkState::Disable);
        let settings = VfSettings { link_state, ..VfSettings::default() };
        let error = node.apply(&Step::SetVf { vf: place.clone(), settings }).unwrap_err();
        assert!(error.message.starts_with("set link state of virtual function 0"), "{error}");
        assert_eq!(function(node, place), before);
    });
}
