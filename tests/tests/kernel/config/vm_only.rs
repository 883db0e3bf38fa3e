//! What kernels without modules, such as one that the kernel ring may run on, do not have.

use driver::model::{IpvlanMode, Route, RouteScope, SubinterfaceKind, TableId, Vrf};
use driver::node::Node as _;
use driver::plan::Step;

use super::links::made_and_removed;
use super::stage::{in_pod, ip, on_host};

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
