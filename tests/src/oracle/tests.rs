//! The oracle on packets whose fate is plain to see.

use std::net::Ipv6Addr;

use common::{Direction, Protocol, Verdict};
use driver::model::{
    self, Action, DefaultAction, DirectionFilter, Filter, FilterRule, PortRange, Rate, RateLimit,
};
use driver::testing;
use etherparse::{PacketBuilder, PacketBuilderStep, VlanId};

use super::{Answer, Memory, Quiet, answer};

fn ethernet() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2; 6], [4; 6])
}

fn to_port_80() -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(4660, 80);
    builder.write(&mut frame, b"data").unwrap();
    frame
}

fn udp_rule(action: Action, sources: &[&str], port: u16) -> FilterRule {
    FilterRule {
        sources: sources.iter().map(|network| network.parse().unwrap()).collect(),
        protocol: Some(model::Protocol::Udp),
        destination_ports: vec![PortRange { first: port, last: port }],
        ..testing::rule("rule", action)
    }
}

fn ask(frame: &[u8], default_action: DefaultAction, rules: &[FilterRule]) -> Answer {
    let direction = DirectionFilter { default_action, stateful: false, rules: rules.to_vec() };
    let filter = Filter { ingress: Some(direction), egress: None };
    answer(frame, Some(&filter), Direction::Ingress, &mut Quiet)
}

#[test]
fn the_first_rule_that_decides_does() {
    let rules = [
        udp_rule(Action::Count, &[], 80),
        udp_rule(Action::Allow, &["10.0.0.0/24"], 81),
        udp_rule(Action::Allow, &["10.0.0.0/24", "fd00::/8"], 80),
        udp_rule(Action::Deny, &[], 80),
    ];
    let answer = ask(&to_port_80(), DefaultAction::Deny, &rules);
    assert_eq!((answer.passes, answer.verdict), (true, Verdict::Allowed));
    assert_eq!((answer.hits, answer.protocol), (vec![0, 2], Protocol::Udp));
}

#[test]
fn what_is_cut_off_is_denied_where_it_may_be_meant() {
    // The IP header says more than there is, so nothing is known, not even the addresses.
    let frame = &to_port_80()[..40];
    for (rule, default_action, hits) in [
        (udp_rule(Action::Deny, &["10.9.0.0/16"], 80), DefaultAction::Allow, vec![0]),
        (udp_rule(Action::Allow, &[], 80), DefaultAction::Deny, vec![]),
    ] {
        let answer = ask(frame, default_action, &[rule]);
        assert_eq!((answer.passes, answer.verdict), (false, Verdict::Malformed));
        assert_eq!((answer.hits, answer.protocol), (hits, Protocol::OtherIp));
    }
}

#[test]
fn tags_are_skipped_up_to_two() {
    let deny = [udp_rule(Action::Deny, &["fd00::/64"], 80)];
    let inner = ethernet().double_vlan(VlanId::ZERO, VlanId::ZERO);
    let [source, destination] = [1, 2].map(|host| Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]));
    let mut frame = Vec::new();
    let builder = inner.ipv6(source.octets(), destination.octets(), 64).udp(1, 80);
    builder.write(&mut frame, &[]).unwrap();

    let two = ask(&frame, DefaultAction::Allow, &deny);
    frame.splice(12..12, [0x81, 0, 0, 1]);
    let three = ask(&frame, DefaultAction::Allow, &deny);

    assert!(two.tagged && !two.passes && two.protocol == Protocol::Udp);
    assert!(three.tagged && !three.passes && three.protocol == Protocol::NotIp);
}

#[test]
fn a_later_fragment_has_no_ports() {
    let mut frame = to_port_80();
    frame[21] = 1;
    let deny = udp_rule(Action::Deny, &[], 80);
    let any_udp = FilterRule { destination_ports: Vec::new(), ..deny.clone() };

    let by_port = ask(&frame, DefaultAction::Allow, &[deny]);
    let by_protocol = ask(&frame, DefaultAction::Allow, &[any_udp]);

    assert!(by_port.passes && by_port.fragment);
    assert!(!by_protocol.passes && by_protocol.verdict == Verdict::DeniedByRule);
}

