//! What an interface carries besides its addresses: read, or refused by name.

use super::*;
use crate::model::{
    Dad, Family, Inherit, IpvlanMode, MacvlanMode, Neighbor, OtherPrograms, Route, RouteScope,
    Rule, SYSCTLS, Segments, SubinterfaceKind, SysctlName, TableId, VfLinkState, VfSettings,
    VfVlan, VlanProtocol, Vrf,
};

fn wishes(fields: Value) -> Wishes {
    let config = config(fields);
    parse(&[claim(&config)]).unwrap_or_else(|problems| panic!("{problems}"))
}

fn interface(fields: Value) -> InterfaceWishes {
    wishes(Value::Object(Map::from_iter([("interface".to_owned(), fields)]))).interface
}

/// What is wrong with a route beside one that is right.
fn problem_of_route(route: &Value) -> String {
    let first = json!({ "destination": "192.0.2.0/24", "table": 100, "metric": 5 });
    problem_of(json!({ "routes": [first, route] }))
}

#[test]
fn every_field_of_the_interface_arrives() {
    let wished = interface(json!({
        "noDad": false, "dhcp": true, "gsoMaxSize": 65_536, "groMaxSize": 131_072,
        "gsoIPv4MaxSize": 321, "groIPv4MaxSize": 524_280, "arpIgnore": 8,
        "sysctls": { "net.ipv4.conf.IFNAME.rp_filter": "02", "net.ipv6.conf.IFNAME.accept_ra": 0 },
        "disableEbpfPrograms": ["cil_from_netdev", "a.b"],
        "vrf": { "name": "red", "table": 77 },
    }));
    assert_eq!((wished.dad, wished.dhcp, wished.inherit), (Dad::Run, true, Inherit::None));
    let segments = Segments {
        gso_max_size: Some(65_536),
        gro_max_size: Some(131_072),
        gso_ipv4_max_size: Some(321),
        gro_ipv4_max_size: Some(524_280),
    };
    assert_eq!(wished.segments, segments);
    let sysctls: Vec<_> =
        wished.sysctls.iter().map(|(it, value)| (it.name.as_str(), value.as_str())).collect();
    assert_eq!(sysctls, [("arp_ignore", "8"), ("rp_filter", "2"), ("accept_ra", "0")]);
    let programs = OtherPrograms::Named(vec!["cil_from_netdev".to_owned(), "a.b".to_owned()]);
    assert_eq!(wished.disable_ebpf_programs, Some(programs));
    assert_eq!(wished.vrf, Some(Vrf { name: "red".parse().unwrap(), table: TableId(77) }));
}

#[test]
fn programs_of_others_leave_all_or_by_name_or_stay() {
    let of =
        |value: Value| interface(json!({ "disableEbpfPrograms": value })).disable_ebpf_programs;
    assert_eq!(of(json!(true)), Some(OtherPrograms::All));
    assert_eq!(of(json!(false)), None);
    assert_eq!(of(json!(null)), None);
}

#[test]
fn a_vrf_has_a_table_by_its_name() {
    let vrf = |name: &str| interface(json!({ "vrf": { "name": name } })).vrf.unwrap().table.0;
    assert!((1000..2000).contains(&vrf("red")));
    assert_eq!(vrf("red"), vrf("red"));
    assert_ne!(vrf("red"), vrf("blue"));
}

#[test]
fn forwarding_is_one_setting_of_each_family() {
    let name = |family| SysctlName { family, name: "forwarding".to_owned() };
    let on = interface(json!({ "forwarding": true })).sysctls;
    let expected = [Family::Ipv4, Family::Ipv6].map(|family| (name(family), "1".to_owned()));
    assert_eq!(on, expected);
    let same =
        json!({ "forwarding": false, "sysctls": { "net.ipv6.conf.IFNAME.forwarding": "0" } });
    assert_eq!(interface(same).sysctls[1], (name(Family::Ipv6), "0".to_owned()));
}

/// The lowest value of each, so that no name is without a range.
#[test]
fn every_setting_can_be_said() {
    for (family, name) in SYSCTLS {
        let family_word = if family == Family::Ipv4 { "ipv4" } else { "ipv6" };
        let key = format!("net.{family_word}.conf.IFNAME.{name}");
        let said = interface(json!({ "sysctls": { key: 0 } })).sysctls;
        assert_eq!(said, [(SysctlName { family, name: name.to_owned() }, "0".to_owned())]);
    }
}

