//! What does not go together, in one source and across several: an error that names both places.

use super::*;
use crate::model::Inherit;

/// What is wrong where the class says one thing and the claim another.
fn between(class: Value, own: Value) -> Vec<String> {
    let (class, own) = (config(class), config(own));
    let sources = [
        Source { origin: Origin::Class, index: 0, parameters: &class },
        Source { origin: Origin::Claim, index: 1, parameters: &own },
    ];
    match parse(&sources) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// What comes of two configurations of one origin.
fn both(origin: Origin, first: Value, second: Value) -> Result<Wishes, String> {
    let (first, second) = (config(first), config(second));
    let sources = [
        Source { origin, index: 2, parameters: &first },
        Source { origin, index: 5, parameters: &second },
    ];
    parse(&sources).map_err(|problems| problems.to_string())
}

#[rstest]
#[case(json!({ "interface": { "dhcp": true } }), json!({ "interface": { "addresses": ["192.0.2.1/24"] } }),
    "interface.addresses[0]: is IPv4, which is dhcp's to give", "interface.dhcp")]
#[case(json!({ "interface": { "dhcp": true } }), json!({ "interface": { "inherit": "all" } }),
    "interface.inherit: takes addresses along, but dhcp gives one: say routes or none", "interface.dhcp")]
#[case(json!({ "interface": { "addresses": [] } }), json!({ "interface": { "inherit": "addresses" } }),
    "interface.inherit: takes addresses along, but they are given: say all, routes or none",
    "interface.addresses")]
#[case(json!({ "interface": { "addresses": ["2001:db8::1/64"] } }), json!({ "interface": { "mtu": 1279 } }),
    "interface.mtu: 1279 is below 1280, as IPv6 (2001:db8::1/64) needs it", "interface.addresses")]
#[case(json!({ "interface": { "addresses": ["192.0.2.1/24"] } }),
    json!({ "routes": [{ "destination": "0.0.0.0/0", "gateway": "192.0.2.1" }] }),
    "routes[0].gateway: 192.0.2.1 is an address of the interface itself", "interface.addresses")]
#[case(json!({ "interface": { "addresses": ["192.0.2.1/24"] } }),
    json!({ "neighbors": [{ "destination": "192.0.2.1", "hardwareAddr": "02:00:00:00:00:01" }] }),
    "neighbors[0].destination: 192.0.2.1 is an address of the interface itself", "interface.addresses")]
#[case(json!({ "interface": { "vrf": { "name": "red", "table": 77 } } }),
    json!({ "routes": [{ "destination": "0.0.0.0/0", "table": 78 }] }),
    "routes[0].table: is 78, but routes in a VRF are in its table, 77", "interface.vrf")]
#[case(json!({ "interface": { "vrf": { "name": "red", "table": 77 } } }),
    json!({ "routes": [{ "destination": "0.0.0.0/0", "table": 77 }, { "destination": "0.0.0.0/0" }] }),
    "routes[1].destination: 0.0.0.0/0 has a route in table 77 already", "interface.vrf")]
#[case(json!({ "interface": { "vrf": { "name": "red", "table": 77 } } }),
    json!({ "routes": [{ "destination": "0.0.0.0/0" }, { "destination": "0.0.0.0/0", "table": 77 }] }),
    "routes[1].destination: 0.0.0.0/0 has a route in table 77 already", "interface.vrf")]
#[case(json!({ "interface": { "vrf": { "name": "red" } } }),
    json!({ "rules": [{ "priority": 1, "source": "10.0.0.0/8", "table": 5 }] }),
    "rules: do not go with a VRF, which has a rule of its own", "interface.vrf")]
#[case(json!({ "interface": { "name": "red" } }), json!({ "interface": { "vrf": { "name": "red" } } }),
    "interface.vrf.name: red is the name of the interface in it", "interface.name")]
#[case(json!({ "subinterface": { "type": "ipvlan" } }), json!({ "interface": { "dhcp": true } }),
    "interface.dhcp: does not go with ipvlan: to the server all on one parent are the same",
    "subinterface")]
