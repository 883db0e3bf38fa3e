//! One rule: what it matches, and what it does.

use std::collections::HashSet;

use ipnet::IpNet;

use super::address::network;
use super::ports::ports;
use super::rate::rate_limit;
use super::reader::{Leaf, Object, Spot, quote};
use crate::model::{Action, DeviceName, FilterRule, Origin, Problems, Protocol, RateLimit};

/// Most items of a list of a rule: as many entries as fit at all.
pub(super) const MOST_ITEMS: usize = 4096;

const FIELDS: [&str; 12] = [
    "name",
    "action",
    "rateLimit",
    "cidrs",
    "sources",
    "destinations",
    "protocol",
    "ports",
    "sourcePorts",
    "established",
    "icmpTypes",
    "fragment",
];

pub(super) const PROTOCOLS: [(&str, Protocol); 5] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("sctp", Protocol::Sctp),
    ("icmp", Protocol::Icmp),
    ("icmpv6", Protocol::Icmpv6),
];

/// An action without what belongs to it.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Word {
    Allow,
    Deny,
    RateLimit,
    Count,
}

pub(super) const ACTIONS: [(&str, Word); 4] = [
    ("allow", Word::Allow),
    ("deny", Word::Deny),
    ("rateLimit", Word::RateLimit),
    ("count", Word::Count),
];

/// The end of a packet that is not the pod: `cidrs` are networks of this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Peer {
    /// Of what comes in.
    Source,
    /// Of what goes out.
    Destination,
}

/// Reads a rule; `None` if anything in it is wrong. `names` are those of the rules before it.
pub(super) fn read<'a>(
    spot: &Spot<'a>,
    peer: Peer,
    names: &mut HashSet<&'a str>,
    problems: &mut Problems,
) -> Option<FilterRule> {
    let rule = spot.object(&FIELDS, problems)?;
    let name = rule.required("name", problems).and_then(|spot| name(&spot, names, problems));
    let action = action(&rule, problems);
    let ends = ends(&rule, peer, problems);
    let protocol =
        Leaf::read(rule.field("protocol"), |spot| spot.word(&PROTOCOLS, problems).map(Some));
    let destination_ports = some_of(&rule, "ports", "port", ports, problems);
    let source_ports = some_of(&rule, "sourcePorts", "port", ports, problems);
    let established = Leaf::read(rule.field("established"), |spot| established(spot, problems));
    let icmp_types = some_of(&rule, "icmpTypes", "type", icmp_type, problems);
    let fragment = Leaf::read(rule.field("fragment"), |spot| spot.flag(problems).map(Some));
    check_protocol(&rule, protocol, problems)?;
    let (sources, destinations) = ends?;
    check_families(&rule, peer, protocol.said().flatten(), (&sources, &destinations), problems)?;
    Some(FilterRule {
        name: name?.to_owned(),
        origin: Origin::Claim,
        action: action?,
        sources,
        destinations,
        protocol: protocol.or(None)?,
        source_ports: source_ports?,
        destination_ports: destination_ports?,
        established: established.or(false)?,
        icmp_types: icmp_types?,
        fragment: fragment.or(None)?,
    })
}

/// The name of a rule: a DNS label, that no rule before it has.
fn name<'a>(
    spot: &Spot<'a>,
    names: &mut HashSet<&'a str>,
    problems: &mut Problems,
) -> Option<&'a str> {
    let text = spot.text(problems)?;
    // The same alphabet as a device's name.
    if text.parse::<DeviceName>().is_err() {
        let rule = "1 to 63 of a-z, 0-9 and `-`, with neither end a `-`";
        return spot.refuse(format_args!("{} is not {rule}", quote(text)), problems);
    }
    if !names.insert(text) {
        return spot.refuse(format_args!("{text} is the name of an earlier rule"), problems);
    }
    Some(text)
}

/// The action, with its rate where it is one: `rateLimit` goes with that action and with no other.
fn action(rule: &Object<'_>, problems: &mut Problems) -> Option<Action> {
    let word = rule.required("action", problems).and_then(|spot| spot.word(&ACTIONS, problems));
    let rate: Leaf<RateLimit> =
        Leaf::read(rule.field("rateLimit"), |spot| rate_limit(spot, problems));
    match (word?, rate) {
        (Word::RateLimit, Leaf::Said(limit)) => Some(Action::RateLimit(limit)),
        (Word::RateLimit, Leaf::Unsaid) => {
            problems.add(rule.path_of("rateLimit"), "is required with action rateLimit");
            None
        }
        (_, Leaf::Said(_)) => {
            problems.add(rule.path_of("rateLimit"), "goes with action rateLimit only");
            None
        }
        (_, Leaf::Wrong) => None,
        (Word::Allow, Leaf::Unsaid) => Some(Action::Allow),
        (Word::Deny, Leaf::Unsaid) => Some(Action::Deny),
        (Word::Count, Leaf::Unsaid) => Some(Action::Count),
    }
}