#[test]
fn routes_say_what_the_kernel_would_have_them_be() {
    let routes = wishes(json!({ "routes": [
        { "destination": "192.0.2.0/24" },
        { "destination": "0.0.0.0/0", "gateway": "192.0.2.1", "metric": 0, "onlink": true },
        { "destination": "2001:db8::/32", "scope": "link", "metric": 1024, "table": 100 },
        { "destination": "198.51.100.0/24", "scope": 0, "metric": 7, "table": 4_294_967_295_u32 },
        { "destination": "203.0.113.0/24", "scope": 253, "onlink": false },
    ]}))
    .routes;
    let to = |text: &str| Route::to(text.parse().unwrap());
    let link = |text| Route { scope: RouteScope::LINK, ..to(text) };
    assert_eq!(routes[0], link("192.0.2.0/24"));
    let default =
        Route { gateway: Some("192.0.2.1".parse().unwrap()), onlink: true, ..to("0.0.0.0/0") };
    assert_eq!(routes[1], default);
    assert_eq!(routes[2], Route { table: TableId(100), ..to("2001:db8::/32") });
    let other = Route { metric: Some(7), table: TableId(u32::MAX), ..to("198.51.100.0/24") };
    assert_eq!(routes[3], other);
    assert_eq!(routes[4], link("203.0.113.0/24"));
}

#[test]
fn routes_to_one_destination_are_told_apart_by_table_and_metric() {
    let with = |field: &str, value| json!({ "destination": "192.0.2.0/24", field: value });
    let [table, metric] = [with("table", 9), with("metric", 9)];
    assert_eq!(wishes(json!({ "routes": [table, metric] })).routes.len(), 2);
    let same = json!({ "routes": [{ "destination": "192.0.2.0/24" }, with("metric", 0)] });
    assert_eq!(problem_of(same), "routes[1].destination: 192.0.2.0/24 has a route already");
    let other = json!({ "destination": "192.0.2.0/24", "table": 100, "metric": 5 });
    let said = "routes[1].destination: 192.0.2.0/24 has a route with metric 5 in table 100 already";
    assert_eq!(problem_of_route(&other), said);
}

#[rstest]
#[case(json!({ "table": 0 }), "table: 0 is below 1")]
#[case(json!({ "table": 255 }), "table: 255 is the local table, which only the kernel writes")]
#[case(json!({ "scope": 254 }), "scope: 254 is not one of 0, 253")]
#[case(json!({ "scope": "host" }), "scope: \"host\" is not one of global, link")]
#[case(json!({ "scope": true }), "scope: is a boolean, not global, link or their number")]
#[case(json!({ "scope": "link", "gateway": "10.1.0.1" }),
    "scope: is link, but what leads through a gateway is not on the link")]
#[case(json!({ "onlink": true }),
    "onlink: needs a gateway, without one everything is on the link")]
#[case(json!({ "metric": -1 }), "metric: -1 is below 0")]
#[case(json!({ "gateway": "255.255.255.255" }),
    "gateway: 255.255.255.255 is no address of a single host")]
fn a_route_leads_somewhere(#[case] mut route: Value, #[case] said: &str) {
    route["destination"] = json!("10.0.0.0/24");
    assert_eq!(problem_of_route(&route), format!("routes[1].{said}"));
}

#[test]
fn a_rule_has_one_family() {
    let rules = wishes(json!({ "rules": [
        { "priority": 0, "source": "192.0.2.0/24", "destination": "0.0.0.0/0", "table": 100 },
        { "priority": 32_767, "destination": "::/0", "table": 254 },
    ]}))
    .rules;
    let first = Rule {
        family: Family::Ipv4,
        priority: 0,
        source: Some("192.0.2.0/24".parse().unwrap()),
        destination: None,
        table: TableId(100),
    };
    let second = Rule {
        family: Family::Ipv6,
        priority: 32_767,
        source: None,
        destination: None,
        table: TableId::MAIN,
    };
    assert_eq!(rules, [first, second]);
}

#[rstest]
#[case(json!({ "priority": 1, "table": 100 }),
    "rules[1]: needs a source or a destination; 0.0.0.0/0 and ::/0 are any of their family")]
#[case(json!({ "source": "10.0.0.0/8", "table": 100 }), "rules[1].priority: is required")]
#[case(json!({ "priority": 1, "source": "10.0.0.0/8" }), "rules[1].table: is required")]
#[case(json!({ "priority": 32_768, "source": "10.0.0.0/8", "table": 1 }),
    "rules[1].priority: 32768 is above 32767")]
