//! Random filters over all criteria.

use std::net::{Ipv4Addr, Ipv6Addr};

use driver::model::{
    Action, DefaultAction, DirectionFilter, Filter, FilterRule, PortRange, Protocol, Rate,
    RateLimit,
};
use driver::testing;
use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{once_in, one};

/// How many rules a filter may have in each direction, at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(pub usize);

impl Size {
    /// Mostly few, sometimes as many as there may be.
    pub fn random(rng: &mut Rng) -> Self {
        Self(match rng.u32(..100) {
            0..60 => rng.usize(..12),
            60..88 => rng.usize(12..=64),
            88..98 => rng.usize(65..400),
            _ => rng.usize(400..=4096),
        })
    }
}

/// Most entries that a compiled direction has: each source network with each destination network
/// of a rule is one.
const ENTRIES: usize = 4096;

/// A filter with up to `size` rules. What it limits the rate of is never over the rate.
pub fn filter(rng: &mut Rng, size: Size) -> Filter {
    let mut direction = || (!once_in(rng, 8)).then(|| direction(rng, size));
    Filter { ingress: direction(), egress: direction() }
}

/// Rules of one direction, `size` of them at most.
pub fn direction(rng: &mut Rng, size: Size) -> DirectionFilter {
    let mut entries = 0;
    let mut rules = Vec::new();
    while rules.len() < size.0 {
        let rule = rule(rng, &format!("r{}", rules.len()), size);
        // Both families each for itself are more, not less.
        entries += rule.sources.len().max(1) * rule.destinations.len().max(1);
        if entries > ENTRIES {
            break;
        }
        rules.push(rule);
    }
    let default_action = one(rng, &[DefaultAction::Allow, DefaultAction::Deny]);
    DirectionFilter { default_action, stateful: false, rules }
}

/// The same with what depends on packets before: replies are let through, and some of the limits, and of
/// the rules that allow, let through little and nothing more while a test lasts.
pub fn remembering(rng: &mut Rng, filter: &mut Filter) {
    for direction in [&mut filter.ingress, &mut filter.egress].into_iter().flatten() {
        direction.stateful = true;
        for rule in &mut direction.rules {
            let may_be = match rule.action {
                Action::RateLimit(_) => true,
                Action::Allow => once_in(rng, 4),
                Action::Deny | Action::Count => false,
            };
            if may_be && rng.bool() {
                let burst = rng.u64(1..8 * 4096);
                let limit = RateLimit { rate: Rate::BitsPerSecond(1), burst };
                rule.action = Action::RateLimit(limit);
            }
        }
    }
}

/// With more rules each asks for more: otherwise the first ones decide all.
fn rule(rng: &mut Rng, name: &str, size: Size) -> FilterRule {
    let action = match rng.u32(..12) {
        0..5 => Action::Allow,
        5..9 => Action::Deny,
        9 => Action::RateLimit(UNREACHED),
        _ => Action::Count,
    };
    let mut rule = testing::rule(name, action);
    let few = if size.0 > 8 { 6 } else { 2 };
    match rng.u32(..3) {
        0 if size.0 <= 8 => {}
        0 | 1 => rule.sources = networks(rng, few),
        _ => {
            rule.sources = networks(rng, few);
            rule.destinations = networks(rng, few);
        }
    }
    if once_in(rng, 4) {
        std::mem::swap(&mut rule.sources, &mut rule.destinations);
    }
    if once_in(rng, 8) {
        rule.fragment = Some(rng.bool());
    }
    if !once_in(rng, few) {
        transport(rng, &mut rule);
    }
    if !meet(&rule.sources, &rule.destinations) {
        rule.destinations.clear();
    }
    rule
}

const UNREACHED: RateLimit =
    RateLimit { rate: Rate::PacketsPerSecond(1_000_000_000), burst: 1_000_000_000 };

fn transport(rng: &mut Rng, rule: &mut FilterRule) {
    use Protocol::{Icmp, Icmpv6, Sctp, Tcp, Udp};
    let protocol = one(rng, &[Tcp, Tcp, Udp, Udp, Sctp, Icmp, Icmpv6]);
    rule.protocol = Some(protocol);
    if matches!(protocol, Icmp | Icmpv6) {
        // A rule about one family's protocol in networks of the other alone means nothing.
        let fits = |network: &IpNet| matches!(network, IpNet::V4(_)) == (protocol == Icmp);
        rule.sources.retain(fits);
        rule.destinations.retain(fits);
        if rng.bool() {
            rule.icmp_types = (0..rng.usize(1..4)).map(|_| one(rng, TYPES)).collect();
        }
        return;
    }
    if rng.bool() {
        rule.destination_ports = ports(rng);
    }
    if once_in(rng, 3) {
        rule.source_ports = ports(rng);
    }
    rule.established = protocol == Tcp && once_in(rng, 4);
}

