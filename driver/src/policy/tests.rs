use common::{Direction, NARROW, judge, parse};
use proptest::prelude::*;
use proptest::sample::select;

use super::compile::compile_to;
use super::*;
use crate::model::{Action, DefaultAction, DirectionFilter, Filter, FilterRule, PortRange, Protocol};
use crate::testing::rule;

fn ingress(default_action: DefaultAction, rules: Vec<FilterRule>) -> Filter {
    Filter {
        ingress: Some(DirectionFilter { default_action, stateful: false, rules }),
        egress: None,
    }
}

fn udp(source: u8, port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, source, 10, 0, 1, 1]);
    frame.extend([0x30, 0x39]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 8, 0, 0]);
    frame
}

/// Whether the packet passes, and the rules that it hits.
fn judged(compiled: &Compiled, frame: &[u8]) -> (bool, Vec<u32>) {
    let packet = parse(&frame);
    let addresses = packet.addresses(&frame).unwrap_or_default();
    let mut ground = MemoryGround::new(compiled, Direction::Ingress);
    let used = ground.of().used;
    let decision = judge(&packet, &addresses, Direction::Ingress, used, &mut ground);
    (decision.passes, ground.hits)
}

fn problems(rules: Vec<FilterRule>) -> Vec<String> {
    let problems = compile(&ingress(DefaultAction::Deny, rules), 250).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_first_rule_that_decides_wins_and_counting_ones_go_on() {
    let count = FilterRule { sources: vec!["10.0.0.0/24".parse().unwrap()], ..rule("c", Action::Count) };
    let one = FilterRule {
        sources: vec!["10.0.0.7/32".parse().unwrap()],
        protocol: Some(Protocol::Udp),
        destination_ports: vec![PortRange { first: 53, last: 300 }],
        ..rule("one", Action::Allow)
    };
    let late = FilterRule { protocol: Some(Protocol::Udp), ..rule("late", Action::Deny) };
    let filter = ingress(DefaultAction::Allow, vec![count, one, late]);
    for narrow in [NARROW, 0] {
        let compiled = compile_to(&filter, 250, narrow).unwrap();
        assert_eq!(judged(&compiled, &udp(7, 53)), (true, vec![0, 1]));
        assert_eq!(judged(&compiled, &udp(7, 300)), (true, vec![0, 1]));
        assert_eq!(judged(&compiled, &udp(7, 301)), (false, vec![0, 2]));
        assert_eq!(judged(&compiled, &udp(8, 53)), (false, vec![0, 2]));
    }
}

#[test]
fn a_rule_becomes_an_entry_for_each_pair_of_networks() {
    let pair = FilterRule {
        sources: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        destinations: vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
        ..rule("pair", Action::Deny)
    };
    let compiled = compile(&ingress(DefaultAction::Allow, vec![pair]), 250).unwrap();
    assert_eq!(compiled.ingress.entries, 2, "no packet has one of each version");
}

#[test]
fn criteria_that_cannot_be_met_together_are_refused() {
    let portless = FilterRule {
        sources: vec!["::/0".parse().unwrap()],
        protocol: Some(Protocol::Icmp),
        destination_ports: vec![PortRange { first: 1, last: 2 }],
        ..rule("a", Action::Allow)
    };
    let reversed = FilterRule {
        protocol: Some(Protocol::Udp),
        source_ports: vec![PortRange { first: 9, last: 8 }],
        established: true,
        icmp_types: vec![8],
        ..rule("a", Action::Allow)
    };
    assert_eq!(
        problems(vec![portless, reversed]),
        [
            "ingress.rules[0].ports: need protocol tcp, udp or sctp, the rule has protocol icmp",
            "ingress.rules[0].sources[0]: ::/0 never matches: there is no icmp in ipv6",
            "ingress.rules[1].name: \"a\" is the name of an earlier rule",
            "ingress.rules[1].sourcePorts[0]: 9-8 ends before it begins",
            "ingress.rules[1].established: needs protocol tcp, the rule has protocol udp",
            "ingress.rules[1].icmpTypes: need protocol icmp or icmpv6, the rule has protocol udp",
        ]
    );
}

#[test]
fn four_thousand_and_ninety_six_rules_fit_and_one_more_does_not() {
    let many = |count: u16| -> Vec<FilterRule> {
        (0..count)
            .map(|n| FilterRule {
                sources: vec![format!("10.{}.{}.0/24", n >> 8, n & 0xff).parse().unwrap()],
                ..rule(&n.to_string(), Action::Deny)
            })
            .collect()
    };
    let compiled = compile(&ingress(DefaultAction::Allow, many(4096)), 250).unwrap();
    assert!(compiled.ingress.used.has(Used::WIDE) && compiled.ingress.ruleset.is_none());
    assert_eq!(judged(&compiled, &udp(1, 1)), (false, vec![0]));
    assert_eq!(problems(many(4097)), ["ingress.rules: are 4097, at most 4096 fit"]);
}

#[test]
fn a_limit_is_time_for_each_packet() {
    let limited = |rate, burst| {
        let limit = Action::RateLimit(crate::model::RateLimit { rate, burst });
        let filter = ingress(DefaultAction::Allow, vec![rule("slow", limit)]);
        compile(&filter, 250).unwrap().ingress.rules[0].limit
    };
    let packets = limited(crate::model::Rate::PacketsPerSecond(1000), 9);
    assert_eq!((packets.cost, packets.burst), (common::JIFFY / 4, 8 * (common::JIFFY / 4)));
    let bits = limited(crate::model::Rate::BitsPerSecond(8_000_000), 80_000);
    assert_eq!((bits.cost, bits.counts_bytes), (250 * common::JIFFY / 1_000_000, 1));
    assert_eq!(bits.burst, bits.cost * 10_000);
}

fn some_rule() -> impl Strategy<Value = FilterRule> {
    let action = select([Action::Allow, Action::Deny, Action::Count].as_slice());
    let network = prop_oneof![
        Just(Vec::new()),
        (0..4_u8, 0..=32_u8).prop_map(|(host, len)| {
            vec![ipnet::Ipv4Net::new([10, 0, 0, host].into(), len).unwrap().trunc().into()]
        }),
    ];
    let ports = prop_oneof![
        Just(Vec::new()),
        (0..4_u16, 0..300_u16).prop_map(|(first, more)| vec![PortRange {
            first: first * 200,
            last: first * 200 + more
        }])
    ];
    (action, network, ports).prop_map(|(action, sources, destination_ports)| FilterRule {
        sources,
        protocol: (!destination_ports.is_empty()).then_some(Protocol::Udp),
        destination_ports,
        ..rule("", action)
    })
}

proptest! {
    #[test]
    fn both_forms_decide_alike(
        rules in prop::collection::vec(some_rule(), 0..64),
        packets in prop::collection::vec((0..5_u8, 0..1000_u16), 50),
    ) {
        let named = rules.into_iter().enumerate();
        let rules = named.map(|(n, rule)| FilterRule { name: n.to_string(), ..rule }).collect();
        let filter = ingress(DefaultAction::Deny, rules);
        let (narrow, wide) =
            (compile_to(&filter, 250, NARROW).unwrap(), compile_to(&filter, 250, 0).unwrap());
        for (source, port) in packets {
            let frame = udp(source, port);
            prop_assert_eq!(judged(&narrow, &frame), judged(&wide, &frame));
        }
    }
}
