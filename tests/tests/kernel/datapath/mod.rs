//! The datapath on the running kernel.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what the tests are made of")]

mod agreement;
mod captures;
mod cases;
mod clients;
mod clsact;
mod cost;
mod drops;
mod features;
mod flows;
mod frames;
mod hooks;
mod loaded;
mod needs_tcx;
mod pcap;
mod programs;
mod swap;
mod traffic;
mod variants;
mod wire;

use driver::model::{
    Action, AttachmentId, DatapathSpec, DefaultAction, DirectionFilter, DirectionTraffic,
    EgressHook, Filter, FilterRule, IngressHook, PortRange, Protocol,
};
use driver::sys::xdp;

pub(crate) fn id() -> AttachmentId {
    AttachmentId {
        claim: "6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c11".parse().unwrap(),
        device: "nic-1".parse().unwrap(),
        share: None,
    }
}

/// The hook of the way in that is not XDP, as the driver chooses it on this kernel: TCX, or a filter of
/// `clsact` where there is none.
pub(crate) fn tc() -> IngressHook {
    if has_tcx() { IngressHook::Tcx } else { IngressHook::Clsact }
}

pub(crate) fn has_tcx() -> bool {
    xdp::has_tcx().unwrap()
}

/// All programs, loaded and nowhere attached, as somebody else's.
pub(crate) fn strangers(spec: &DatapathSpec) -> aya::Ebpf {
    programs::load(spec)
}

/// Counters, and `filter`; the way out is what this kernel has for it.
pub(crate) fn spec(ingress: IngressHook, filter: Option<Filter>) -> DatapathSpec {
    let egress = match ingress {
        IngressHook::Tcx => EgressHook::Tcx,
        IngressHook::Xdp | IngressHook::XdpFrags if has_tcx() => EgressHook::Tcx,
        _ => EgressHook::Clsact,
    };
    DatapathSpec { filter, egress, ..driver::testing::spec(id(), ingress) }
}

pub(crate) fn rule(
    action: Action,
    cidrs: &[&str],
    protocol: Option<Protocol>,
    ports: &[(u16, u16)],
) -> FilterRule {
    FilterRule {
        // A name of its own; which one does not matter.
        name: format!("{action:?}-{cidrs:?}-{protocol:?}-{ports:?}"),
        sources: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        protocol,
        destination_ports: ports.iter().map(|&(first, last)| PortRange { first, last }).collect(),
        ..driver::testing::rule("", action)
    }
}

/// The same rules in both directions, about the peer: what is the source of what comes in is the
/// destination of what goes out.
pub(crate) fn both(default_action: DefaultAction, rules: Vec<FilterRule>) -> Filter {
    let outgoing = rules.iter().cloned().map(outgoing).collect();
    let direction = |rules| DirectionFilter { default_action, stateful: false, rules };
    Filter { ingress: Some(direction(rules)), egress: Some(direction(outgoing)) }
}

/// The same rule for the other direction.
pub(crate) fn outgoing(rule: FilterRule) -> FilterRule {
    FilterRule { sources: Vec::new(), destinations: rule.sources.clone(), ..rule }
}

pub(crate) fn verdict(traffic: &DirectionTraffic, name: &str) -> u64 {
    named(&traffic.verdicts, name)
}

pub(crate) fn protocol(traffic: &DirectionTraffic, name: &str) -> u64 {
    named(&traffic.protocols, name)
}

fn named(counts: &[(&'static str, driver::model::PacketCount)], name: &str) -> u64 {
    counts.iter().find(|(kind, _)| *kind == name).unwrap().1.packets
}
