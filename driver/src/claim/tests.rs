//! The format as a whole: what is read, what is refused, how sources are merged.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Map, json};

use super::*;
use crate::model::{DefaultAction, FlowWishes, HookWish, InterfaceWishes, Telemetry};

mod dranet;
mod merge;
mod mutate;
mod network;

/// `fields` in the envelope that every configuration needs.
pub(super) fn config(fields: Value) -> Value {
    let mut config = json!({ "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig" });
    let Value::Object(fields) = fields else { panic!("{fields} has no fields") };
    config.as_object_mut().unwrap().extend(fields);
    config
}

pub(super) fn claim(parameters: &Value) -> Source<'_> {
    Source { origin: Origin::Claim, index: 0, parameters }
}

pub(super) fn problems_of(fields: Value) -> Vec<String> {
    match parse(&[claim(&config(fields))]) {
        Ok(wishes) => panic!("{wishes:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn problem_of(fields: Value) -> String {
    let [problem] = &problems_of(fields)[..] else { panic!("not one problem") };
    problem.clone()
}

#[test]
fn without_a_configuration_everything_is_default() {
    assert_eq!(parse(&[]), Ok(Wishes::default()));
    assert_eq!(parse(&[claim(&config(json!({})))]), Ok(Wishes::default()));
    let nulls = json!({ "interface": null, "routes": null, "ebpf": { "filter": null } });
    assert_eq!(parse(&[claim(&config(nulls))]), Ok(Wishes::default()));
}

#[test]
fn every_field_arrives_where_it_belongs() {
    let wishes = parse(&[claim(&config(json!({
        "interface": {
            "name": "net1",
            "addresses": ["192.0.2.7/24", "2001:db8::7/64"],
            "mtu": 9000,
            "hardwareAddr": "02:00:5e:10:00:0F",
        },
        "routes": [
            { "destination": "198.51.100.0/24", "gateway": "192.0.2.1", "source": "192.0.2.7" },
            { "destination": "::/0" },
        ],
        "ebpf": {
            "hook": "xdp",
            "telemetry": "counters",
            "filter": {
                "ingress": {
                    "defaultAction": "deny",
                    "rules": [{ "name": "web", "action": "allow", "protocol": "tcp", "ports": [80] }],
                },
                "egress": { "rules": [{ "name": "smtp", "action": "deny" }] },
            },
        },
    })))])
    .unwrap();

    let InterfaceWishes { name, addresses, mtu, mac, .. } = wishes.interface;
    assert_eq!(name.unwrap().as_str(), "net1");
    let addresses: Vec<_> = addresses.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.7/24", "2001:db8::7/64"]);
    assert_eq!((mtu, mac.unwrap().to_string().as_str()), (Some(9000), "02:00:5e:10:00:0f"));
    let [to_test_net, default] = &wishes.routes[..] else { panic!("{:?}", wishes.routes) };
    assert_eq!(to_test_net.destination.to_string(), "198.51.100.0/24");
    assert_eq!(to_test_net.gateway, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(to_test_net.source, Some("192.0.2.7".parse().unwrap()));
    assert_eq!((default.gateway, default.source), (None, None));
    assert_eq!((wishes.ebpf.hook, wishes.ebpf.telemetry), (HookWish::Xdp, Telemetry::Counters));
    let filter = wishes.ebpf.filter.unwrap();
    assert_eq!(filter.ingress.unwrap().default_action, DefaultAction::Deny);
    assert_eq!(filter.egress.unwrap().rules[0].name, "smtp");
}

/// An author gets the whole list in one event, in the order of the format.
#[test]
fn all_problems_come_at_once_and_in_reading_order() {
    let problems = problems_of(json!({
        "kind": "NetworkConf",
        "interface": { "mtu": 40, "name": "lo", "hardwareAddr": "01:00:5e:00:00:01", "vlan": 3 },
        "routes": [{ "destination": "2001:db8::/64", "gateway": "10.0.0.1" }],
        "ebpf": {
            "hook": "tc",
            "filter": { "ingress": { "rules": [
                { "name": "a", "action": "deny", "protocol": "udp", "ports": [70000] },
            ] } },
        },
    }));
    assert_eq!(
        problems,
        [
            "kind: \"NetworkConf\" is not NetworkConfig",
            "interface.vlan: unknown field, known are name, addresses, noDad, dhcp, mtu, \
             hardwareAddr, gsoMaxSize, groMaxSize, gsoIPv4MaxSize, groIPv4MaxSize, forwarding, \
             arpIgnore, arpAnnounce, sysctls, disableEbpfPrograms, vrf, inherit",
            "interface.name: lo is the loopback interface of every pod",
            "interface.mtu: 40 is below 68",
            "interface.hardwareAddr: 01:00:5e:00:00:01 is a group address",
            "routes[0].gateway: 10.0.0.1 is IPv4 but the destination 2001:db8::/64 is IPv6",
            "ebpf.hook: \"tc\" is not one of auto, xdp, tcx, none",
            "ebpf.filter.ingress.rules[0].ports[0]: 70000 is not a port (1 to 65535)",
        ]
    );
}

#[test]
fn the_envelope_is_required() {
    let said = |parameters: Value| parse(&[claim(&parameters)]).unwrap_err().to_string();
    assert_eq!(said(json!({ "kind": "NetworkConfig" })), "apiVersion: is required");
    assert_eq!(said(json!({ "apiVersion": "weir.dev/v1alpha1" })), "kind: is required");
    assert_eq!(
        said(json!({ "apiVersion": "weir.dev/v1", "kind": 1 })),
        "apiVersion: \"weir.dev/v1\" is not weir.dev/v1alpha1; kind: is a number, not a string"
    );
    assert_eq!(said(json!([])), "is a list, not an object");
}

#[rstest]
#[case(json!({ "interface": [] }), "interface: is a list, not an object")]
#[case(json!({ "interfaces": {} }), "interfaces: unknown field, did you mean interface?")]
#[case(json!({ "ebpf": { "filters": {} } }), "ebpf.filters: unknown field, did you mean filter?")]
#[case(json!({ "ebpf": { "filter": { "out": {} } } }),
    "ebpf.filter.out: unknown field, known are ingress, egress")]
#[case(json!({ "ebpf": { "telemetry": true } }), "ebpf.telemetry: is a boolean, not a string")]
#[case(json!({ "interface": { "mtu": "1500" } }), "interface.mtu: is a string, not an integer")]
#[case(json!({ "interface": { "mtu": 65536 } }), "interface.mtu: 65536 is above 65535")]
#[case(json!({ "interface": { "mtu": 1279, "addresses": ["2001:db8::1/64"] } }),
    "interface.mtu: 1279 is below 1280, as IPv6 (2001:db8::1/64) needs it")]