#[case(json!({ "priority": 1, "source": "10.0.0.0/8", "table": 0 }), "rules[1].table: 0 is below 1")]
#[case(json!({ "priority": 1, "source": "10.0.0.0/8", "table": 255 }),
    "rules[1].table: 255 is the local table, which only the kernel writes")]
#[case(json!({ "priority": 1, "source": "10.0.0.1/8", "table": 1 }),
    "rules[1].source: 10.0.0.1/8 has host bits, its network is 10.0.0.0/8")]
#[case(json!({ "priority": 1, "source": "10.0.0.0/8", "destination": "::/0", "table": 1 }),
    "rules[1].destination: ::/0 is IPv6 but the source 10.0.0.0/8 is IPv4")]
#[case(json!({ "priority": 5, "source": "192.0.2.0/24", "table": 9 }),
    "rules[1]: is the same as rules[0]")]
fn a_rule_can_be_had(#[case] rule: Value, #[case] said: &str) {
    let first = json!({ "priority": 5, "source": "192.0.2.0/24", "table": 9 });
    assert_eq!(problem_of(json!({ "rules": [first, rule] })), said);
}

#[test]
fn neighbours_are_single_hosts_with_an_address_each() {
    let neighbor = |ip: &str, mac: &str| json!({ "destination": ip, "hardwareAddr": mac });
    let router = neighbor("192.0.2.1", "02:00:00:00:00:01");
    let read = Neighbor {
        destination: "192.0.2.1".parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
    };
    assert_eq!(wishes(json!({ "neighbors": [router] })).neighbors, [read]);
    let said = |other| problem_of(json!({ "neighbors": [router, other] }));
    assert_eq!(
        said(neighbor("192.0.2.1", "02:00:00:00:00:02")),
        "neighbors[1].destination: 192.0.2.1 is in the list already"
    );
    assert_eq!(
        said(neighbor("ff02::1", "02:00:00:00:00:02")),
        "neighbors[1].destination: ff02::1 is no address of a single host"
    );
    assert_eq!(
        said(neighbor("192.0.2.2", "ff:ff:ff:ff:ff:ff")),
        "neighbors[1].hardwareAddr: ff:ff:ff:ff:ff:ff is a group address"
    );
    assert_eq!(
        said(json!({ "destination": "192.0.2.2" })),
        "neighbors[1].hardwareAddr: is required"
    );
}

#[test]
fn ethtool_arrives_group_by_group() {
    let ethtool = wishes(json!({ "ethtool": {
        "features": { "tx-tcp-segmentation": false, "gro": true },
        "privateFlags": { "link-down-on-close": true },
        "rings": { "rx": 1024, "rxJumbo": 0 },
        "channels": { "combined": 4, "rx": 0, "tx": 0 },
        "coalesce": { "rxUsecs": 50, "adaptiveRx": false, "adaptiveTx": true },
    }}))
    .ethtool;
    assert!(ethtool.features["gro"]);
    assert!(!ethtool.features["tx-tcp-segmentation"]);
    assert!(ethtool.private_flags["link-down-on-close"]);
    assert_eq!((ethtool.rings["rx"], ethtool.rings["rxJumbo"]), (1024, 0));
    assert_eq!(ethtool.channels["combined"], 4);
    let coalesce = &ethtool.coalesce;
    assert_eq!((coalesce["rxUsecs"], coalesce["adaptiveRx"], coalesce["adaptiveTx"]), (50, 0, 1));
}

#[rstest]
#[case(json!({ "features": { "gro": "on" } }), "features.gro: is a string, not a boolean")]
#[case(json!({ "features": { "": true } }),
    "features[\"\"]: \"\" is no name: 1 to 31 printable ASCII characters")]
#[case(json!({ "rings": { "rx": 0 } }), "rings.rx: 0 is below 1")]
#[case(json!({ "rings": { "combined": 1 } }),
    "rings.combined: unknown field, known are rx, rxMini, rxJumbo, tx")]
#[case(json!({ "channels": { "tx": 65_536 } }), "channels.tx: 65536 is above 65535")]
#[case(json!({ "channels": { "combined": 0, "tx": 0 } }),
    "channels: combined and tx are 0, so nothing has a queue for tx")]
#[case(json!({ "coalesce": { "adaptiveRx": 1 } }),
    "coalesce.adaptiveRx: is a number, not a boolean")]
fn a_setting_of_the_driver_has_its_type(#[case] ethtool: Value, #[case] said: &str) {
    assert_eq!(problem_of(json!({ "ethtool": ethtool })), format!("ethtool.{said}"));
}

