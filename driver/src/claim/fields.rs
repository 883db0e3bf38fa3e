//! The fields of the format that are merged each for itself, and where a layer has them.

use ipnet::IpNet;

use super::interface::Programs;
use super::merge::{Entries, Field};
use super::route::WrittenRoute;
use super::sysctl::Settings;
use crate::model::{
    CpuAlignment, Dad, DirectionFilter, HookWish, IfName, Inherit, MacAddr, Neighbor, Rule,
    SubinterfaceKind, Telemetry, VfLinkState, VfVlan, Vrf,
};

macro_rules! fields {
    ($($name:ident: $type:ty = $path:literal, $($part:ident).+;)+) => {
        $(pub(super) const $name: Field<$type> =
            Field { path: $path, of: |layer| &layer.$($part).+ };)+
    };
}

fields! {
    PROFILE: String = "profile", profile;
    NAME: IfName = "interface.name", interface.name;
    ADDRESSES: Vec<IpNet> = "interface.addresses", interface.addresses;
    DAD: Dad = "interface.noDad", interface.dad;
    DHCP: bool = "interface.dhcp", interface.dhcp;
    MTU: u32 = "interface.mtu", interface.mtu;
    MAC: MacAddr = "interface.hardwareAddr", interface.mac;
    GSO: u32 = "interface.gsoMaxSize", interface.gso;
    GRO: u32 = "interface.groMaxSize", interface.gro;
    GSO_IPV4: u32 = "interface.gsoIPv4MaxSize", interface.gso_ipv4;
    GRO_IPV4: u32 = "interface.groIPv4MaxSize", interface.gro_ipv4;
    SETTINGS: Settings = "interface.sysctls", interface.settings;
    PROGRAMS: Programs = "interface.disableEbpfPrograms", interface.programs;
    VRF: Vrf = "interface.vrf", interface.vrf;
    INHERIT: Inherit = "interface.inherit", interface.inherit;
    ROUTES: Vec<WrittenRoute> = "routes", routes;
    RULES: Vec<Rule> = "rules", rules;
    NEIGHBORS: Vec<Neighbor> = "neighbors", neighbors;
    FEATURES: Entries<String, bool> = "ethtool.features", ethtool.features;
    PRIVATE_FLAGS: Entries<String, bool> = "ethtool.privateFlags", ethtool.private_flags;
    RINGS: Entries<String, u32> = "ethtool.rings", ethtool.rings;
    CHANNELS: Entries<String, u32> = "ethtool.channels", ethtool.channels;
    COALESCE: Entries<String, u32> = "ethtool.coalesce", ethtool.coalesce;
    VF_VLAN: VfVlan = "sriov.vlan", sriov.vlan;
    TRUST: bool = "sriov.trust", sriov.trust;
    SPOOF_CHECK: bool = "sriov.spoofCheck", sriov.spoof_check;
    MIN_RATE: u32 = "sriov.minTxRateMbps", sriov.min_rate;
    MAX_RATE: u32 = "sriov.maxTxRateMbps", sriov.max_rate;
    LINK_STATE: VfLinkState = "sriov.linkState", sriov.link_state;
    SUBINTERFACE: SubinterfaceKind = "subinterface", subinterface;
    CPUS: CpuAlignment = "alignment.cpus", alignment.cpus;
    HOOK: HookWish = "ebpf.hook", ebpf.hook;
    TELEMETRY: Telemetry = "ebpf.telemetry", ebpf.telemetry;
    FLOWS: () = "ebpf.flows", ebpf.flows;
    FLOW_ENTRIES: u32 = "ebpf.flows.entries", ebpf.flow_entries;
    EXPORT_PACKETS: u64 = "ebpf.flows.exportPackets", ebpf.export_packets;
    INGRESS: DirectionFilter = "ebpf.filter.ingress", ebpf.ingress;
    EGRESS: DirectionFilter = "ebpf.filter.egress", ebpf.egress;
}