#[case(json!({ "interface": { "name": "sixteen-letters-" } }),
    "interface.name: \"sixteen-letters-\": an interface name has 1 to 15 bytes, not 16")]
#[case(json!({ "interface": { "name": "eth%d" } }),
    "interface.name: an interface name cannot contain '%': the kernel numbers it")]
#[case(json!({ "interface": { "hardwareAddr": "02:00" } }),
    "interface.hardwareAddr: \"02:00\" is no MAC address such as 02:00:5e:10:00:01")]
#[case(json!({ "interface": { "hardwareAddr": "00:00:00:00:00:00" } }),
    "interface.hardwareAddr: 00:00:00:00:00:00 is no address of an interface")]
#[case(json!({ "ebpf": { "hook": "none", "telemetry": "counters" } }),
    "ebpf.telemetry: counters need a program, but hook is none")]
#[case(json!({ "ebpf": { "hook": "none", "filter": { "egress": {} } } }),
    "ebpf.filter.egress: a filter needs a program, but hook is none")]
fn a_wrong_field_is_named(#[case] fields: Value, #[case] said: &str) {
    assert_eq!(problem_of(fields), said);
}

#[rstest]
#[case("192.0.2.1", "\"192.0.2.1\" is no CIDR such as 192.0.2.0/24 or 2001:db8::/64")]
#[case("192.0.2.1/33", "\"192.0.2.1/33\" has the prefix length 33, above 32")]
#[case("2001:db8::1/129", "\"2001:db8::1/129\" has the prefix length 129, above 128")]
#[case("192.0.2.1/x", "\"192.0.2.1/x\" is no CIDR such as 192.0.2.0/24 or 2001:db8::/64")]
#[case("127.0.0.1/8", "127.0.0.1 is a loopback address")]
#[case("::1/128", "::1 is a loopback address")]
#[case("224.0.0.1/4", "224.0.0.1 is a multicast address")]
#[case("ff02::1/64", "ff02::1 is a multicast address")]
#[case("0.0.0.0/0", "0.0.0.0 is the unspecified address")]
#[case("255.255.255.255/32", "255.255.255.255 is the broadcast address")]
#[case("192.0.2.9/25", "192.0.2.9 is in the list already")]
fn an_address_can_be_had(#[case] address: &str, #[case] said: &str) {
    let problem = problem_of(json!({ "interface": { "addresses": ["192.0.2.9/24", address] } }));
    assert_eq!(problem, format!("interface.addresses[1]: {said}"));
}

