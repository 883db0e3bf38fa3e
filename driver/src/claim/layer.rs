//! What one source says: each field on its own, before class and claim are merged.

use serde_json::Value;

use super::alignment::AlignmentLayer;
use super::dranet::{Dialect, Fields};
use super::ebpf::EbpfLayer;
use super::ethtool::EthtoolLayer;
use super::interface::InterfaceLayer;
use super::reader::{Leaf, Object, Spot};
use super::route::{self, WrittenRoute};
use super::sriov::SriovLayer;
use super::{neighbor, profile, routing_rule, subinterface};
use crate::model::{Neighbor, Problems, Rule, SubinterfaceKind};

/// The version and the kind that a configuration has to give.
pub(super) const API_VERSION: &str = "weir.dev/v1alpha1";
pub(super) const KIND: &str = "NetworkConfig";

pub(super) const FIELDS: Fields = Fields {
    ours: &[
        "apiVersion",
        "kind",
        "profile",
        "interface",
        "routes",
        "rules",
        "neighbors",
        "ethtool",
        "sriov",
        "subinterface",
        "alignment",
        "ebpf",
    ],
    dranet: &["profile", "interface", "routes", "rules", "neighbors", "ethtool"],
};

/// One source, read.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) dialect: Dialect,
    pub(super) profile: Leaf<String>,
    pub(super) interface: InterfaceLayer,
    pub(super) routes: Leaf<Vec<WrittenRoute>>,
    pub(super) rules: Leaf<Vec<Rule>>,
    pub(super) neighbors: Leaf<Vec<Neighbor>>,
    pub(super) ethtool: EthtoolLayer,
    pub(super) sriov: SriovLayer,
    pub(super) subinterface: Leaf<SubinterfaceKind>,
    pub(super) alignment: AlignmentLayer,
    pub(super) ebpf: EbpfLayer,
}

impl Layer {
    /// Reads one source. What is wrong goes to `problems`.
    pub(super) fn read(parameters: &Value, problems: &mut Problems) -> Self {
        let dialect = Dialect::of(parameters);
        let mut layer = Self { dialect, ..Self::default() };
        let root = Spot { path: String::new(), value: parameters };
        let Some(root) = dialect.object(&root, FIELDS, problems) else {
            return layer;
        };
        if dialect == Dialect::Ours {
            envelope(&root, KIND, problems);
        }
        // DraNet takes an empty name for none.
        let is_said = |spot: &Spot<'_>| dialect == Dialect::Ours || *spot.value != "";
        let profile = root.field("profile").filter(is_said);
        layer.profile = Leaf::read(profile, |spot| profile::read(spot, problems));
        if let Some(interface) = root.field("interface") {
            layer.interface = InterfaceLayer::read(&interface, dialect, problems);
        }
        layer.routes =
            Leaf::read(root.field("routes"), |spot| route::list(spot, dialect, problems));
        layer.rules =
            Leaf::read(root.field("rules"), |spot| routing_rule::list(spot, dialect, problems));
        layer.neighbors =
            Leaf::read(root.field("neighbors"), |spot| neighbor::list(spot, dialect, problems));
        if let Some(ethtool) = root.field("ethtool") {
            layer.ethtool = EthtoolLayer::read(&ethtool, dialect, problems);
        }
        if dialect == Dialect::Dranet {
            return layer;
        }
        if let Some(sriov) = root.field("sriov") {
            layer.sriov = SriovLayer::read(&sriov, problems);
        }
        layer.subinterface =
            Leaf::read(root.field("subinterface"), |spot| subinterface::read(spot, problems));
        if let Some(alignment) = root.field("alignment") {
            layer.alignment = AlignmentLayer::read(&alignment, problems);
        }
        if let Some(ebpf) = root.field("ebpf") {
            layer.ebpf = EbpfLayer::read(&ebpf, problems);
        }
        layer
    }
}

pub(super) fn envelope(root: &Object<'_>, kind: &str, problems: &mut Problems) {
    for (field, expected) in [("apiVersion", API_VERSION), ("kind", kind)] {
        let Some(spot) = root.required(field, problems) else {
            continue;
        };
        // One word to choose from.
        spot.word(&[(expected, ())], problems);
    }
}
