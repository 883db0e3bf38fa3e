//! Rules for people.

use std::fmt::Display;

use crate::model::{
    Action, DefaultAction, DirectionFilter, Filter, FilterRule, OperatorPolicy, Origin, Overlay,
    PortRange, Protocol, Rate,
};

/// A row for each rule in its order, and one for what happens where none decides.
pub(super) fn rows(filter: &Filter, policy: Option<&OperatorPolicy>) -> Vec<Vec<String>> {
    let ingress = policy.and_then(|policy| policy.ingress.as_ref());
    let egress = policy.and_then(|policy| policy.egress.as_ref());
    let mut rows = direction("ingress", filter.ingress.as_ref(), ingress);
    rows.extend(direction("egress", filter.egress.as_ref(), egress));
    rows
}

fn direction(
    name: &str,
    filter: Option<&DirectionFilter>,
    overlay: Option<&Overlay>,
) -> Vec<Vec<String>> {
    let Some(filter) = filter else {
        return Vec::new();
    };
    let row = |rule: &str, origin: Origin, action: String, what: String| {
        vec![name.to_owned(), rule.to_owned(), origin_word(origin).to_owned(), action, what]
    };
    let mut rows: Vec<_> = filter
        .rules
        .iter()
        .map(|rule| row(&rule.name, rule.origin, action(&rule.action), what(rule)))
        .collect();
    if filter.stateful {
        rows.push(row("-", Origin::Claim, "allow".to_owned(), "replies".to_owned()));
    }
    let is_operators = overlay.is_some_and(|overlay| overlay.default_action.is_some());
    let origin = if is_operators { Origin::Operator } else { Origin::Claim };
    let default = match filter.default_action {
        DefaultAction::Allow => "allow",
        DefaultAction::Deny => "deny",
    };
    rows.push(row("-", origin, default.to_owned(), "everything else".to_owned()));
    rows
}

fn origin_word(origin: Origin) -> &'static str {
    match origin {
        Origin::Claim => "claim",
        Origin::Operator => "operator",
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Allow => "allow".to_owned(),
        Action::Deny => "deny".to_owned(),
        Action::Count => "count".to_owned(),
        Action::RateLimit(limit) => match limit.rate {
            Rate::PacketsPerSecond(rate) => format!("limit to {rate} packets/s"),
            Rate::BitsPerSecond(rate) => format!("limit to {rate} bit/s"),
        },
    }
}

fn what(rule: &FilterRule) -> String {
    let mut words = Vec::new();
    if let Some(protocol) = rule.protocol {
        words.push(protocol_word(protocol).to_owned());
    }
    let mut list = |intro: &str, items: Vec<String>| {
        if !items.is_empty() {
            words.push(format!("{intro} {}", items.join(", ")));
        }
    };
    list("from", texts(&rule.sources));
    list("from port", rule.source_ports.iter().map(|&range| ports(range)).collect());
    list("to", texts(&rule.destinations));
    list("to port", rule.destination_ports.iter().map(|&range| ports(range)).collect());
    list("of type", texts(&rule.icmp_types));
    if rule.established {
        words.push("established".to_owned());
    }
    match rule.fragment {
        Some(true) => words.push("in fragments".to_owned()),
        Some(false) => words.push("not in fragments".to_owned()),
        None => {}
    }
    if words.is_empty() { "everything".to_owned() } else { words.join(" ") }
}

fn texts(items: &[impl Display]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn ports(range: PortRange) -> String {
    let PortRange { first, last } = range;
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Icmp => "icmp",
        Protocol::Icmpv6 => "icmpv6",
    }
}
