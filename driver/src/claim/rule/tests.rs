use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::model::Rate;

fn read_for(peer: Peer, value: &Value) -> Result<FilterRule, String> {
    let mut problems = Problems::default();
    let spot = Spot { path: "rule".to_owned(), value };
    let rule = read(&spot, peer, &mut HashSet::new(), &mut problems);
    problems.or(()).map_err(|problems| problems.to_string())?;
    Ok(rule.expect("no problem, so there is a rule"))
}

/// A rule with more fields than a name and an action.
fn rule(fields: Value) -> Result<FilterRule, String> {
    let mut rule = json!({ "name": "r", "action": "deny" });
    let Value::Object(fields) = fields else { panic!("{fields} has no fields") };
    rule.as_object_mut().unwrap().extend(fields);
    read_for(Peer::Source, &rule)
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn every_field_arrives_where_it_belongs() {
    let web = rule(json!({
        "name": "web", "action": "rateLimit",
        "rateLimit": { "packetsPerSecond": 1000, "burst": 50 },
        "sources": ["192.0.2.0/24", "2001:db8::/32"], "destinations": ["198.51.100.7/32"],
        "protocol": "tcp", "ports": [443, "80", "8000-8080"], "sourcePorts": ["1024-65535"],
        "established": true, "fragment": false,
    }))
    .unwrap();
    let limit = RateLimit { rate: Rate::PacketsPerSecond(1000), burst: 50 };
    assert_eq!((web.name.as_str(), web.action), ("web", Action::RateLimit(limit)));
    assert_eq!(web.sources, networks(&["192.0.2.0/24", "2001:db8::/32"]));
    assert_eq!(web.destinations, networks(&["198.51.100.7/32"]));
    let ports: Vec<_> = web.destination_ports.iter().map(|port| (port.first, port.last)).collect();
    assert_eq!(ports, [(443, 443), (80, 80), (8000, 8080)]);
    assert_eq!((web.source_ports[0].first, web.source_ports[0].last), (1024, 65535));
    assert_eq!((web.protocol, web.established), (Some(Protocol::Tcp), true));
    assert_eq!((web.fragment, web.origin), (Some(false), Origin::Claim));

    let ping = rule(json!({ "action": "count", "protocol": "icmp", "icmpTypes": [8, 0] })).unwrap();
    assert_eq!((ping.action, ping.icmp_types), (Action::Count, vec![8, 0]));
    assert_eq!((ping.fragment, ping.established), (None, false));
    assert!(ping.sources.is_empty() && ping.destination_ports.is_empty());
}

#[test]
fn cidrs_are_of_the_peer() {
    let value = json!({ "name": "r", "action": "deny", "cidrs": ["192.0.2.0/24"] });
    let of = |peer| read_for(peer, &value).map(|rule| (rule.sources, rule.destinations));
    let peer = networks(&["192.0.2.0/24"]);
    assert_eq!(of(Peer::Source), Ok((peer.clone(), Vec::new())));
    assert_eq!(of(Peer::Destination), Ok((Vec::new(), peer)));

    let both = |field: &str| {
        let mut value = value.clone();
        value[field] = json!(["198.51.100.0/24"]);
        [Peer::Source, Peer::Destination].map(|peer| read_for(peer, &value).map(drop))
    };
    let said = |field| {
        Err(format!("rule.cidrs: are the {field} in this direction, which are given as well"))
    };
    assert_eq!(both("sources"), [said("sources"), Ok(())]);
    assert_eq!(both("destinations"), [Ok(()), said("destinations")]);
}

#[rstest]
#[case("ports", json!([70000]), "ports[0]: 70000 is not a port (1 to 65535)")]
#[case("ports", json!([1, 0]), "ports[1]: 0 is not a port (1 to 65535)")]
#[case("ports", json!([-1]), "ports[0]: -1 is not a port (1 to 65535)")]
#[case("ports", json!([1.5]), "ports[0]: 1.5 is not a port (1 to 65535)")]
#[case("ports", json!(["http"]), "ports[0]: \"http\" is not a port (1 to 65535)")]
#[case("ports", json!(["+80"]), "ports[0]: \"+80\" is not a port (1 to 65535)")]
#[case("ports", json!(["80-"]), "ports[0]: \"\" is not a port (1 to 65535)")]
#[case("ports", json!(["1-2-3"]), "ports[0]: \"2-3\" is not a port (1 to 65535)")]
#[case("ports", json!(["90-80"]), "ports[0]: 90 is above 80")]
#[case("sourcePorts", json!(["9-8"]), "sourcePorts[0]: 9 is above 8")]
#[case("ports", json!([true]), "ports[0]: is a boolean, not a port or a range of ports")]
#[case("ports", json!(80), "ports: is a number, not a list")]
#[case("ports", json!([]), "ports: is empty, leave it out to match any port")]
#[case("ports", json!(vec![1; 4097]), "ports: 4097 items are more than 4096")]
#[case("cidrs", json!([]), "cidrs: is empty, leave it out to match any address")]
#[case("cidrs", json!(["10.0.0.1"]),
    "cidrs[0]: \"10.0.0.1\" is no CIDR such as 192.0.2.0/24 or 2001:db8::/64")]
