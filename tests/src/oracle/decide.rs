//! What rules say of what is known.

use std::net::IpAddr;

use common::{Protocol, Verdict};
use driver::model::{self, Action, DefaultAction, DirectionFilter, FilterRule, PortRange};
use ipnet::IpNet;

use super::Past;
use super::read::{Content, Datagram, Head, Load, Piece, Seen};

pub(super) struct Decided {
    pub(super) passes: bool,
    pub(super) verdict: Verdict,
    pub(super) hits: Vec<usize>,
    pub(super) reply: bool,
}

pub(super) fn decide(
    seen: &Seen,
    filter: Option<&DirectionFilter>,
    past: &mut impl Past,
) -> Decided {
    let mut decided =
        Decided { passes: true, verdict: Verdict::Allowed, hits: Vec::new(), reply: false };
    let Some(filter) = filter else { return decided };
    if matches!(seen.content, Content::Foreign) || seen.is_neighbour_discovery() {
        return decided;
    }
    for (place, rule) in filter.rules.iter().enumerate() {
        let needed = if rule.action == Action::Deny { Match::Maybe } else { Match::Yes };
        if matches(rule, &seen.content) < needed {
            continue;
        }
        decided.hits.push(place);
        match rule.action {
            Action::Count => continue,
            Action::Allow => {}
            Action::Deny => (decided.passes, decided.verdict) = (false, Verdict::DeniedByRule),
            Action::RateLimit(_) if past.admits(place) => {}
            Action::RateLimit(_) => {
                (decided.passes, decided.verdict) = (false, Verdict::DeniedByRate);
            }
        }
        return decided;
    }
    if filter.stateful && past.is_reply() {
        decided.reply = true;
    } else if filter.default_action == DefaultAction::Deny {
        (decided.passes, decided.verdict) = (false, Verdict::DeniedByDefault);
    }
    decided
}

/// Whether a packet is what a rule means. All criteria must be met, so the least answer counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Match {
    No,
    Maybe,
    Yes,
}

impl From<bool> for Match {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

fn matches(rule: &FilterRule, content: &Content) -> Match {
    let Content::Ip(datagram) = content else {
        return if narrows(rule) { Match::Maybe } else { Match::Yes };
    };
    [
        address(&rule.sources, datagram.source),
        address(&rule.destinations, datagram.destination),
        protocol(rule.protocol, datagram),
        fragment(rule.fragment, datagram.piece),
        header(rule, datagram),
    ]
    .into_iter()
    .min()
    .unwrap_or(Match::Yes)
}

/// The rule asks for anything at all.
fn narrows(rule: &FilterRule) -> bool {
    !rule.sources.is_empty()
        || !rule.destinations.is_empty()
        || rule.protocol.is_some()
        || rule.fragment.is_some()
        || asks_for_header(rule)
}

fn asks_for_header(rule: &FilterRule) -> bool {
    !rule.source_ports.is_empty()
        || !rule.destination_ports.is_empty()
        || !rule.icmp_types.is_empty()
        || rule.established
}

fn address(networks: &[IpNet], address: IpAddr) -> Match {
    (networks.is_empty() || networks.iter().any(|network| network.contains(&address))).into()
}

fn protocol(wanted: Option<model::Protocol>, datagram: &Datagram) -> Match {
    let Some(wanted) = wanted else { return Match::Yes };
    let wanted = match wanted {
        model::Protocol::Tcp => Protocol::Tcp,
        model::Protocol::Udp => Protocol::Udp,
        model::Protocol::Sctp => Protocol::Sctp,
        model::Protocol::Icmp => Protocol::Icmp,
        model::Protocol::Icmpv6 => Protocol::Icmpv6,
    };
    match &datagram.load {
        Load::Unknown => match (wanted, datagram.source) {
            (Protocol::Icmp, IpAddr::V6(_)) | (Protocol::Icmpv6, IpAddr::V4(_)) => Match::No,
            _ => Match::Maybe,
        },
        Load::Damaged(protocol) | Load::Known(protocol, _) => (*protocol == wanted).into(),
    }
}

fn fragment(wanted: Option<bool>, piece: Option<Piece>) -> Match {
    match (wanted, piece) {
        (None, _) => Match::Yes,
        (Some(_), None) => Match::Maybe,
        (Some(wanted), Some(piece)) => ((piece != Piece::Whole) == wanted).into(),
    }
}

/// Ports, ICMP types and the ACK bit, if the protocol is the one that the rule names.
fn header(rule: &FilterRule, datagram: &Datagram) -> Match {
    if !asks_for_header(rule) {
        return Match::Yes;
    }
    match (&datagram.load, datagram.piece) {
        (_, Some(Piece::Later)) | (Load::Known(_, Head::None), _) => Match::No,
        (Load::Unknown | Load::Damaged(_), _) => Match::Maybe,
        (Load::Known(_, Head::Icmp { kind, .. }), _) => {
            (rule.icmp_types.is_empty() || rule.icmp_types.contains(kind)).into()
        }
        (Load::Known(_, Head::Ports { source, destination, flags }), _) => {
            let is_established = flags.is_some_and(|flags| flags.ack);
            (port(&rule.source_ports, *source)
                && port(&rule.destination_ports, *destination)
                && (!rule.established || is_established))
                .into()
        }
    }
}

fn port(ranges: &[PortRange], port: u16) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| range.first <= port && port <= range.last)
}