#[test]
fn a_claim_status_has_room_for_every_address() {
    let addresses = |count| (1..=count).map(|host| format!("192.0.2.{host}/24")).collect();
    let with = |addresses: Vec<_>| json!({ "interface": { "addresses": addresses } });
    assert!(parse(&[claim(&config(with(addresses(16))))]).is_ok());
    let problem = problem_of(with(addresses(17)));
    assert_eq!(problem, "interface.addresses: 17 addresses are more than 16");
}

#[rstest]
#[case(json!({}), "destination: is required")]
#[case(json!({ "destination": "10.0.0.5/24" }),
    "destination: 10.0.0.5/24 has host bits, its network is 10.0.0.0/24")]
#[case(json!({ "destination": "10.0.0.0/24", "via": "10.1.0.1" }),
    "via: unknown field, known are destination, gateway, source, scope, table, metric, onlink")]
#[case(json!({ "destination": "10.0.0.0/24", "gateway": "router" }),
    "gateway: \"router\" is no IP address")]
#[case(json!({ "destination": "10.0.0.0/24", "gateway": "0.0.0.0" }),
    "gateway: 0.0.0.0 is no address of a single host")]
#[case(json!({ "destination": "10.0.0.0/24", "source": "2001:db8::1" }),
    "source: 2001:db8::1 is IPv6 but the destination 10.0.0.0/24 is IPv4")]
#[case(json!({ "destination": "192.0.2.0/24" }), "destination: 192.0.2.0/24 has a route already")]
fn a_route_can_be_had(#[case] route: Value, #[case] said: &str) {
    let first = json!({ "destination": "192.0.2.0/24" });
    let problem = problem_of(json!({ "routes": [first, route] }));
    assert_eq!(problem, format!("routes[1].{said}"));
}

#[rstest]
#[case(json!({ "telemetry": "flows", "flows": { "entries": 1000 } }),
    "ebpf.flows.entries: 1000 is not a power of two")]
#[case(json!({ "telemetry": "flows", "flows": { "entries": 128 } }),
    "ebpf.flows.entries: 128 is below 256")]
#[case(json!({ "telemetry": "flows", "flows": { "entries": 131_072 } }),
    "ebpf.flows.entries: 131072 is above 65536")]
#[case(json!({ "telemetry": "flows", "flows": { "exportPackets": 0 } }),
    "ebpf.flows.exportPackets: 0 is below 1")]
#[case(json!({ "flows": {} }), "ebpf.flows: go with telemetry: flows only")]
#[case(json!({ "telemetry": "counters", "flows": { "entries": 512 } }),
    "ebpf.flows: go with telemetry: flows only")]
#[case(json!({ "hook": "none", "telemetry": "flows" }),
    "ebpf.telemetry: flows need a program, but hook is none")]
#[case(json!({ "hook": "none", "flows": {} }), "ebpf.flows: go with telemetry: flows only")]
#[case(json!({ "telemetry": "all" }), "ebpf.telemetry: \"all\" is not one of off, counters, flows")]
fn flows_are_kept_where_telemetry_says_so(#[case] ebpf: Value, #[case] said: &str) {
    assert_eq!(problem_of(json!({ "ebpf": ebpf })), said);
}