#[case(json!({ "subinterface": { "type": "ipvlan" } }),
    json!({ "interface": { "hardwareAddr": "02:00:00:00:00:01" } }),
    "interface.hardwareAddr: cannot be set: ipvlan has the address of its parent", "subinterface")]
#[case(json!({ "subinterface": { "type": "macvlan", "mode": "passthru" } }),
    json!({ "interface": { "hardwareAddr": "02:00:00:00:00:01" } }),
    "interface.hardwareAddr: cannot be set: macvlan in mode passthru has the address of its parent",
    "subinterface")]
#[case(json!({ "subinterface": { "type": "macvlan" } }), json!({ "interface": { "inherit": "routes" } }),
    "interface.inherit: is for the device itself, a sub-interface is new and has only none",
    "subinterface")]
#[case(json!({ "subinterface": { "type": "macvlan" } }), json!({ "ebpf": { "hook": "xdp" } }),
    "ebpf.hook: xdp is for the device itself, macvlan has no native XDP", "subinterface")]
#[case(json!({ "subinterface": { "type": "vlan", "vlanId": 5 } }),
    json!({ "ethtool": { "features": { "gro": false } } }),
    "ethtool.features: would change the parent for all that use it, so not with a subinterface",
    "subinterface")]
#[case(json!({ "interface": { "sysctls": { "net.ipv6.conf.IFNAME.disable_ipv6": "1" } } }),
    json!({ "interface": { "addresses": ["192.0.2.1/24", "2001:db8::1/64"] } }),
    "interface.addresses[1]: is IPv6, which disable_ipv6 switches off",
    "interface.sysctls[\"net.ipv6.conf.IFNAME.disable_ipv6\"]")]
#[case(json!({ "interface": { "sysctls": { "net.ipv6.conf.IFNAME.disable_ipv6": "1" } } }),
    json!({ "routes": [{ "destination": "::/0" }] }),
    "routes[0].destination: is IPv6, which disable_ipv6 switches off",
    "interface.sysctls[\"net.ipv6.conf.IFNAME.disable_ipv6\"]")]
#[case(json!({ "ebpf": { "hook": "none" } }), json!({ "ebpf": { "telemetry": "flows" } }),
    "ebpf.telemetry: flows need a program, but hook is none", "ebpf.hook")]
fn what_does_not_go_together_names_both_places(
    #[case] class: Value,
    #[case] own: Value,
    #[case] said: &str,
    #[case] other: &str,
) {
    let located = format!("config[1] (claim): {said} ({other} in config[0] of the class)");
    assert_eq!(between(class.clone(), own.clone()), [located]);
    // In one source there is one place.
    let mut one = class;
    for (name, fields) in own.as_object().unwrap() {
        match one.get_mut(name).and_then(Value::as_object_mut) {
            Some(there) => there.extend(fields.as_object().unwrap().clone()),
            None => one[name] = fields.clone(),
        }
    }
    assert_eq!(problems_of(one), [said]);
}

#[test]
fn two_of_one_origin_cannot_say_different_things() {
    let name = |name: &str| json!({ "interface": { "name": name } });
    for (origin, word) in [(Origin::Class, "class"), (Origin::Claim, "claim")] {
        assert_eq!(
            both(origin, name("a"), name("b")).unwrap_err(),
            format!(
                "config[5] ({word}): interface.name: is \"b\", but \"a\" in config[2] of the {word}"
            )
        );
        assert!(both(origin, name("a"), name("a")).is_ok());
    }
    let routes = |to: &str| json!({ "routes": [{ "destination": to }] });
    assert_eq!(
        both(Origin::Claim, routes("10.0.0.0/8"), routes("::/0")).unwrap_err(),
        "config[5] (claim): routes: is [{\"destination\":\"::/0\"}], but \
         [{\"destination\":\"10.0.0.0/8\"}] in config[2] of the claim"
    );
    // Two ways to write one thing are no contradiction.
    let scope =
        |scope: Value| json!({ "routes": [{ "destination": "10.0.0.0/8", "scope": scope }] });
    assert!(both(Origin::Claim, scope(json!(253)), scope(json!("link"))).is_ok());
}

