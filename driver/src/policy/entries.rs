//! Rules to entries: at most one network at either end, everything else as it was.

use common::{Class, Family, Fragment, Protocol};
use ipnet::IpNet;

use crate::model::{self, FilterRule, PortRange, Problems};

/// One entry: a bit of the tables.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry<'a> {
    /// Its rule, counted from the direction's first.
    pub(super) rule: u16,
    pub(super) terms: &'a FilterRule,
    pub(super) family: Option<Family>,
    pub(super) source: Option<IpNet>,
    pub(super) destination: Option<IpNet>,
}

/// The entries of one rule. Where something is wrong with it, some are missing. At most `limit`.
pub(super) fn expand<'a>(
    number: u16,
    rule: &'a FilterRule,
    limit: usize,
    problems: &mut Problems,
) -> Vec<Entry<'a>> {
    check(rule, problems);
    let of_protocol = match rule.protocol {
        Some(model::Protocol::Icmp) => Some(Family::V4),
        Some(model::Protocol::Icmpv6) => Some(Family::V6),
        _ => None,
    };
    if let Some(only) = of_protocol {
        for (field, networks) in [("sources", &rule.sources), ("destinations", &rule.destinations)]
        {
            for (index, network) in networks.iter().enumerate() {
                if family(network) != only {
                    problems.add(
                        format!("{field}[{index}]"),
                        format_args!(
                            "{network} never matches: there is no {} in {}",
                            protocol(rule).map_or("such protocol", Protocol::name),
                            family(network).name()
                        ),
                    );
                }
            }
        }
    }
    let ends = |networks: &[IpNet]| -> Vec<Option<IpNet>> {
        if networks.is_empty() { vec![None] } else { networks.iter().copied().map(Some).collect() }
    };
    let (sources, destinations) = (ends(&rule.sources), ends(&rule.destinations));
    let pairs = sources.iter().flat_map(|&s| destinations.iter().map(move |&d| (s, d)));
    let mut entries = Vec::new();
    for (source, destination) in pairs {
        let families = [of_protocol, source.as_ref().map(family), destination.as_ref().map(family)];
        let mut said = families.into_iter().flatten();
        let family = said.next();
        // A source of one family and a destination of the other are in no packet together.
        if said.all(|other| Some(other) == family) {
            entries.push(Entry { rule: number, terms: rule, family, source, destination });
        }
        if entries.len() > limit {
            break;
        }
    }
    if entries.is_empty() && problems.is_empty() {
        problems.add("destinations", "share no IP version with the sources, so nothing matches");
    }
    entries
}

fn check(rule: &FilterRule, problems: &mut Problems) {
    let protocol = protocol(rule);
    let named = protocol.map_or("no protocol".to_owned(), |p| format!("protocol {}", p.name()));
    for (field, ports) in
        [("sourcePorts", &rule.source_ports), ("ports", &rule.destination_ports)]
    {
        if !ports.is_empty() && !protocol.is_some_and(Protocol::has_ports) {
            problems
                .add(field, format_args!("need protocol tcp, udp or sctp, the rule has {named}"));
        }
        for (index, PortRange { first, last }) in ports.iter().enumerate() {
            if first > last {
                problems.add(
                    format!("{field}[{index}]"),
                    format_args!("{first}-{last} ends before it begins"),
                );
            }
        }
    }
    if rule.established && protocol != Some(Protocol::Tcp) {
        problems.add("established", format_args!("needs protocol tcp, the rule has {named}"));
    }
    if !rule.icmp_types.is_empty()
        && !matches!(protocol, Some(Protocol::Icmp | Protocol::Icmpv6))
    {
        problems
            .add("icmpTypes", format_args!("need protocol icmp or icmpv6, the rule has {named}"));
    }
}

impl Entry<'_> {
    pub(super) fn is_deny(&self) -> bool {
        matches!(self.terms.action, model::Action::Deny)
    }

    /// Whether packets of a class may match, as far as addresses and ports do not say otherwise.
    /// Where the packet could not be read, a deny entry does and any other does not.
    pub(super) fn takes(&self, class: Class) -> bool {
        let sure = |answer: Option<bool>| answer.unwrap_or(self.is_deny());
        let family = self.family.is_none_or(|wanted| sure(class.family().map(|f| f == wanted)));
        let wanted = protocol(self.terms);
        let protocol = wanted.is_none_or(|p| sure(class.protocol().map(|it| it == p)));
        let established = !self.terms.established || sure(class.is_established());
        let fragment = self.terms.fragment.is_none_or(|wanted| {
            sure(class.fragment().map(|it| (it != Fragment::No) == wanted))
        });
        let transport = !self.names_transport() || sure(class.has_transport());
        family && protocol && established && fragment && transport
    }

    fn names_transport(&self) -> bool {
        !self.terms.source_ports.is_empty()
            || !self.terms.destination_ports.is_empty()
            || !self.terms.icmp_types.is_empty()
            || self.terms.established
    }

    pub(super) fn source_ranges(&self) -> Vec<(u16, u16)> {
        ranges(&self.terms.source_ports)
    }

    /// Of ports, or of ICMP types.
    pub(super) fn destination_ranges(&self) -> Vec<(u16, u16)> {
        if self.terms.icmp_types.is_empty() {
            return ranges(&self.terms.destination_ports);
        }
        self.terms.icmp_types.iter().map(|&kind| (kind.into(), kind.into())).collect()
    }
}

/// All there are, where none is named.
fn ranges(ports: &[PortRange]) -> Vec<(u16, u16)> {
    if ports.is_empty() {
        return vec![(0, u16::MAX)];
    }
    ports.iter().map(|range| (range.first, range.last)).collect()
}

fn family(network: &IpNet) -> Family {
    match network {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

fn protocol(rule: &FilterRule) -> Option<Protocol> {
    rule.protocol.map(|protocol| match protocol {
        model::Protocol::Tcp => Protocol::Tcp,
        model::Protocol::Udp => Protocol::Udp,
        model::Protocol::Sctp => Protocol::Sctp,
        model::Protocol::Icmp => Protocol::Icmp,
        model::Protocol::Icmpv6 => Protocol::Icmpv6,
    })
}