#[case("cidrs", json!(["10.0.0.0/33"]),
    "cidrs[0]: \"10.0.0.0/33\" has the prefix length 33, above 32")]
#[case("destinations", json!(["2001:db8::/32", "2001:db8::/129"]),
    "destinations[1]: \"2001:db8::/129\" has the prefix length 129, above 128")]
#[case("cidrs", json!(["10.0.0.1/8"]),
    "cidrs[0]: 10.0.0.1/8 has host bits, its network is 10.0.0.0/8")]
#[case("protocol", json!("gre"), "protocol: \"gre\" is not one of tcp, udp, sctp, icmp, icmpv6")]
#[case("action", json!("drop"),
    "action: \"drop\" is not one of allow, deny, rateLimit, count")]
#[case("action", json!(null), "action: is required")]
#[case("action", json!("rateLimit"), "rateLimit: is required with action rateLimit")]
#[case("rateLimit", json!({ "packetsPerSecond": 1 }), "rateLimit: goes with action rateLimit only")]
#[case("rateLimit", json!({ "packetsPerSecond": 0 }),
    "rateLimit.packetsPerSecond: 0 is below 1")]
#[case("name", json!(null), "name: is required")]
#[case("name", json!("Web"),
    "name: \"Web\" is not 1 to 63 of a-z, 0-9 and `-`, with neither end a `-`")]
#[case("port", json!([80]), "port: unknown field, did you mean ports?")]
#[case("established", json!(false), "established: can only be true, leave it out to match any segment")]
#[case("established", json!("yes"), "established: is a string, not a boolean")]
#[case("fragment", json!(1), "fragment: is a number, not a boolean")]
fn a_wrong_field_is_named(#[case] field: &str, #[case] value: Value, #[case] said: &str) {
    let mut fields = json!({ "protocol": "tcp" });
    fields[field] = value;
    assert_eq!(rule(fields), Err(format!("rule.{said}")));
}

#[rstest]
#[case("ports", json!([1]), &["tcp", "udp", "sctp"],
    "need a protocol: tcp, udp or sctp", "only tcp, udp and sctp have ports")]
#[case("sourcePorts", json!([1]), &["tcp", "udp", "sctp"],
    "need a protocol: tcp, udp or sctp", "only tcp, udp and sctp have ports")]
#[case("established", json!(true), &["tcp"], "needs a protocol: tcp", "only tcp has connections")]
#[case("icmpTypes", json!([8]), &["icmp", "icmpv6"],
    "need a protocol: icmp or icmpv6", "only icmp and icmpv6 have types")]
fn a_criterion_goes_with_its_protocols(
    #[case] field: &str,
    #[case] value: Value,
    #[case] protocols: &[&str],
    #[case] without: &str,
    #[case] with_other: &str,
) {
    let with = |protocol: Value| {
        let mut fields = json!({ "protocol": protocol });
        fields[field] = value.clone();
        rule(fields).map(drop)
    };
    assert_eq!(with(json!(null)), Err(format!("rule.{field}: {without}")));
    for (protocol, _) in PROTOCOLS {
        let expected = if protocols.contains(&protocol) {
            Ok(())
        } else {
            Err(format!("rule.{field}: {with_other}"))
        };
        assert_eq!(with(json!(protocol)), expected, "{protocol}");
    }
    // A wrong protocol is one problem, not two.
    let said = with(json!("gre")).unwrap_err();
    assert!(!said.contains(field), "{said}");
}

#[rstest]
#[case(json!({ "protocol": "icmp", "cidrs": ["10.0.0.0/8", "2001:db8::/32"] }),
    "rule.cidrs[1]: 2001:db8::/32 is IPv6, the protocol is one of IPv4")]
#[case(json!({ "protocol": "icmpv6", "destinations": ["10.0.0.0/8"] }),
    "rule.destinations[0]: 10.0.0.0/8 is IPv4, the protocol is one of IPv6")]
#[case(json!({ "cidrs": ["10.0.0.0/8"], "destinations": ["2001:db8::/32"] }),
    "rule.destinations: share no IP version with the sources, so nothing matches")]
fn networks_that_never_match_are_refused(#[case] fields: Value, #[case] said: &str) {
    assert_eq!(rule(fields), Err(said.to_owned()));
}

#[test]
fn an_icmp_type_is_one_byte() {
    let with = |kind: Value| rule(json!({ "protocol": "icmpv6", "icmpTypes": [kind] })).map(drop);
    assert_eq!(with(json!(255)), Ok(()));
    assert_eq!(with(json!(256)), Err("rule.icmpTypes[0]: 256 is above 255".to_owned()));
    assert_eq!(with(json!(-1)), Err("rule.icmpTypes[0]: -1 is below 0".to_owned()));
}

#[test]
fn all_problems_of_a_rule_come_at_once() {
    let said = rule(json!({
        "name": "R", "action": "x", "protocol": "udp", "established": true, "sourcePorts": [0],
    }));
    let said = said.unwrap_err();
    let problems: Vec<_> = said.split("; ").collect();
    assert_eq!(problems.len(), 4, "{said}");
}