#[test]
fn maps_are_merged_key_by_key() {
    let rp = "net.ipv4.conf.IFNAME.rp_filter";
    let class = json!({
        "interface": { "arpIgnore": 1, "sysctls": { rp: "1" } },
        "ethtool": { "features": { "gro": true, "tso": true }, "rings": { "rx": 512 } },
    });
    let own = json!({
        "interface": { "sysctls": { rp: "0" } },
        "ethtool": { "features": { "gro": false }, "rings": { "tx": 256 } },
    });
    let (class, own) = (config(class), config(own));
    let wishes = parse(&[
        Source { origin: Origin::Claim, index: 0, parameters: &own },
        Source { origin: Origin::Class, index: 1, parameters: &class },
    ])
    .unwrap();
    let values: Vec<_> = wishes.interface.sysctls.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["1", "0"]);
    assert_eq!((wishes.ethtool.features["gro"], wishes.ethtool.features["tso"]), (false, true));
    assert_eq!((wishes.ethtool.rings["rx"], wishes.ethtool.rings["tx"]), (512, 256));
}

#[test]
fn a_key_has_one_value_in_one_origin() {
    let rp = "net.ipv4.conf.IFNAME.forwarding";
    let said = both(
        Origin::Claim,
        json!({ "interface": { "forwarding": true }, "ethtool": { "features": { "a.b": true } } }),
        json!({
            "interface": { "sysctls": { rp: "0" } },
            "ethtool": { "features": { "a.b": false, "c": true } },
        }),
    );
    assert_eq!(
        said.unwrap_err(),
        "config[5] (claim): interface.sysctls[\"net.ipv4.conf.IFNAME.forwarding\"]: is \"0\", but \
         \"1\" in config[2] of the claim; \
         config[5] (claim): ethtool.features[\"a.b\"]: is false, but true in config[2] of the claim"
    );
}

#[test]
fn what_is_taken_along_is_everything_unless_something_else_is_wished_for() {
    let of = |interface: Value| {
        parse(&[claim(&config(json!({ "interface": interface })))]).unwrap().interface.inherit
    };
    assert_eq!(of(json!({})), Inherit::All);
    assert_eq!(of(json!({ "dhcp": false })), Inherit::All);
    assert_eq!(of(json!({ "dhcp": true })), Inherit::None);
    assert_eq!(of(json!({ "addresses": [] })), Inherit::None);
    assert_eq!(of(json!({ "addresses": ["192.0.2.1/24"], "inherit": "routes" })), Inherit::Routes);
    assert_eq!(of(json!({ "addresses": ["192.0.2.1/24"], "inherit": "all" })), Inherit::All);
    assert_eq!(of(json!({ "dhcp": true, "addresses": ["2001:db8::1/64"] })), Inherit::None);
}

#[test]
fn a_vrf_takes_all_routes_into_its_table() {
    let wishes = parse(&[claim(&config(json!({
        "interface": { "vrf": { "name": "red", "table": 77 } },
        "routes": [{ "destination": "::/0", "table": 77 }, { "destination": "0.0.0.0/0" }],
    })))])
    .unwrap();
    assert!(wishes.routes.iter().all(|route| route.table.0 == 77), "{:?}", wishes.routes);
}

#[test]
fn what_an_unknown_class_may_say_is_not_missed() {
    let flows = config(json!({ "ebpf": { "flows": {} } }));
    let sources = [claim(&flows)];
    assert_eq!(parse_located(&sources, Known::All).unwrap_err().len(), 1);
    assert!(parse_located(&sources, Known::AllButClass).is_ok());
    // The claim has the last word, so the class cannot help here.
    let off = config(json!({ "ebpf": { "flows": {}, "telemetry": "off" } }));
    assert!(parse_located(&[claim(&off)], Known::AllButClass).is_err());
}
