//! What a claim asks for, after parsing: every value is in range, every text has its type.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    IfName, Inherit, MacAddr, Neighbor, OtherPrograms, Route, Rule, Segments, SubinterfaceKind,
    SysctlName, VfSettings, Vrf,
};

/// The configuration of one device: class and claim merged.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wishes {
    /// What a provider was asked to make up, whose answer is among the rest.
    #[serde(default)]
    pub profile: Option<String>,
    pub interface: InterfaceWishes,
    pub routes: Vec<Route>,
    #[serde(default)]
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub neighbors: Vec<Neighbor>,
    #[serde(default)]
    pub ethtool: EthtoolWishes,
    /// What the physical function is told, where the device is a virtual one.
    #[serde(default)]
    pub sriov: VfSettings,
    /// `None` gives the pod the device itself.
    #[serde(default)]
    pub subinterface: Option<SubinterfaceKind>,
    #[serde(default)]
    pub alignment: Alignment,
    pub ebpf: EbpfWishes,
}

/// What shall be near the device.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alignment {
    pub cpus: CpuAlignment,
}

/// On which CPUs the claim's containers run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CpuAlignment {
    /// On whichever the container was given.
    #[default]
    Off,
    /// On those of the device's NUMA node, where nobody else has said on which.
    NumaLocal,
}

/// How the interface shall look inside the pod. What is `None` stays as it was on the host.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceWishes {
    pub name: Option<IfName>,
    /// With prefix length. `None` leaves it to [`Self::inherit`]; an empty list means none.
    pub addresses: Option<Vec<IpNet>>,
    /// Whether IPv6 addresses are searched for duplicates before they can be used.
    #[serde(default)]
    pub dad: Dad,
    /// An IPv4 address from a DHCP server.
    #[serde(default)]
    pub dhcp: bool,
    pub mtu: Option<u32>,
    pub mac: Option<MacAddr>,
    #[serde(default)]
    pub segments: Segments,
    /// `/proc/sys/net/FAMILY/conf/INTERFACE/NAME` to value.
    #[serde(default)]
    pub sysctls: Vec<(SysctlName, String)>,
    /// Programs of others that shall not be on the interface inside the pod.
    #[serde(default)]
    pub disable_ebpf_programs: Option<OtherPrograms>,
    #[serde(default)]
    pub vrf: Option<Vrf>,
    #[serde(default)]
    pub inherit: Inherit,
}

/// Duplicate address detection of IPv6 (RFC 4862).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Dad {
    /// The address can be used at once (`IFA_F_NODAD`).
    #[default]
    Skip,
    /// The address is tentative for about a second.
    Run,
}

/// What the driver of the device shall be set to, as `ethtool` has it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EthtoolWishes {
    /// By the kernel's names or by those of `ethtool --features`; which of them the device has shows
    /// when it is prepared.
    pub features: BTreeMap<String, bool>,
    pub private_flags: BTreeMap<String, bool>,
    pub rings: BTreeMap<String, u32>,
    pub channels: BTreeMap<String, u32>,
    pub coalesce: BTreeMap<String, u32>,
}

/// Which programs the claim wants on its interface, and what they shall do.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EbpfWishes {
    pub hook: HookWish,
    pub telemetry: Telemetry,
    /// Meant only where telemetry counts flows.
    #[serde(default)]
    pub flows: FlowWishes,
    pub filter: Option<Filter>,
}

/// Where the ingress program shall sit. Egress is always TCX.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HookWish {
    /// Native XDP on hardware that can, TCX otherwise.
    #[default]
    Auto,
    /// Native XDP, or prepare fails.
    Xdp,
    Tcx,
    /// No program at all; then neither telemetry nor a filter is possible.
    None,
}

/// What the programs count.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Telemetry {
    Off,
    #[default]
    Counters,
    /// Counters, and a cache of who talks to whom.
    Flows,
}

/// How flows are kept.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowWishes {
    /// Places of the cache on each CPU: a power of two from 256 to 65536. A place has 64 bytes.
    pub entries: u32,
    /// A flow that has to leave the cache is handed to user space if it has as many packets.
    pub export_packets: u64,
}

impl Default for FlowWishes {
    fn default() -> Self {
        Self { entries: 4096, export_packets: 16 }
    }
}

/// Rules that whoever runs the node lays over those of a claim, until they are cleared.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorPolicy {
    pub ingress: Option<Overlay>,
    pub egress: Option<Overlay>,
}

/// Rules for one direction that stand before those of the claim.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overlay {
    /// In place of the claim's, where it is given.
    pub default_action: Option<DefaultAction>,
    /// All of them of [`Origin::Operator`].
    pub rules: Vec<FilterRule>,
}

/// What may pass, by direction as the pod sees it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    pub ingress: Option<DirectionFilter>,
    pub egress: Option<DirectionFilter>,
}

/// Rules for one direction: the first that decides, `default_action` where none does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionFilter {
    pub default_action: DefaultAction,
    /// What answers a packet that was let through the other way is allowed where no rule decides.
    #[serde(default)]
    pub stateful: bool,
    pub rules: Vec<FilterRule>,
}

/// One rule. An empty list does not narrow: no networks means any address, no ports any port.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterRule {
    /// Unique within its direction and origin.
    pub name: String,
    #[serde(default)]
    pub origin: Origin,
    pub action: Action,
    #[serde(default)]
    pub sources: Vec<IpNet>,
    #[serde(default)]
    pub destinations: Vec<IpNet>,
    pub protocol: Option<Protocol>,
    /// Only with a protocol that has ports, as are destination ports.
    #[serde(default)]
    pub source_ports: Vec<PortRange>,
    #[serde(default)]
    pub destination_ports: Vec<PortRange>,
    /// Only TCP segments with the ACK bit. Only with TCP.
    #[serde(default)]
    pub established: bool,
    /// Only with ICMP or ICMPv6.
    #[serde(default)]
    pub icmp_types: Vec<u8>,
    /// Whether the packet has to be part of a fragmented one, or must not be.
    #[serde(default)]
    pub fragment: Option<bool>,
}

/// Who made a rule.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    #[default]
    Claim,
    /// Who runs the node, by `weir policy apply`.
    Operator,
}

impl Origin {
    /// One word of a closed set, for labels and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Operator => "operator",
        }
    }
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Allow,
    Deny,
    /// Allows as much as the rate permits, and denies the rest.
    RateLimit(RateLimit),
    /// Counts, and leaves the decision to the rules behind it.
    Count,
}

/// How much may pass.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    pub rate: Rate,
    /// How much may pass at once after a pause: packets, or bits.
    pub burst: u64,
}

/// In what a rate is measured. Greater than zero.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Rate {
    PacketsPerSecond(u64),
    BitsPerSecond(u64),
}

/// What happens where no rule decides.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DefaultAction {
    Allow,
    Deny,
}

/// The protocols that a rule can name.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
}

/// Ports from `first` to `last`, both included; `first` is not above `last`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}