#[test]
fn what_the_interface_lives_on_passes() {
    let solicitation = |hop_limit| {
        let [source, destination] =
            [1, 2].map(|host| Ipv6Addr::from([0xfe80, 0, 0, 0, 0, 0, 0, host]).octets());
        let mut frame = Vec::new();
        let builder = ethernet().ipv6(source, destination, hop_limit);
        builder.icmpv6_raw(135, 0, [0; 4]).write(&mut frame, &[0; 16]).unwrap();
        frame
    };
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    let deny = [testing::rule("all", Action::Deny)];
    let passes = |frame: &[u8]| ask(frame, DefaultAction::Deny, &deny).passes;
    assert!(passes(&solicitation(255)) && !passes(&solicitation(254)) && passes(&arp));
}

#[test]
fn numbers_of_the_other_family_are_no_icmp() {
    let mut frame = to_port_80();
    frame[23] = 58;
    let deny = FilterRule {
        protocol: Some(model::Protocol::Icmpv6),
        ..testing::rule("echo", Action::Deny)
    };
    let answer = ask(&frame, DefaultAction::Allow, &[deny]);
    assert!(answer.passes && answer.protocol == Protocol::OtherIp);
}

/// 10.0.0.1:4660 to 10.0.0.2:80, or back.
fn segment(is_back: bool, syn: bool, ack: bool) -> Vec<u8> {
    let (from, to) =
        if is_back { ([10, 0, 0, 2], [10, 0, 0, 1]) } else { ([10, 0, 0, 1], [10, 0, 0, 2]) };
    let (source, destination) = if is_back { (80, 4660) } else { (4660, 80) };
    let mut builder = ethernet().ipv4(from, to, 64).tcp(source, destination, 1, 100);
    builder = if syn { builder.syn() } else { builder };
    builder = if ack { builder.ack(1) } else { builder };
    let mut frame = Vec::new();
    builder.write(&mut frame, &[]).unwrap();
    frame
}

#[test]
fn what_was_let_through_may_be_answered() {
    let deny = |stateful| DirectionFilter {
        default_action: DefaultAction::Deny,
        stateful,
        rules: Vec::new(),
    };
    let filter = Filter {
        ingress: Some(deny(true)),
        egress: Some(DirectionFilter { default_action: DefaultAction::Allow, ..deny(false) }),
    };
    let mut memory = Memory::default();
    let mut passes = |frame: &[u8], direction| memory.answer(frame, &filter, direction).passes;
    let answer = segment(true, true, true);

    assert!(!passes(&answer, Direction::Ingress));
    assert!(passes(&answer, Direction::Egress));
    assert!(!passes(&segment(false, false, true), Direction::Ingress), "that was itself an answer");
    assert!(passes(&segment(false, true, false), Direction::Egress));
    assert!(passes(&answer, Direction::Ingress));
    assert!(!passes(&segment(false, true, false), Direction::Ingress));
}

#[test]
fn a_rate_is_paid_for_behind_the_packet() {
    let limit = RateLimit { rate: Rate::BitsPerSecond(1), burst: 8 * 60 };
    let limited = udp_rule(Action::RateLimit(limit), &[], 80);
    let direction = DirectionFilter {
        default_action: DefaultAction::Allow,
        stateful: false,
        rules: vec![limited],
    };
    let filter = Filter { ingress: Some(direction), egress: None };
    let mut memory = Memory::default();
    let frame = to_port_80();
    let verdicts = [0; 4].map(|_| memory.answer(&frame, &filter, Direction::Ingress).verdict);
    let (yes, no) = (Verdict::Allowed, Verdict::DeniedByRate);
    assert_eq!((frame.len(), verdicts), (46, [yes, yes, no, no]));
}