/// Sources and destinations.
fn ends(
    rule: &Object<'_>,
    peer: Peer,
    problems: &mut Problems,
) -> Option<(Vec<IpNet>, Vec<IpNet>)> {
    let mut networks = |field| some_of(rule, field, "address", network, problems);
    let (cidrs, sources, destinations) =
        (networks("cidrs"), networks("sources"), networks("destinations"));
    let (mut sources, mut destinations, cidrs) = (sources?, destinations?, cidrs?);
    if cidrs.is_empty() {
        return Some((sources, destinations));
    }
    let (same, end) = match peer {
        Peer::Source => ("sources", &mut sources),
        Peer::Destination => ("destinations", &mut destinations),
    };
    if !end.is_empty() {
        let message = format!("are the {same} in this direction, which are given as well");
        problems.add(rule.path_of("cidrs"), message);
        return None;
    }
    *end = cidrs;
    Some((sources, destinations))
}

/// The list under `field`, empty where it is left out. A list that is there but empty is refused:
/// it reads like "none" and, as nothing narrows the rule then, would mean "any".
fn some_of<'a, T>(
    rule: &Object<'a>,
    field: &str,
    noun: &str,
    read: impl Fn(&Spot<'a>, &mut Problems) -> Option<T>,
    problems: &mut Problems,
) -> Option<Vec<T>> {
    let Some(spot) = rule.field(field) else {
        return Some(Vec::new());
    };
    let items = spot.list_up_to(MOST_ITEMS, "items", problems)?;
    if items.is_empty() {
        let message = format!("is empty, leave it out to match any {noun}");
        return spot.refuse(message, problems);
    }
    let said = items.len();
    let values: Vec<_> = items.into_iter().filter_map(|item| read(&item, problems)).collect();
    (values.len() == said).then_some(values)
}

/// `false` is refused: it reads like "new connections only" and would mean "all segments".
fn established(spot: &Spot<'_>, problems: &mut Problems) -> Option<bool> {
    if spot.flag(problems)? {
        Some(true)
    } else {
        spot.refuse("can only be true, leave it out to match any segment", problems)
    }
}

fn icmp_type(spot: &Spot<'_>, problems: &mut Problems) -> Option<u8> {
    spot.integer(0..=u8::MAX, problems)
}

/// Refuses criteria that packets of the rule's protocol cannot have. A protocol that could not be
/// read is let pass: there is one problem with it already.
fn check_protocol(
    rule: &Object<'_>,
    protocol: Leaf<Option<Protocol>>,
    problems: &mut Problems,
) -> Option<()> {
    use Protocol::{Icmp, Icmpv6, Sctp, Tcp, Udp};
    type Need<'a> = (&'a str, &'a [Protocol], &'a str, &'a str);
    const PORTS: &[Protocol] = &[Tcp, Udp, Sctp];
    const NO_PROTOCOL: &str = "need a protocol: tcp, udp or sctp";
    const NO_PORTS: &str = "only tcp, udp and sctp have ports";
    const NEEDS: [Need<'_>; 4] = [
        ("ports", PORTS, NO_PROTOCOL, NO_PORTS),
        ("sourcePorts", PORTS, NO_PROTOCOL, NO_PORTS),
        ("established", &[Tcp], "needs a protocol: tcp", "only tcp has connections"),
        (
            "icmpTypes",
            &[Icmp, Icmpv6],
            "need a protocol: icmp or icmpv6",
            "only icmp and icmpv6 have types",
        ),
    ];
    let protocol = match protocol {
        Leaf::Wrong => return None,
        said => said.said().flatten(),
    };
    let mut fits = Some(());
    for (field, protocols, without, with_other) in NEEDS {
        let Some(spot) = rule.field(field) else { continue };
        let message = match protocol {
            Some(protocol) if protocols.contains(&protocol) => continue,
            Some(_) => with_other,
            None => without,
        };
        fits = spot.refuse(message, problems);
    }
    fits
}

/// Refuses networks that no packet of the rule can have: ICMP is one protocol in IPv4 and another in
/// IPv6, and both ends of a packet are of one version.
fn check_families(
    rule: &Object<'_>,
    peer: Peer,
    protocol: Option<Protocol>,
    (sources, destinations): (&[IpNet], &[IpNet]),
    problems: &mut Problems,
) -> Option<()> {
    let is_v4 = |network: &IpNet| network.addr().is_ipv4();
    let version = |is_v4| if is_v4 { "IPv4" } else { "IPv6" };
    let only = match protocol {
        Some(Protocol::Icmp) => Some(true),
        Some(Protocol::Icmpv6) => Some(false),
        _ => None,
    };
    let mut fits = Some(());
    for (field, networks, end) in
        [("sources", sources, Peer::Source), ("destinations", destinations, Peer::Destination)]
    {
        let field = if end == peer && rule.field("cidrs").is_some() { "cidrs" } else { field };
        for (nth, network) in networks.iter().enumerate() {
            if only.is_some_and(|only| only != is_v4(network)) {
                let (here, there) = (version(is_v4(network)), version(!is_v4(network)));
                let message = format!("{network} is {here}, the protocol is one of {there}");
                problems.add(format!("{}[{nth}]", rule.path_of(field)), message);
                fits = None;
            }
        }
    }
    let share = |wanted| {
        [sources, destinations]
            .iter()
            .all(|networks| networks.is_empty() || networks.iter().any(|net| is_v4(net) == wanted))
    };
    if fits.is_some() && !share(true) && !share(false) {
        let message = "share no IP version with the sources, so nothing matches";
        let is_peer = peer == Peer::Destination && rule.field("cidrs").is_some();
        let field = if is_peer { "cidrs" } else { "destinations" };
        problems.add(rule.path_of(field), message);
        fits = None;
    }
    fits
}

#[cfg(test)]
mod tests;