#[test]
fn flows_are_merged_field_by_field_and_a_claim_may_switch_them_off() {
    let class = config(json!({
        "ebpf": { "telemetry": "flows", "flows": { "entries": 1024, "exportPackets": 3 } },
    }));
    let merged = |ebpf: Value| {
        let claim = config(json!({ "ebpf": ebpf }));
        parse(&[
            Source { origin: Origin::Class, index: 0, parameters: &class },
            Source { origin: Origin::Claim, index: 1, parameters: &claim },
        ])
        .map(|wishes| (wishes.ebpf.telemetry, wishes.ebpf.flows))
        .map_err(|problems| problems.to_string())
    };
    let flows = |entries, export_packets| FlowWishes { entries, export_packets };
    assert_eq!(merged(json!({})), Ok((Telemetry::Flows, flows(1024, 3))));
    let smaller = json!({ "flows": { "entries": 256 } });
    assert_eq!(merged(smaller), Ok((Telemetry::Flows, flows(256, 3))));
    let off = merged(json!({ "telemetry": "counters" }));
    assert_eq!(off.map(|(telemetry, _)| telemetry), Ok(Telemetry::Counters));
    let both = json!({ "telemetry": "off", "flows": { "entries": 256 } });
    let said = "config[1] (claim): ebpf.flows: go with telemetry: flows only";
    assert_eq!(merged(both), Err(said.to_owned()));
}

#[test]
fn a_filter_that_does_not_fit_names_its_rules() {
    // Every other host, so that they cannot be put together.
    let hosts =
        |third: u8| (0..65).map(|n| format!("10.0.{third}.{}/32", n * 2)).collect::<Vec<_>>();
    let rule =
        json!({ "name": "r", "action": "deny", "sources": hosts(0), "destinations": hosts(1) });
    assert_eq!(
        problem_of(json!({ "ebpf": { "filter": { "egress": { "rules": [rule] } } } })),
        "ebpf.filter.egress.rules: expand to more than 4096 entries"
    );
}

#[test]
fn no_hook_means_no_counters() {
    let none = config(json!({ "ebpf": { "hook": "none" } }));
    let wishes = parse(&[claim(&none)]).unwrap().ebpf;
    assert_eq!((wishes.hook, wishes.telemetry), (HookWish::None, Telemetry::Off));
}

/// kubectl reads an unquoted `off` as YAML 1.1 does.
#[test]
fn telemetry_off_needs_no_quotes_in_yaml() {
    for off in [json!("off"), json!(false)] {
        let config = config(json!({ "ebpf": { "telemetry": off } }));
        assert_eq!(parse(&[claim(&config)]).unwrap().ebpf.telemetry, Telemetry::Off);
    }
}

#[test]
fn the_claim_overrides_the_class_field_by_field() {
    let class = config(json!({
        "interface": { "mtu": 1400, "addresses": ["192.0.2.1/24"] },
        "routes": [{ "destination": "0.0.0.0/0", "gateway": "192.0.2.254" }],
        "ebpf": {
            "hook": "tcx",
            "filter": { "ingress": { "defaultAction": "deny" }, "egress": { "defaultAction": "deny" } },
        },
    }));
    let first = config(json!({ "interface": { "mtu": 1500, "name": "b" }, "routes": [] }));
    let second = config(json!({
        "interface": { "name": "b" },
        "ebpf": { "filter": { "ingress": {} } },
    }));
    // The order of the slice says nothing: origin and index do.
    let wishes = parse(&[
        Source { origin: Origin::Claim, index: 4, parameters: &second },
        Source { origin: Origin::Claim, index: 2, parameters: &first },
        Source { origin: Origin::Class, index: 3, parameters: &class },
    ])
    .unwrap();

    assert_eq!(wishes.interface.name.unwrap().as_str(), "b");
    assert_eq!(wishes.interface.mtu, Some(1500));
    assert_eq!(wishes.interface.addresses.unwrap().len(), 1);
    assert_eq!(wishes.routes, []);
    assert_eq!(wishes.ebpf.hook, HookWish::Tcx);
    let filter = wishes.ebpf.filter.unwrap();
    assert_eq!(filter.ingress.unwrap().default_action, DefaultAction::Allow);
    assert_eq!(filter.egress.unwrap().default_action, DefaultAction::Deny);
}

