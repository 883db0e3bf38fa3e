//! The compiler.

use std::collections::HashSet;
use std::net::IpAddr;

use common::{Action, Address, Criteria, Family, MAX_RULES, Rule, Ruleset};
use ipnet::IpNet;

use super::{Compiled, CompiledRules};
use crate::model::{self, DirectionFilter, Filter, FilterRule, PortRange, Problems};

/// Compiles both directions.
///
/// # Errors
///
/// All that is wrong, with paths from the filter on, such as `ingress.rules[3].ports[0]`: criteria
/// that cannot be met together, rules of one name, more entries than fit.
pub fn compile(filter: &Filter) -> Result<Compiled, Problems> {
    let mut problems = Problems::default();
    let mut direction = |name, filter: &Option<DirectionFilter>| {
        let mut found = Problems::default();
        let rules = filter.as_ref().map(|filter| direction(filter, &mut found));
        problems.extend_below(name, found);
        rules
    };
    let compiled = Compiled {
        ingress: direction("ingress", &filter.ingress),
        egress: direction("egress", &filter.egress),
    };
    problems.or(compiled)
}

fn direction(filter: &DirectionFilter, problems: &mut Problems) -> CompiledRules {
    let mut ruleset = Box::new(Ruleset::with_default(action(filter.default_action)));
    let mut origins = Vec::new();
    let mut names = HashSet::new();
    for (index, rule) in filter.rules.iter().enumerate() {
        if !names.insert(rule.name.as_str()) {
            problems.add(
                format!("rules[{index}].name"),
                format_args!("{:?} is the name of an earlier rule", rule.name),
            );
        }
        let mut found = Problems::default();
        for criteria in entries(rule, &mut found) {
            if let Some(entry) = Rule::new(action(rule.action), &criteria) {
                ruleset.push(entry);
                origins.push(index);
            }
        }
        problems.extend_below(&format!("rules[{index}]"), found);
    }
    if origins.len() > MAX_RULES {
        problems.add(
            "rules",
            format_args!("expand to {} entries, at most {MAX_RULES} fit", origins.len()),
        );
    }
    CompiledRules { ruleset, origins }
}

/// The entries of one rule. Where something is wrong with it, some are missing.
fn entries(rule: &FilterRule, problems: &mut Problems) -> Vec<Criteria> {
    let protocol = rule.protocol.map(protocol);
    if !rule.ports.is_empty() && !protocol.is_some_and(common::Protocol::has_ports) {
        let named = protocol.map_or("no protocol".to_owned(), |p| format!("protocol {}", p.name()));
        problems.add("ports", format_args!("need protocol tcp, udp or sctp, the rule has {named}"));
    }
    for (index, PortRange { first, last }) in rule.ports.iter().enumerate() {
        if first > last {
            problems.add(
                format!("ports[{index}]"),
                format_args!("{first}-{last} ends before it begins"),
            );
        }
    }
    // ICMP is one protocol in IPv4 and another in IPv6.
    let only = match rule.protocol {
        Some(model::Protocol::Icmp) => Some(Family::V4),
        Some(model::Protocol::Icmpv6) => Some(Family::V6),
        _ => None,
    };
    let mut networks = Vec::new();
    for (index, cidr) in rule.cidrs.iter().enumerate() {
        let family = family(cidr);
        if only.is_some_and(|only| only != family) {
            let named = protocol.map_or("the protocol", common::Protocol::name);
            problems.add(
                format!("cidrs[{index}]"),
                format_args!("{cidr} never matches: there is no {named} in {}", family.name()),
            );
        }
        networks.push((Some(family), Some(network(cidr))));
    }
    if networks.is_empty() {
        networks.push((only, None));
    }
    let mut ports: Vec<_> =
        rule.ports.iter().map(|range| Some((range.first, range.last))).collect();
    if ports.is_empty() {
        ports.push(None);
    }
    let with_ports = |&(family, network)| {
        ports.iter().map(move |&ports| Criteria { family, network, protocol, ports })
    };
    networks.iter().flat_map(with_ports).collect()
}