#[rstest]
#[case(json!({ "type": "macvlan" }), SubinterfaceKind::Macvlan { mode: MacvlanMode::Bridge })]
#[case(json!({ "type": "macvlan", "mode": "passthru" }),
    SubinterfaceKind::Macvlan { mode: MacvlanMode::Passthru })]
#[case(json!({ "type": "ipvlan" }), SubinterfaceKind::Ipvlan { mode: IpvlanMode::L2 })]
#[case(json!({ "type": "ipvlan", "mode": "l3s" }), SubinterfaceKind::Ipvlan { mode: IpvlanMode::L3s })]
#[case(json!({ "type": "vlan", "vlanId": 4094 }), SubinterfaceKind::Vlan { vlan_id: 4094 })]
fn a_sub_interface_has_what_its_type_has(#[case] value: Value, #[case] kind: SubinterfaceKind) {
    let wishes = wishes(json!({ "subinterface": value }));
    assert_eq!(wishes.subinterface, Some(kind));
    assert_eq!(wishes.interface.inherit, Inherit::None);
}

#[rstest]
#[case(json!({}), "subinterface.type: is required")]
#[case(json!({ "type": "bridge" }),
    "subinterface.type: \"bridge\" is not one of macvlan, ipvlan, vlan")]
#[case(json!({ "type": "vlan" }), "subinterface.vlanId: is required")]
#[case(json!({ "type": "vlan", "vlanId": 4095 }), "subinterface.vlanId: 4095 is above 4094")]
#[case(json!({ "type": "vlan", "vlanId": 1, "mode": "l2" }),
    "subinterface.mode: goes with type macvlan or ipvlan only")]
#[case(json!({ "type": "macvlan", "vlanId": 1 }), "subinterface.vlanId: goes with type vlan only")]
#[case(json!({ "type": "ipvlan", "mode": "bridge" }),
    "subinterface.mode: \"bridge\" is not one of l2, l3, l3s")]
fn a_sub_interface_has_nothing_of_another_type(#[case] value: Value, #[case] said: &str) {
    assert_eq!(problem_of(json!({ "subinterface": value })), said);
}

#[rstest]
#[case(json!({ "gsoMaxSize": 320 }), "gsoMaxSize: 320 is below 321")]
#[case(json!({ "groIPv4MaxSize": 524_281 }), "groIPv4MaxSize: 524281 is above 524280")]
#[case(json!({ "noDad": "yes" }), "noDad: is a string, not a boolean")]
#[case(json!({ "arpIgnore": 4 }), "arpIgnore: 4 is not 0 to 3 or 8")]
#[case(json!({ "arpAnnounce": "1" }), "arpAnnounce: is a string, not an integer")]
#[case(json!({ "forwarding": 1 }), "forwarding: is a number, not a boolean")]
#[case(json!({ "forwarding": true, "sysctls": { "net.ipv4.conf.IFNAME.forwarding": "0" } }),
    "sysctls[\"net.ipv4.conf.IFNAME.forwarding\"]: sets net.ipv4.conf.IFNAME.forwarding to 0, \
     interface.forwarding to 1")]
#[case(json!({ "sysctls": { "net.ipv6.conf.IFNAME.addr_gen_mode": "2" } }),
    "sysctls[\"net.ipv6.conf.IFNAME.addr_gen_mode\"]: \"2\" is not 0 to 1 or 3")]
#[case(json!({ "sysctls": { "net.ipv4.conf.eth0.rp_filter": "1" } }),
    "sysctls[\"net.ipv4.conf.eth0.rp_filter\"]: is not of this interface, write \
     net.ipv4.conf.IFNAME.rp_filter")]
#[case(json!({ "sysctls": { "net/ipv4/conf/IFNAME/rp_filter": "1" } }),
    "sysctls[\"net/ipv4/conf/IFNAME/rp_filter\"]: is written with dots: \
     net.ipv4.conf.IFNAME.rp_filter")]
#[case(json!({ "disableEbpfPrograms": [] }),
    "disableEbpfPrograms: is empty, leave it out to let all of them be")]
#[case(json!({ "disableEbpfPrograms": ["cil_from_netdevice"] }),
    "disableEbpfPrograms[0]: \"cil_from_netdevice\" is too long, the kernel knows it as \
     cil_from_netdev")]
#[case(json!({ "disableEbpfPrograms": "all" }),
    "disableEbpfPrograms: is a string, not a boolean or a list of names")]
#[case(json!({ "vrf": {} }), "vrf.name: is required")]
#[case(json!({ "vrf": { "name": "red", "table": 254 } }),
    "vrf.table: 254 is a table of the kernel, which no VRF can have")]