/// Sources of one IP version and destinations of the other are in no packet together.
fn meet(sources: &[IpNet], destinations: &[IpNet]) -> bool {
    let is_v4 = |network: &IpNet| matches!(network, IpNet::V4(_));
    let share = |of: &dyn Fn(&IpNet) -> bool| sources.iter().any(of) && destinations.iter().any(of);
    sources.is_empty()
        || destinations.is_empty()
        || share(&is_v4)
        || share(&|network| !is_v4(network))
}

pub(super) const TYPES: &[u8] = &[0, 3, 8, 11, 128, 129, 133, 135, 137, 138];

/// Few of them, so that packets meet them, at and across the bounds of 256.
pub(super) const PORTS: &[u16] = &[
    0, 1, 22, 53, 80, 255, 256, 443, 511, 512, 1024, 8080, 30_000, 32_767, 49_152, 65_280, 65_535,
];

fn ports(rng: &mut Rng) -> Vec<PortRange> {
    let count = if once_in(rng, 16) { 12 } else { rng.usize(1..4) };
    let range = |rng: &mut Rng| {
        let first = if once_in(rng, 5) { rng.u16(..) } else { one(rng, PORTS) };
        let last = match rng.u32(..4) {
            0 => first.saturating_add(rng.u16(..600)),
            1 if once_in(rng, 3) => u16::MAX,
            _ => first,
        };
        PortRange { first, last }
    };
    (0..count).map(|_| range(rng)).collect()
}

/// Up to `most` networks of both families, or of one; none if they cannot be of use.
fn networks(rng: &mut Rng, most: u32) -> Vec<IpNet> {
    let kind = rng.u32(..3);
    (0..rng.u32(1..=most))
        .map(|_| if kind == 0 || kind == 2 && rng.bool() { v4(rng) } else { v6(rng) })
        .collect()
}

const V4_BASES: &[u32] = &[0x0a00_0000, 0x0a00_01fe, 0x0aff_ff80, 0xac10_0000, 0xc0a8_0701];

fn v4(rng: &mut Rng) -> IpNet {
    let address = one(rng, V4_BASES) ^ rng.u32(..) & 0x0003_0303;
    let prefix = match rng.u32(..8) {
        0 => rng.u8(0..=32),
        1 => 32,
        _ => one(rng, &[8, 13, 16, 20, 22, 23, 24, 25, 28, 30, 31]),
    };
    Ipv4Net::new_assert(Ipv4Addr::from_bits(address), prefix).trunc().into()
}

const V6_BASES: &[u128] = &[
    0xfd00_0000_0000_0000_0000_0000_0000_0001,
    0xfd00_00ff_0001_0000_0000_0000_0001_0000,
    0x2001_0db8_0000_0000_8000_0000_0000_00ff,
    0xfe80_0000_0000_0000_0200_00ff_fe00_0001,
];

fn v6(rng: &mut Rng) -> IpNet {
    let noise = rng.u128(..) & 0x0000_0001_0003_0000_0000_0000_0000_0103;
    let prefix = match rng.u32(..8) {
        0 => rng.u8(0..=128),
        1 => 128,
        _ => one(rng, &[8, 10, 16, 32, 47, 48, 64, 96, 112, 120, 121, 126]),
    };
    Ipv6Net::new_assert(Ipv6Addr::from_bits(one(rng, V6_BASES) ^ noise), prefix).trunc().into()
}

/// An address that no network is about, but by chance.
pub(super) fn stray_v4(rng: &mut Rng) -> u32 {
    if rng.bool() { rng.u32(..) } else { one(rng, V4_BASES) ^ rng.u32(..) & 0x0003_0303 }
}

pub(super) fn stray_v6(rng: &mut Rng) -> u128 {
    if rng.bool() { rng.u128(..) } else { one(rng, V6_BASES) ^ rng.u128(..4) }
}
