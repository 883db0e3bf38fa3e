//! The filters that are measured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use driver::model::{
    Action, DefaultAction, DirectionFilter, Filter, FilterRule, PortRange, Protocol,
};
use driver::testing::rule;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::packet::{PORT, SOURCE};

/// An IP version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    V4,
    V6,
}

fn ingress(default_action: DefaultAction, rules: Vec<FilterRule>) -> Filter {
    let direction = DirectionFilter { default_action, stateful: false, rules };
    Filter { ingress: Some(direction), egress: None }
}

/// Sixteen rules as one would write them for a service: networks that are kept out, services for
/// some networks and for all, pings, answers. The benchmark's packet is allowed by the last.
pub(super) fn sixteen() -> Filter {
    let mut rules = Vec::new();
    for (name, networks) in [
        ("documentation", ["203.0.113.0/24", "2001:db8::/32"]),
        ("benchmarks", ["198.18.0.0/15", "2001:2::/48"]),
        ("shared", ["100.64.0.0/10", "fec0::/10"]),
        ("reserved", ["240.0.0.0/4", "100::/64"]),
    ] {
        rules.push(FilterRule { sources: networks_of(&networks), ..rule(name, Action::Deny) });
    }
    let all: &[&str] = &[];
    let inside = &["10.0.0.0/8", "fd00:10::/32"][..];
    for (name, protocol, networks, first, last) in [
        ("ssh", Protocol::Tcp, inside, 22, 22),
        ("http", Protocol::Tcp, all, 80, 80),
        ("https", Protocol::Tcp, all, 443, 443),
        ("quic", Protocol::Udp, all, 443, 443),
        ("dns", Protocol::Udp, inside, 53, 53),
        ("metrics", Protocol::Tcp, inside, 9090, 9100),
        ("database", Protocol::Tcp, inside, 5432, 5433),
        ("time", Protocol::Udp, inside, 123, 123),
    ] {
        rules.push(allow(name, protocol, networks, first, last));
    }
    for (name, protocol, types) in
        [("ping", Protocol::Icmp, [0, 8]), ("ping6", Protocol::Icmpv6, [128, 129])]
    {
        let icmp_types = types.to_vec();
        rules.push(FilterRule {
            icmp_types,
            protocol: Some(protocol),
            ..rule(name, Action::Allow)
        });
    }
    rules.push(FilterRule {
        protocol: Some(Protocol::Tcp),
        established: true,
        ..rule("answers", Action::Allow)
    });
    rules.push(allow("vxlan", Protocol::Udp, &["192.168.0.0/16", "fd00::/32"], PORT, 4800));
    ingress(DefaultAction::Deny, rules)
}

fn allow(name: &str, protocol: Protocol, from: &[&str], first: u16, last: u16) -> FilterRule {
    FilterRule {
        sources: networks_of(from),
        protocol: Some(protocol),
        destination_ports: vec![PortRange { first, last }],
        ..rule(name, Action::Allow)
    }
}

/// What cannot be parsed is left out; a test below counts them.
fn networks_of(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// `count` rules: each allows one network of its own, by UDP, to a range of ports that is one of
/// forty and always holds the packet's.
pub(super) fn list(version: Version, count: u16) -> Filter {
    let rules = (0..count).map(|n| {
        let more = n % 40;
        FilterRule {
            sources: vec![network(version, nth(count, n))],
            protocol: Some(Protocol::Udp),
            destination_ports: vec![PortRange { first: PORT - more, last: PORT + 16 * more }],
            ..rule(&format!("rule-{n}"), Action::Allow)
        }
    });
    ingress(DefaultAction::Deny, rules.collect())
}

/// An address in the network of rule `n` of [`list`].
pub(super) fn source_of(version: Version, count: u16, n: u16) -> IpAddr {
    host(network(version, nth(count, n)))
}

/// An address that no rule of [`list`] allows, though each of its octets is one that some do: the
/// networks leave one out in their middle.
pub(super) fn near_miss(version: Version, count: u16) -> IpAddr {
    host(network(version, gap(count)))
}

fn gap(count: u16) -> u16 {
    count / 2
}

fn nth(count: u16, n: u16) -> u16 {
    if n < gap(count) { n } else { n + 1 }
}

fn network(version: Version, n: u16) -> IpNet {
    let [upper, lower] = n.to_be_bytes();
    match version {
        Version::V4 => Ipv4Net::new_assert(Ipv4Addr::new(10, upper, lower, 0), 24).into(),
        Version::V6 => {
            let address = Ipv6Addr::new(0xfd00, 0, upper.into(), lower.into(), 0, 0, 0, 0);
            Ipv6Net::new_assert(address, 64).into()
        }
    }
}

fn host(network: IpNet) -> IpAddr {
    match network.addr() {
        IpAddr::V4(address) => (address | Ipv4Addr::new(0, 0, 0, 1)).into(),
        IpAddr::V6(address) => (address | Ipv6Addr::LOCALHOST).into(),
    }
}

/// The most work that 4096 rules can make of a packet: each of the 64 words has rules for its source
/// and rules for its port, and none for both.
pub(super) fn worst() -> Filter {
    let rules = (0..4096_u16).map(|n| {
        let (source, port) =
            if n % 2 == 0 { (SOURCE, 1) } else { (Ipv4Addr::new(10, 1, 1, 1), PORT) };
        FilterRule {
            sources: vec![Ipv4Net::new_assert(source, 32).into()],
            protocol: Some(Protocol::Udp),
            destination_ports: vec![PortRange { first: port, last: port }],
            ..rule(&format!("rule-{n}"), Action::Allow)
        }
    });
    ingress(DefaultAction::Deny, rules.collect())
}

/// Addresses that are kept out, for us and for whom we are compared with.
pub(super) fn deny_list() -> impl Iterator<Item = Ipv4Addr> {
    (0..64_u8).map(|n| Ipv4Addr::new(10, n.wrapping_mul(37), n.wrapping_mul(101), n))
}

pub(super) fn denying() -> Filter {
    let rules = deny_list().map(|address| FilterRule {
        sources: vec![Ipv4Net::new_assert(address, 32).into()],
        ..rule(&format!("deny-{address}"), Action::Deny)
    });
    ingress(DefaultAction::Allow, rules.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_rules_are_sixteen_and_their_networks_can_be_read() {
        let rules = sixteen().ingress.unwrap().rules;
        assert_eq!(rules.len(), 16);
        assert_eq!(rules.iter().map(|rule| rule.sources.len()).sum::<usize>(), 4 * 2 + 5 * 2 + 2);
    }

    #[test]
    fn a_near_miss_is_in_no_network_of_its_list() {
        for version in [Version::V4, Version::V6] {
            for count in [1, 64, 1024, 4096] {
                let rules = list(version, count).ingress.unwrap().rules;
                let covers = |address| move |rule: &&FilterRule| rule.sources[0].contains(&address);
                let missed = near_miss(version, count);
                assert_eq!(rules.iter().filter(covers(missed)).count(), 0, "{missed}");
                let last = source_of(version, count, count - 1);
                assert!(covers(last)(&rules.last().unwrap()), "{last}");
            }
        }
    }
}
