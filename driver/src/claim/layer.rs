//! What one source says: each field on its own, before class and claim are merged.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::Value;

use super::reader::{Leaf, Object, Spot};
use super::rule::Peer;
use super::{filter, interface};
use crate::model::{DirectionFilter, HookWish, IfName, MacAddr, Problems, Route, Telemetry};

/// The version and the kind that a configuration has to give.
pub(super) const API_VERSION: &str = "weir.dev/v1alpha1";
pub(super) const KIND: &str = "NetworkConfig";

/// Places for flows on each CPU, of 64 bytes.
const FLOW_ENTRIES: RangeInclusive<u32> = 256..=65_536;

/// One source, read.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) name: Leaf<IfName>,
    pub(super) addresses: Leaf<Vec<IpNet>>,
    pub(super) mtu: Leaf<u32>,
    pub(super) mac: Leaf<MacAddr>,
    pub(super) routes: Leaf<Vec<Route>>,
    pub(super) hook: Leaf<HookWish>,
    pub(super) telemetry: Leaf<Telemetry>,
    /// Anything about flows, also nothing of it.
    pub(super) flows: Leaf<()>,
    pub(super) flow_entries: Leaf<u32>,
    pub(super) export_packets: Leaf<u64>,
    pub(super) ingress: Leaf<DirectionFilter>,
    pub(super) egress: Leaf<DirectionFilter>,
}

impl Layer {
    /// Reads one source. What is wrong goes to `problems`.
    pub(super) fn read(parameters: &Value, problems: &mut Problems) -> Self {
        let mut layer = Self::default();
        let root = Spot { path: String::new(), value: parameters };
        let known = ["apiVersion", "kind", "interface", "routes", "ebpf"];
        let Some(root) = root.object(&known, problems) else {
            return layer;
        };
        envelope(&root, KIND, problems);
        if let Some(interface) = root.field("interface") {
            layer.read_interface(&interface, problems);
        }
        layer.routes = Leaf::read(root.field("routes"), |spot| interface::routes(spot, problems));
        if let Some(ebpf) = root.field("ebpf") {
            layer.read_ebpf(&ebpf, problems);
        }
        layer
    }

    fn read_interface(&mut self, spot: &Spot<'_>, problems: &mut Problems) {
        let known = ["name", "addresses", "mtu", "hardwareAddr"];
        let Some(fields) = spot.object(&known, problems) else {
            return;
        };
        self.name = Leaf::read(fields.field("name"), |spot| interface::name(spot, problems));
        self.addresses =
            Leaf::read(fields.field("addresses"), |spot| interface::addresses(spot, problems));
        self.mtu = Leaf::read(fields.field("mtu"), |spot| spot.integer(interface::MTU, problems));
        self.mac = Leaf::read(fields.field("hardwareAddr"), |spot| interface::mac(spot, problems));
    }

    fn read_ebpf(&mut self, spot: &Spot<'_>, problems: &mut Problems) {
        let Some(ebpf) = spot.object(&["hook", "telemetry", "flows", "filter"], problems) else {
            return;
        };
        self.hook = Leaf::read(ebpf.field("hook"), |spot| spot.word(&HOOKS, problems));
        self.telemetry = Leaf::read(ebpf.field("telemetry"), |spot| telemetry(spot, problems));
        self.flows = Leaf::read(ebpf.field("flows"), |spot| self.read_flows(spot, problems));
        let filter =
            ebpf.field("filter").and_then(|spot| spot.object(&["ingress", "egress"], problems));
        if let Some(filter) = filter {
            self.ingress = Leaf::read(filter.field("ingress"), |spot| {
                filter::direction(spot, Peer::Source, problems)
            });
            self.egress = Leaf::read(filter.field("egress"), |spot| {
                filter::direction(spot, Peer::Destination, problems)
            });
        }
    }

    fn read_flows(&mut self, spot: &Spot<'_>, problems: &mut Problems) -> Option<()> {
        let flows = spot.object(&["entries", "exportPackets"], problems)?;
        self.flow_entries = Leaf::read(flows.field("entries"), |spot| flow_entries(spot, problems));
        self.export_packets = Leaf::read(flows.field("exportPackets"), |spot| {
            spot.integer(1..=u64::from(u32::MAX), problems)
        });
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

const HOOKS: [(&str, HookWish); 4] = [
    ("auto", HookWish::Auto),
    ("xdp", HookWish::Xdp),
    ("tcx", HookWish::Tcx),
    ("none", HookWish::None),
];

const TELEMETRIES: [(&str, Telemetry); 3] =
    [("off", Telemetry::Off), ("counters", Telemetry::Counters), ("flows", Telemetry::Flows)];

pub(super) fn envelope(root: &Object<'_>, kind: &str, problems: &mut Problems) {
    for (field, expected) in [("apiVersion", API_VERSION), ("kind", kind)] {
        let Some(spot) = root.required(field, problems) else {
            continue;
        };
        // One word to choose from.
        spot.word(&[(expected, ())], problems);
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