fn family(cidr: &IpNet) -> Family {
    match cidr {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

/// Network and mask.
fn network(cidr: &IpNet) -> (Address, Address) {
    (address(cidr.network()), address(cidr.netmask()))
}

fn address(address: IpAddr) -> Address {
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(address) => octets[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => octets = address.octets(),
    }
    Address::from_octets(octets)
}

fn action(action: model::Action) -> Action {
    match action {
        model::Action::Allow => Action::Allow,
        model::Action::Deny => Action::Deny,
    }
}

fn protocol(protocol: model::Protocol) -> common::Protocol {
    match protocol {
        model::Protocol::Tcp => common::Protocol::Tcp,
        model::Protocol::Udp => common::Protocol::Udp,
        model::Protocol::Sctp => common::Protocol::Sctp,
        model::Protocol::Icmp => common::Protocol::Icmp,
        model::Protocol::Icmpv6 => common::Protocol::Icmpv6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, cidrs: &[&str], protocol: Option<model::Protocol>) -> FilterRule {
        FilterRule {
            name: name.to_owned(),
            action: model::Action::Allow,
            cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            protocol,
            ports: Vec::new(),
        }
    }

    fn ports(ranges: &[(u16, u16)]) -> Vec<PortRange> {
        ranges.iter().map(|&(first, last)| PortRange { first, last }).collect()
    }

    fn ingress(rules: Vec<FilterRule>) -> Filter {
        let default_action = model::Action::Deny;
        Filter { ingress: Some(DirectionFilter { default_action, rules }), egress: None }
    }

    fn problems(rules: Vec<FilterRule>) -> Vec<String> {
        let problems = compile(&ingress(rules)).unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_rule_becomes_an_entry_for_each_network_and_port_range() {
        let web = FilterRule {
            ports: ports(&[(80, 80), (8000, 8999)]),
            ..rule("web", &["10.1.2.3/8", "2001:db8::1/32"], Some(model::Protocol::Tcp))
        };
        let compiled = compile(&ingress(vec![rule("any", &[], None), web])).unwrap();

        let CompiledRules { ruleset, origins } = compiled.ingress.unwrap();
        assert_eq!(origins, [0, 1, 1, 1, 1]);
        assert_eq!((ruleset.length, ruleset.default_action), (5, Action::Deny as u32));
        let network = |index: usize| {
            ruleset.rules[index].address.map(u64::to_ne_bytes).concat()[..4].to_vec()
        };
        assert_eq!(network(1), [10, 0, 0, 0], "host bits do not count");
        assert_eq!(network(3), [0x20, 0x01, 0x0d, 0xb8]);
        let range =
            |index: usize| (ruleset.rules[index].first_port, ruleset.rules[index].last_port);
        assert_eq!((range(0), range(1), range(2)), ((0, u16::MAX), (80, 80), (8000, 8999)));
        assert_eq!(compiled.egress, None);
    }

    #[test]
    fn criteria_that_cannot_be_met_together_are_refused() {
        let portless = FilterRule {
            ports: ports(&[(1, 2)]),
            ..rule("a", &["::/0", "10.0.0.0/8"], Some(model::Protocol::Icmp))
        };
        let anything = FilterRule { ports: ports(&[(1, 2)]), ..rule("b", &[], None) };
        let reversed =
            FilterRule { ports: ports(&[(9, 8)]), ..rule("b", &[], Some(model::Protocol::Udp)) };

        assert_eq!(
            problems(vec![portless, anything, reversed]),
            [
                "ingress.rules[0].ports: need protocol tcp, udp or sctp, the rule has protocol icmp",
                "ingress.rules[0].cidrs[0]: ::/0 never matches: there is no icmp in ipv6",
                "ingress.rules[1].ports: need protocol tcp, udp or sctp, the rule has no protocol",
                "ingress.rules[2].name: \"b\" is the name of an earlier rule",
                "ingress.rules[2].ports[0]: 9-8 ends before it begins",
            ]
        );
    }

    #[test]
    fn sixty_four_entries_fit_and_one_more_does_not() {
        let cidrs = |count: usize| -> Vec<IpNet> {
            (0..count).map(|n| format!("10.0.{n}.0/24").parse().unwrap()).collect()
        };
        let many = |count| FilterRule { cidrs: cidrs(count), ..rule("many", &[], None) };

        assert_eq!(compile(&ingress(vec![many(64)])).unwrap().ingress.unwrap().origins.len(), 64);
        assert_eq!(
            problems(vec![many(35), FilterRule { name: "more".into(), ..many(35) }]),
            ["ingress.rules: expand to 70 entries, at most 64 fit"]
        );
    }
}
