//! The datapath on the running kernel.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what the tests are made of")]

mod cost;
mod frames;
mod hooks;
mod programs;
mod traffic;
mod wire;

use driver::model::{
    Action, AttachmentId, DatapathSpec, DirectionFilter, DirectionTraffic, Filter, FilterRule,
    IngressHook, PortRange, Protocol, Telemetry,
};

pub(crate) fn id() -> AttachmentId {
    AttachmentId {
        claim: "6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c11".parse().unwrap(),
        device: "nic-1".parse().unwrap(),
    }
}

pub(crate) fn spec(ingress: IngressHook, filter: Option<Filter>) -> DatapathSpec {
    DatapathSpec { filter, ..driver::testing::spec(id(), ingress) }
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
        protocol,
        destination_ports: ports.iter().map(|&(first, last)| PortRange { first, last }).collect(),
        ..driver::testing::rule("", action)
    }
}

/// The same rules in both directions.
pub(crate) fn both(default_action: Action, rules: Vec<FilterRule>) -> Filter {
    let direction = DirectionFilter { default_action, rules };
    Filter { ingress: Some(direction.clone()), egress: Some(direction) }
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
