//! Configurations that were written for DraNet.

use super::*;
use crate::model::{Inherit, OtherPrograms, RouteScope, TableId};

fn problems(document: &Value) -> String {
    parse(&[claim(document)]).map_or_else(|problems| problems.to_string(), |_| String::new())
}

#[test]
fn a_configuration_for_dranet_is_taken_as_it_is() {
    let document = json!({
        "profile": "",
        "interface": {
            "name": "dranet0",
            "addresses": ["169.254.169.13/32"],
            "mtu": 4321,
            "hardwareAddr": "00-11-22-33-44-55",
            "gsoMaxSize": 65_536, "groMaxSize": 65_536,
            "gsoIPv4MaxSize": 65_536, "groIPv4MaxSize": 65_536,
            "disableEbpfPrograms": true,
            "forwarding": true, "arpIgnore": 1, "arpAnnounce": 2,
        },
        "routes": [
            { "destination": "169.254.169.1/32", "scope": 253 },
            { "destination": "10.1.2.3/8", "gateway": "169.254.169.1", "source": "169.254.169.13",
              "scope": 0, "table": 0 },
            { "destination": "0.0.0.0/0", "gateway": "169.254.169.1", "table": 101 },
        ],
        "rules": [{ "source": "169.254.169.13/32", "table": 101 }],
        "neighbors": [{ "destination": "169.254.169.1", "hardwareAddr": "0011.2233.4466" }],
        "ethtool": { "features": { "tcp-segmentation-offload": false }, "privateFlags": { "x": true } },
    });
    let wishes = parse(&[claim(&document)]).unwrap();
    let interface = wishes.interface;
    assert_eq!(interface.mac.unwrap().to_string(), "00:11:22:33:44:55");
    assert_eq!(interface.segments.gro_ipv4_max_size, Some(65_536));
    assert_eq!(interface.disable_ebpf_programs, Some(OtherPrograms::All));
    assert_eq!(interface.sysctls.len(), 4);
    // Routes come along beside those that are given.
    assert_eq!(interface.inherit, Inherit::All);
    assert_eq!(wishes.routes[0].scope, RouteScope::LINK);
    assert_eq!(wishes.routes[1].destination.to_string(), "10.0.0.0/8");
    assert_eq!((wishes.routes[1].table, wishes.routes[2].table), (TableId::MAIN, TableId(101)));
    assert_eq!(wishes.rules[0].priority, 0);
    assert_eq!(wishes.neighbors[0].mac.to_string(), "00:11:22:33:44:66");
    assert_eq!(wishes.ethtool.features.len() + wishes.ethtool.private_flags.len(), 2);
    assert_eq!(wishes.ebpf.telemetry, Telemetry::Counters);
}

#[test]
fn routes_come_along_with_dhcp() {
    let wishes = parse(&[claim(&json!({ "interface": { "dhcp": true } }))]).unwrap();
    assert_eq!((wishes.interface.dhcp, wishes.interface.inherit), (true, Inherit::Routes));
}

#[rstest]
#[case(json!({ "profile": 1 }), "profile: is a number, not a string")]
#[case(json!({ "ebpf": { "hook": "xdp" } }),
    "ebpf: needs apiVersion: weir.dev/v1alpha1 and kind: NetworkConfig, without which DraNet's \
     fields are read")]
#[case(json!({ "interface": { "inherit": "all" } }),
    "interface.inherit: needs apiVersion: weir.dev/v1alpha1 and kind: NetworkConfig, without which \
     DraNet's fields are read")]
#[case(json!({ "routes": [{ "destination": "::/0", "onlink": true, "gateway": "fe80::1" }] }),
    "routes[0].onlink: needs apiVersion: weir.dev/v1alpha1 and kind: NetworkConfig, without which \
     DraNet's fields are read")]
#[case(json!({ "interface": { "ipAddress": [] } }),
    "interface.ipAddress: unknown field, known are name, addresses, dhcp, mtu, hardwareAddr, \
     gsoMaxSize, groMaxSize, gsoIPv4MaxSize, groIPv4MaxSize, forwarding, arpIgnore, arpAnnounce, \
     disableEbpfPrograms, vrf")]
#[case(json!({ "interface": { "disableEbpfPrograms": ["a"] } }),
    "interface.disableEbpfPrograms: is a list, not a boolean")]
#[case(json!({ "rules": [{ "priority": 5, "table": 100 }] }),
    "rules[0]: needs a source or a destination; 0.0.0.0/0 and ::/0 are any of their family")]
#[case(json!({ "kind": "NetworkConfig" }), "apiVersion: is required")]
#[case(json!({ "apiVersion": "weir.dev/v1alpha1" }), "kind: is required")]
#[case(json!({ "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig", "profile": "" }),
    "profile: is empty")]
#[case(json!({ "sriov": { "trust": true } }),
    "sriov: needs apiVersion: weir.dev/v1alpha1 and kind: NetworkConfig, without which DraNet's \
     fields are read")]
fn what_cannot_mean_the_same_is_refused(#[case] document: Value, #[case] said: &str) {
    assert_eq!(problems(&document), said);
}

#[test]
fn a_claim_for_dranet_may_have_a_class_of_ours() {
    let class = config(json!({ "ebpf": { "telemetry": "flows" }, "interface": { "mtu": 1400 } }));
    let own = json!({ "interface": { "mtu": 9000 } });
    let wishes = parse(&[
        Source { origin: Origin::Class, index: 0, parameters: &class },
        Source { origin: Origin::Claim, index: 1, parameters: &own },
    ])
    .unwrap();
    assert_eq!((wishes.interface.mtu, wishes.ebpf.telemetry), (Some(9000), Telemetry::Flows));
}