#[test]
fn with_several_sources_a_path_says_which_one_is_wrong() {
    let class = config(json!({ "interface": { "mtu": 40 }, "ebpf": { "hook": "none" } }));
    let claim = config(json!({ "interface": { "mtu": "x" }, "ebpf": { "telemetry": "counters" } }));
    let text = json!("text");
    let problems = parse(&[
        Source { origin: Origin::Class, index: 0, parameters: &class },
        Source { origin: Origin::Claim, index: 1, parameters: &claim },
        Source { origin: Origin::Claim, index: 2, parameters: &text },
    ])
    .unwrap_err();
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "config[0] (class): interface.mtu: 40 is below 68",
            "config[1] (claim): interface.mtu: is a string, not an integer",
            "config[2] (claim): is a string, not an object",
            "config[1] (claim): ebpf.telemetry: counters need a program, but hook is none \
             (ebpf.hook in config[0] of the class)",
        ]
    );
}

/// A wrong value is one problem, not also the cause of others.
#[test]
fn what_is_wrong_itself_has_no_echo() {
    let class = config(json!({ "ebpf": { "hook": "none" } }));
    let claim = config(json!({ "ebpf": { "hook": "xdb", "telemetry": "counters" } }));
    let problems = parse(&[
        Source { origin: Origin::Class, index: 0, parameters: &class },
        Source { origin: Origin::Claim, index: 1, parameters: &claim },
    ]);
    assert_eq!(problems.unwrap_err().iter().count(), 1);
}

const WORDS: &[&str] = &[
    "",
    "-",
    "a",
    "lo",
    "auto",
    "xdp",
    "none",
    "off",
    "counters",
    "flows",
    "deny",
    "allow",
    "count",
    "rateLimit",
    "tcp",
    "icmp",
    "1-2",
    "70000",
    "10.0.0.0/8",
    "10.0.0.1",
    "::/0",
    "2001:db8::1/64",
    "02:00:00:00:00:01",
    "weir.dev/v1alpha1",
    "NetworkConfig",
    "macvlan",
    "vlan",
    "link",
    "all",
    "routes",
    "red",
];

const NAMES: &[&str] = &[
    "apiVersion",
    "kind",
    "interface",
    "routes",
    "ebpf",
    "name",
    "addresses",
    "mtu",
    "hardwareAddr",
    "destination",
    "gateway",
    "source",
    "hook",
    "telemetry",
    "filter",
    "ingress",
    "egress",
    "defaultAction",
    "action",
    "cidrs",
    "sources",
    "destinations",
    "protocol",
    "ports",
    "sourcePorts",
    "stateful",
    "rateLimit",
    "packetsPerSecond",
    "bitsPerSecond",
    "burst",
    "established",
    "icmpTypes",
    "fragment",
    "flows",
    "entries",
    "exportPackets",
    "rules",
    "neighbors",
    "ethtool",
    "subinterface",
    "dhcp",
    "sysctls",
    "net.ipv4.conf.IFNAME.rp_filter",
    "disableEbpfPrograms",
    "vrf",
    "inherit",
    "gsoMaxSize",
    "scope",
    "table",
    "metric",
    "onlink",
    "priority",
    "features",
    "rings",
    "rx",
    "type",
    "mode",
    "vlanId",
    "profile",
];

/// Any JSON, with the names and words of the format in it more often than chance would have them.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(WORDS);
    let name = prop::sample::select(NAMES);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let key = prop_oneof![4 => name.clone().prop_map(str::to_owned), 1 => any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_it_panic(class in any_json(), claim in any_json(), one in any::<bool>()) {
        let class = Source { origin: Origin::Class, index: 0, parameters: &class };
        let claim = Source { origin: Origin::Claim, index: 1, parameters: &claim };
        let parsed = if one { parse(&[claim]) } else { parse(&[class, claim]) };
        if let Err(problems) = parsed {
            prop_assert!(!problems.is_empty());
            prop_assert!(!problems.to_string().contains('\n'), "{}", problems);
        }
    }

    #[test]
    fn no_json_makes_a_policy_panic(filter in any_json()) {
        let policy = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "NodePolicy", "filter": filter,
        });
        if let Err(problems) = parse_policy(&policy) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn a_field_with_any_value_is_read_or_refused_by_name(mtu in any::<i64>()) {
        let config = config(json!({ "interface": { "mtu": mtu } }));
        match parse(&[claim(&config)]) {
            Ok(wishes) => prop_assert_eq!(wishes.interface.mtu.map(i64::from), Some(mtu)),
            Err(problems) => {
                prop_assert!(!(68..=65_535).contains(&mtu));
                prop_assert!(problems.to_string().contains(&mtu.to_string()));
            }
        }
    }
}
