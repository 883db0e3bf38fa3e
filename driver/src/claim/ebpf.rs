//! Which programs the pod's interface gets: hook, telemetry, flows, filter.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::filter;
use super::reader::{Leaf, Spot};
use super::rule::Peer;
use crate::model::{DirectionFilter, HookWish, Problems, Telemetry};

pub(super) const FIELDS: [&str; 4] = ["hook", "telemetry", "flows", "filter"];
pub(super) const FLOW_FIELDS: [&str; 2] = ["entries", "exportPackets"];
pub(super) const FILTER_FIELDS: [&str; 2] = ["ingress", "egress"];

/// Places for flows on each CPU, of 64 bytes.
pub(super) const FLOW_ENTRIES: RangeInclusive<u32> = 256..=65_536;
pub(super) const EXPORT_PACKETS: RangeInclusive<u64> = 1..=u32::MAX as u64;

pub(super) const HOOKS: [(&str, HookWish); 4] = [
    ("auto", HookWish::Auto),
    ("xdp", HookWish::Xdp),
    ("tcx", HookWish::Tcx),
    ("none", HookWish::None),
];

pub(super) const TELEMETRIES: [(&str, Telemetry); 3] =
    [("off", Telemetry::Off), ("counters", Telemetry::Counters), ("flows", Telemetry::Flows)];

/// What one source says about programs.
#[derive(Debug, Default)]
pub(super) struct EbpfLayer {
    pub(super) hook: Leaf<HookWish>,
    pub(super) telemetry: Leaf<Telemetry>,
    /// Anything about flows, also nothing of it.
    pub(super) flows: Leaf<()>,
    pub(super) flow_entries: Leaf<u32>,
    pub(super) export_packets: Leaf<u64>,
    pub(super) ingress: Leaf<DirectionFilter>,
    pub(super) egress: Leaf<DirectionFilter>,
}

impl EbpfLayer {
    pub(super) fn read(spot: &Spot<'_>, problems: &mut Problems) -> Self {
        let mut layer = Self::default();
        let Some(ebpf) = spot.object(&FIELDS, problems) else {
            return layer;
        };
        layer.hook = Leaf::read(ebpf.field("hook"), |spot| spot.word(&HOOKS, problems));
        layer.telemetry = Leaf::read(ebpf.field("telemetry"), |spot| telemetry(spot, problems));
        layer.flows = Leaf::read(ebpf.field("flows"), |spot| layer.read_flows(spot, problems));
        let filter = ebpf.field("filter").and_then(|spot| spot.object(&FILTER_FIELDS, problems));
        if let Some(filter) = filter {
            layer.ingress = Leaf::read(filter.field("ingress"), |spot| {
                filter::direction(spot, Peer::Source, problems)
            });
            layer.egress = Leaf::read(filter.field("egress"), |spot| {
                filter::direction(spot, Peer::Destination, problems)
            });
        }
        layer
    }

    fn read_flows(&mut self, spot: &Spot<'_>, problems: &mut Problems) -> Option<()> {
        let flows = spot.object(&FLOW_FIELDS, problems)?;
        self.flow_entries = Leaf::read(flows.field("entries"), |spot| flow_entries(spot, problems));
        self.export_packets =
            Leaf::read(flows.field("exportPackets"), |spot| spot.integer(EXPORT_PACKETS, problems));
        Some(())
    }
}

fn flow_entries(spot: &Spot<'_>, problems: &mut Problems) -> Option<u32> {
    let entries = spot.integer(FLOW_ENTRIES, problems)?;
    if entries.is_power_of_two() {
        Some(entries)
    } else {
        spot.refuse(format_args!("{entries} is not a power of two"), problems)
    }
}

/// Unquoted, `off` is a boolean to YAML 1.1 and so to kubectl. What arrives is `false`, and only
/// one thing can have been meant.
fn telemetry(spot: &Spot<'_>, problems: &mut Problems) -> Option<Telemetry> {
    if *spot.value == Value::Bool(false) {
        return Some(Telemetry::Off);
    }
    spot.word(&TELEMETRIES, problems)
}