#[case(json!({ "inherit": "some" }),
    "inherit: \"some\" is not one of all, addresses, routes, none")]
fn a_wish_for_the_interface_is_in_its_range(#[case] fields: Value, #[case] said: &str) {
    assert_eq!(problem_of(json!({ "interface": fields })), format!("interface.{said}"));
}

#[test]
fn a_setting_that_nobody_may_change_is_told_with_those_that_one_may() {
    let said = |key: &str| {
        let problem = problem_of(json!({ "interface": { "sysctls": { key: "1" } } }));
        problem.split_once("]: ").unwrap().1.to_owned()
    };
    let no_setting =
        "is no setting of an interface, which look like net.ipv4.conf.IFNAME.rp_filter";
    assert_eq!(said("net.ipv4.ip_forward"), no_setting);
    assert_eq!(said("net.ipv5.conf.IFNAME.rp_filter"), no_setting);
    let tag = said("net.ipv4.conf.IFNAME.tag");
    let start = "\"tag\" cannot be set, these can: accept_local, arp_accept, ";
    assert!(tag.starts_with(start) && !tag.contains("accept_ra"), "{tag}");
    assert!(said("net.ipv6.conf.IFNAME.rp_filter").contains("accept_ra"));
}

#[test]
fn every_field_of_a_virtual_function_arrives() {
    let of = |fields: Value| wishes(json!({ "sriov": fields })).sriov;
    let all = json!({
        "vlan": { "id": 4094, "qos": 7, "protocol": "802.1ad" }, "trust": true, "spoofCheck": false,
        "minTxRateMbps": 0, "maxTxRateMbps": 10_000, "linkState": "disable",
    });
    let wished = VfSettings {
        mac: None,
        vlan: Some(VfVlan { id: 4094, qos: 7, protocol: VlanProtocol::Dot1Ad }),
        trust: Some(true),
        spoof_check: Some(false),
        min_tx_rate_mbps: Some(0),
        max_tx_rate_mbps: Some(10_000),
        link_state: Some(VfLinkState::Disable),
    };
    assert_eq!(of(all), wished);
    let vlan = VfVlan { id: 5, ..VfVlan::default() };
    assert_eq!(of(json!({ "vlan": { "id": 5 } })).vlan, Some(vlan));
    assert_eq!(of(json!({ "vlan": { "id": 0 } })).vlan, Some(VfVlan::default()));
    assert!(of(json!({})).is_empty());
}

#[rstest]
#[case(json!({ "vlan": 100 }), "vlan: is a number, not an object")]
#[case(json!({ "vlan": {} }), "vlan.id: is required")]
#[case(json!({ "vlan": { "id": 4095 } }), "vlan.id: 4095 is above 4094")]
#[case(json!({ "vlan": { "id": 1, "qos": 8 } }), "vlan.qos: 8 is above 7")]
#[case(json!({ "vlan": { "id": 1, "protocol": "802.1q" } }),
    "vlan.protocol: \"802.1q\" is not one of 802.1Q, 802.1ad")]
#[case(json!({ "vlan": { "id": 0, "qos": 1 } }),
    "vlan: id 0 is no VLAN, so it has neither qos nor protocol")]
#[case(json!({ "trust": "on" }), "trust: is a string, not a boolean")]
#[case(json!({ "spoofchk": true }),
    "spoofchk: unknown field, known are vlan, trust, spoofCheck, minTxRateMbps, maxTxRateMbps, \
     linkState")]
#[case(json!({ "maxTxRateMbps": 2_147_483_648_u64 }),
    "maxTxRateMbps: 2147483648 is above 2147483647")]
#[case(json!({ "minTxRateMbps": 11, "maxTxRateMbps": 10 }),
    "minTxRateMbps: 11 is above maxTxRateMbps, 10")]
#[case(json!({ "linkState": "up" }), "linkState: \"up\" is not one of auto, enable, disable")]
fn a_wish_for_a_virtual_function_is_in_its_range(#[case] fields: Value, #[case] said: &str) {
    assert_eq!(problem_of(json!({ "sriov": fields })), format!("sriov.{said}"));
}

#[test]
fn a_sub_interface_leaves_the_virtual_function_below_it_as_it_is() {
    let fields = json!({ "sriov": { "trust": true }, "subinterface": { "type": "macvlan" } });
    assert_eq!(
        problem_of(fields),
        "sriov.trust: would change the parent for all that use it, so not with a subinterface"
    );
}
