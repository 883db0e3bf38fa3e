use std::vec::Vec;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::testing::frames;
use crate::{Direction, Family, Protocol, Reach, parse};

/// What can be said of a criterion about a packet that was not read in full.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Truth {
    No,
    Maybe,
    Yes,
}

impl From<bool> for Truth {
    fn from(is_true: bool) -> Self {
        if is_true { Self::Yes } else { Self::No }
    }
}

/// A rule as a person would read it.
fn matches(criteria: &Criteria, packet: &Packet, peer: Option<Address>) -> Truth {
    let known = |reach: Reach, is_true: bool| {
        if packet.reach() < reach { Truth::Maybe } else { Truth::from(is_true) }
    };
    let family = criteria
        .family
        .map_or(Truth::Yes, |family| known(Reach::Addresses, packet.family() == Some(family)));
    let network = criteria.network.map_or(Truth::Yes, |(network, mask)| {
        let octets = |address: Address| address.0.map(u64::to_ne_bytes).concat();
        let is_inside = peer.is_some_and(|peer| {
            let (peer, network, mask) = (octets(peer), octets(network), octets(mask));
            (0..16).all(|n| peer[n] & mask[n] == network[n] & mask[n])
        });
        known(Reach::Addresses, is_inside)
    });
    let protocol = criteria
        .protocol
        .map_or(Truth::Yes, |protocol| known(Reach::Protocol, packet.protocol() == protocol));
    let ports = criteria.ports.map_or(Truth::Yes, |(first, last)| {
        let is_inside = packet.ports().is_some_and(|(_, port)| (first..=last).contains(&port));
        known(Reach::Whole, is_inside)
    });
    family.min(network).min(protocol).min(ports)
}

/// The filter as a person would apply it: slowly, rule by rule.
fn interpret(
    packet: &Packet,
    peer: Option<Address>,
    rules: &[(Action, Criteria)],
    default: Action,
) -> Decision {
    let malformed_or = |verdict| {
        if packet.is_malformed() { Verdict::Malformed } else { verdict }
    };
    let is_foreign = packet.family().is_none() && packet.reach() == Reach::Whole;
    let found = rules.iter().find(|(action, criteria)| match matches(criteria, packet, peer) {
        Truth::Yes => true,
        Truth::Maybe => *action == Action::Deny,
        Truth::No => false,
    });
    let (action, denied) = match found {
        _ if is_foreign || packet.is_neighbour_discovery() => {
            (Action::Allow, Verdict::DeniedByDefault)
        }
        Some((action, _)) => (*action, Verdict::DeniedByRule),
        None => (default, Verdict::DeniedByDefault),
    };
    let verdict = match action {
        Action::Allow => malformed_or(Verdict::Allowed),
        Action::Deny => malformed_or(denied),
    };
    Decision { action, verdict }
}

fn action() -> impl Strategy<Value = Action> {
    select(Action::ALL.as_slice())
}

fn criteria() -> impl Strategy<Value = Criteria> {
    let family = prop::option::of(select(Family::ALL.as_slice()));
    let prefix = prop::option::of(select([0_u32, 8, 25, 31, 64, 127, 128].as_slice()));
    let host = select([1_u8, 2, 129, 200].as_slice());
    let protocols =
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp, Protocol::Icmpv6];
    let protocol = prop::option::of(select(protocols.to_vec()));
    let ports = prop::option::of((select([0_u16, 22, 80].as_slice()), 0..400_u16));
    (family, prefix, host, protocol, ports).prop_map(|(family, prefix, host, protocol, ports)| {
        let network = family.zip(prefix).map(|(family, prefix)| network(family, prefix, host));
        let has_ports = protocol.is_some_and(Protocol::has_ports);
        let ports = ports.filter(|_| has_ports).map(|(first, more)| (first, first + more));
        Criteria { family, network, protocol, ports }
    })
}

fn network(family: Family, prefix: u32, host: u8) -> (Address, Address) {
    let mut octets = [0; 16];
    let prefix = match family {
        Family::V4 => {
            octets[..4].copy_from_slice(&[10, 0, 0, host]);
            prefix.min(32)
        }
        Family::V6 => {
            octets[..8].copy_from_slice(&[0xfd; 8]);
            octets[15] = host;
            prefix
        }
    };
    let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    (Address::from_octets(octets), Address::from_octets(mask.to_be_bytes()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn judging_agrees_with_reading_the_rules_one_by_one(
        frame in frames(),
        rules in prop::collection::vec((action(), criteria()), 0..12),
        default in action(),
        direction in select(Direction::ALL.as_slice()),
    ) {
        let frame = frame.as_slice();
        let packet = parse(&frame);
        let peer = packet.peer(&frame, direction);
        let mut ruleset = Ruleset::with_default(default);
        for (action, criteria) in &rules {
            prop_assert!(ruleset.push(Rule::new(*action, criteria).unwrap()));
        }

        let decision = judge(&packet, peer, &ruleset);

        prop_assert_eq!(decision, interpret(&packet, peer, &rules, default), "{:?}", packet);
    }
}

#[test]
fn a_set_takes_sixty_four_rules() {
    let mut ruleset = Ruleset::with_default(Action::Deny);
    let rule = Rule::new(Action::Allow, &Criteria::default()).unwrap();
    let taken: Vec<_> = (0..=MAX_RULES).map(|_| ruleset.push(rule)).collect();
    assert_eq!(taken.iter().filter(|taken| **taken).count(), MAX_RULES);
    assert!(!taken[MAX_RULES]);
}

#[test]
fn criteria_that_contradict_each_other_make_no_rule() {
    let network = Some(network(Family::V4, 8, 1));
    let ports = Some((1, 2));
    for criteria in [
        Criteria { network, ..Criteria::default() },
        Criteria { ports, ..Criteria::default() },
        Criteria { ports, protocol: Some(Protocol::Icmp), ..Criteria::default() },
        Criteria { ports: Some((2, 1)), protocol: Some(Protocol::Tcp), ..Criteria::default() },
        Criteria { protocol: Some(Protocol::OtherIp), ..Criteria::default() },
    ] {
        assert_eq!(Rule::new(Action::Deny, &criteria), None, "{criteria:?}");
    }
}

/// Without its address a packet is as good as unread.
#[test]
fn a_packet_without_a_peer_is_denied_by_any_deny_rule_that_fits_otherwise() {
    let frame: &[u8] = &[
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, //
        0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 8, 0, 0, 0, 0, 0, 0, 0,
    ];
    let packet = parse(&frame);
    let criteria = Criteria {
        family: Some(Family::V4),
        network: Some(network(Family::V4, 32, 77)),
        ..Criteria::default()
    };
    for (action, expected) in [(Action::Deny, Action::Deny), (Action::Allow, Action::Deny)] {
        let default = if action == Action::Deny { Action::Allow } else { Action::Deny };
        let mut ruleset = Ruleset::with_default(default);
        ruleset.push(Rule::new(action, &criteria).unwrap());
        assert_eq!(judge(&packet, None, &ruleset).action, expected);
    }
}
