//! Good documents, a little spoilt: nothing panics, every error says where it is, and what is taken
//! is in the schema.

use super::*;
use crate::claim::schema_tests::{fits, without_nulls};

/// Documents that are right, with every field of the format in one of them at least.
fn good() -> Vec<Value> {
    let full = config(json!({
        "interface": {
            "name": "net1", "addresses": ["192.0.2.10/24", "2001:db8::10/64"], "noDad": false,
            "dhcp": false, "mtu": 9000, "hardwareAddr": "02:00:5e:10:00:01", "gsoMaxSize": 65_536,
            "groMaxSize": 65_536, "gsoIPv4MaxSize": 65_536, "groIPv4MaxSize": 65_536,
            "forwarding": true, "arpIgnore": 1, "arpAnnounce": 2,
            "sysctls": { "net.ipv4.conf.IFNAME.rp_filter": "2", "net.ipv6.conf.IFNAME.accept_ra": 0 },
            "disableEbpfPrograms": ["one", "two"], "inherit": "routes",
        },
        "routes": [
            { "destination": "203.0.113.0/24", "gateway": "192.0.2.1", "source": "192.0.2.10",
              "table": 100, "metric": 50, "onlink": true },
            { "destination": "2001:db8:1::/48", "scope": "link" },
        ],
        "rules": [{ "priority": 100, "source": "192.0.2.10/32", "destination": "0.0.0.0/0", "table": 100 }],
        "neighbors": [{ "destination": "192.0.2.1", "hardwareAddr": "02:00:5e:10:00:02" }],
        "ethtool": {
            "features": { "rx-gro": true }, "privateFlags": { "some flag": false },
            "rings": { "rx": 512, "tx": 512, "rxMini": 0, "rxJumbo": 0 },
            "channels": { "combined": 4, "other": 1 },
            "coalesce": { "rxUsecs": 20, "adaptiveRx": true },
        },
        "sriov": {
            "vlan": { "id": 100, "qos": 3, "protocol": "802.1ad" }, "trust": true,
            "spoofCheck": false, "minTxRateMbps": 10, "maxTxRateMbps": 100, "linkState": "enable",
        },
        "ebpf": {
            "hook": "tcx", "telemetry": "flows", "flows": { "entries": 512, "exportPackets": 4 },
            "filter": {
                "ingress": { "defaultAction": "deny", "stateful": true, "rules": [
                    { "name": "web", "action": "allow", "cidrs": ["198.51.100.0/24"], "protocol": "tcp",
                      "ports": [443, "8000-8080"], "sourcePorts": ["1024-65535"], "established": true },
                    { "name": "slow", "action": "rateLimit", "rateLimit": { "bitsPerSecond": 9000, "burst": 9 } },
                    { "name": "ping", "action": "count", "protocol": "icmp", "icmpTypes": [8],
                      "sources": ["10.0.0.0/8"], "destinations": ["192.0.2.0/24"], "fragment": false },
                ]},
                "egress": {},
            },
        },
    }));
    let vrf = config(json!({
        "interface": { "dhcp": true, "vrf": { "name": "red", "table": 77 }, "disableEbpfPrograms": true },
        "routes": [{ "destination": "0.0.0.0/0", "scope": 253 }],
    }));
    let upon = |value: Value| config(json!({ "subinterface": value }));
    let subs = [
        upon(json!({ "type": "macvlan", "mode": "private" })),
        upon(json!({ "type": "ipvlan", "mode": "l3" })),
        upon(json!({ "type": "vlan", "vlanId": 100 })),
    ];
    let dranet = json!({
        "interface": { "name": "a", "dhcp": true }, "routes": [{ "destination": "::/0", "table": 0 }],
        "rules": [{ "source": "10.0.0.0/8", "table": 5 }],
    });
    [vec![full, vrf, dranet], subs.to_vec()].concat()
}

/// Where each value of a document is, but the document itself.
fn places(value: &Value, at: &str, places: &mut Vec<String>) {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    let below: Vec<_> = match value {
        Value::Array(items) => {
            items.iter().enumerate().map(|(nth, item)| (nth.to_string(), item)).collect()
        }
        Value::Object(fields) => fields.iter().map(|(name, it)| (escaped(name), it)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in below {
        let at = format!("{at}/{name}");
        self::places(value, &at, places);
        places.push(at);
    }
}

/// Puts another value in a place, or takes the field away.
fn spoil(document: &mut Value, nth: usize, by: Option<Value>) {
    let mut all = Vec::new();
    places(document, "", &mut all);
    let Some(place) = all.get(nth % all.len().max(1)) else { return };
    let (above, name) = place.rsplit_once('/').unwrap();
    match (by, document.pointer_mut(above).unwrap()) {
        (Some(value), _) => *document.pointer_mut(place).unwrap() = value,
        (None, Value::Array(items)) => drop(items.remove(name.parse().unwrap())),
        (None, Value::Object(fields)) => {
            drop(fields.remove(&name.replace("~1", "/").replace("~0", "~")));
        }
        (None, _) => {}
    }
}

/// Another value: of another type, at the edge of a range, or from elsewhere in the format.
fn another() -> impl Strategy<Value = Option<Value>> {
    let odd = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(255),
        json!(65_536),
        json!(u64::MAX),
        json!(true),
        json!(""),
        json!("x"),
        json!("0"),
        json!("::/0"),
        json!("fe80::1"),
        json!("10.0.0.0/33"),
        json!("all"),
        json!("none"),
        json!("xdp"),
        json!("ipvlan"),
        json!("link"),
        json!("é\n"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({ "name": "x" }),
        json!(null),
    ];
    prop_oneof![
        1 => Just(None),
        4 => prop::sample::select(odd.to_vec()).prop_map(Some),
        1 => any_json().prop_map(Some),
    ]
}

#[test]
fn what_is_spoilt_was_good() {
    let schema = crate::claim::schema();
    for document in good() {
        assert_eq!(parse(&[claim(&document)]).err(), None, "{document}");
        if document.get("kind").is_some() {
            fits(&schema, &schema, &document).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_spoilt_document_is_taken_or_refused_with_paths(
        document in prop::sample::select(good()),
        changes in prop::collection::vec((any::<usize>(), another()), 1..4),
    ) {
        let mut document = document;
        for (nth, by) in changes {
            spoil(&mut document, nth, by);
        }
        match parse(&[claim(&document)]) {
            Ok(_) => {
                let schema = crate::claim::schema();
                let is_ours = document.get("kind").is_some_and(|kind| !kind.is_null());
                if is_ours {
                    let said = fits(&schema, &schema, &without_nulls(&document));
                    prop_assert!(said.is_ok(), "{:?} in {}", said, document);
                }
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in &problems {
                    prop_assert!(!problem.path.is_empty(), "{} in {}", problem, document);
                    prop_assert!(!problem.to_string().contains('\n'), "{}", problem);
                }
            }
        }
    }
}
