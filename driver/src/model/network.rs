//! What an interface carries besides its addresses: routes, rules, neighbours, settings of its
//! driver. What a claim wishes and what the host had are the same nouns.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{IfIndex, IfName, MacAddr};

/// Which internet protocol something belongs to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// A routing table's number: 254 is the main one, 255 the local one, which only the kernel writes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

impl TableId {
    pub const MAIN: Self = Self(254);
    pub const LOCAL: Self = Self(255);
}

impl Default for TableId {
    fn default() -> Self {
        Self::MAIN
    }
}

/// How far away a route's destinations are (`rtm_scope`); only IPv4 knows it.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct RouteScope(pub u8);

impl RouteScope {
    /// Anywhere: what leads through a gateway.
    pub const UNIVERSE: Self = Self(0);
    /// Directly on the link.
    pub const LINK: Self = Self(253);
}

/// Who made a route (`rtm_protocol`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct RouteProtocol(pub u8);

impl RouteProtocol {
    /// Made by the kernel for an address; it comes and goes with it.
    pub const KERNEL: Self = Self(2);
    pub const STATIC: Self = Self(4);
    /// From router advertisements; the next one brings it again.
    pub const RA: Self = Self(9);
    /// From a DHCP server.
    pub const DHCP: Self = Self(16);
}

impl Default for RouteProtocol {
    fn default() -> Self {
        Self::STATIC
    }
}

/// A unicast route through one interface.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    pub destination: IpNet,
    /// `None` for what is directly on the link.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    #[serde(default)]
    pub scope: RouteScope,
    #[serde(default)]
    pub table: TableId,
    /// `RTA_PRIORITY`; without one the kernel takes 0 for IPv4 and 1024 for IPv6, and a route that
    /// was read has no metric where it has that one.
    #[serde(default)]
    pub metric: Option<u32>,
    /// The gateway counts as on the link although no route says so.
    #[serde(default)]
    pub onlink: bool,
    #[serde(default)]
    pub protocol: RouteProtocol,
}

impl Route {
    /// A static route of the main table to what is directly on the link.
    pub fn to(destination: IpNet) -> Self {
        Self {
            destination,
            gateway: None,
            source: None,
            scope: RouteScope::default(),
            table: TableId::default(),
            metric: None,
            onlink: false,
            protocol: RouteProtocol::default(),
        }
    }
}

/// A rule of policy routing that looks up a table.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    pub family: Family,
    pub priority: u32,
    /// `None` for any.
    pub source: Option<IpNet>,
    /// `None` for any.
    pub destination: Option<IpNet>,
    pub table: TableId,
}

/// A permanent neighbour.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbor {
    pub destination: IpAddr,
    #[serde(rename = "hardwareAddr")]
    pub mac: MacAddr,
}

/// A VRF device of the pod and the table that it stands for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vrf {
    pub name: IfName,
    pub table: TableId,
}

/// How large packets may be that the stack hands down in one piece (GSO) or puts together (GRO), in
/// bytes; above 65536 it is "BIG TCP". `None` is left as it is, or was not told (before Linux 6.3
/// there are no limits for IPv4 alone).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Segments {
    pub gso_max_size: Option<u32>,
    pub gro_max_size: Option<u32>,
    pub gso_ipv4_max_size: Option<u32>,
    pub gro_ipv4_max_size: Option<u32>,
}

impl Segments {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A limit that is wished for here and of which `now` tells nothing: the kernel does not know it,
    /// and would ignore it without a word.
    pub fn unknown_to(&self, now: &Self) -> Option<&'static str> {
        let limits = [
            (self.gso_max_size, now.gso_max_size, "a GSO size"),
            (self.gro_max_size, now.gro_max_size, "a GRO size"),
            (self.gso_ipv4_max_size, now.gso_ipv4_max_size, "a GSO size for IPv4"),
            (self.gro_ipv4_max_size, now.gro_ipv4_max_size, "a GRO size for IPv4"),
        ];
        let unknown = limits.into_iter().find(|(wish, now, _)| wish.is_some() && now.is_none());
        unknown.map(|(.., name)| name)
    }
}

/// One setting of the network stack for an interface: `/proc/sys/net/FAMILY/conf/INTERFACE/NAME`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SysctlName {
    pub family: Family,
    pub name: String,
}

/// Names of settings that a claim may change, whatever the family; the claim's parser knows which
/// values they take, and the host's values of all of them are put back.
pub const SYSCTLS: [(Family, &str); 26] = [
    (Family::Ipv4, "accept_local"),
    (Family::Ipv4, "arp_accept"),
    (Family::Ipv4, "arp_announce"),
    (Family::Ipv4, "arp_filter"),
    (Family::Ipv4, "arp_ignore"),
    (Family::Ipv4, "arp_notify"),
    (Family::Ipv4, "drop_gratuitous_arp"),
    (Family::Ipv4, "force_igmp_version"),
    (Family::Ipv4, "forwarding"),
    (Family::Ipv4, "ignore_routes_with_linkdown"),
    (Family::Ipv4, "log_martians"),
    (Family::Ipv4, "promote_secondaries"),
    (Family::Ipv4, "proxy_arp"),
    (Family::Ipv4, "rp_filter"),
    (Family::Ipv4, "send_redirects"),
    (Family::Ipv4, "src_valid_mark"),
    (Family::Ipv6, "accept_dad"),
    (Family::Ipv6, "accept_ra"),
    (Family::Ipv6, "addr_gen_mode"),
    (Family::Ipv6, "autoconf"),
    (Family::Ipv6, "dad_transmits"),
    (Family::Ipv6, "disable_ipv6"),
    (Family::Ipv6, "forwarding"),
    (Family::Ipv6, "ndisc_notify"),
    (Family::Ipv6, "proxy_ndp"),
    (Family::Ipv6, "use_tempaddr"),
];

/// What ethtool can set, each group by one request to the driver.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EthtoolSetting {
    /// By the kernel's names (`tx-tcp-segmentation`), as `ethtool --show-features` has most of them.
    Features(BTreeMap<String, bool>),
    /// By the driver's names.
    PrivateFlags(BTreeMap<String, bool>),
    /// Descriptors, by a name of [`RINGS`].
    Rings(BTreeMap<String, u32>),
    /// Queues, by a name of [`CHANNELS`].
    Channels(BTreeMap<String, u32>),
    /// By a name of [`COALESCE`]: microseconds, frames, or 0 and 1.
    Coalesce(BTreeMap<String, u32>),
}

impl EthtoolSetting {
    /// What is set, for messages.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Features(_) => "features",
            Self::PrivateFlags(_) => "private flags",
            Self::Rings(_) => "ring sizes",
            Self::Channels(_) => "channels",
            Self::Coalesce(_) => "interrupt coalescing",
        }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Features(entries) | Self::PrivateFlags(entries) => entries.is_empty(),
            Self::Rings(entries) | Self::Channels(entries) | Self::Coalesce(entries) => {
                entries.is_empty()
            }
        }
    }
}

pub const RINGS: [&str; 4] = ["rx", "rxMini", "rxJumbo", "tx"];
pub const CHANNELS: [&str; 4] = ["rx", "tx", "other", "combined"];
pub const COALESCE: [&str; 6] =
    ["rxUsecs", "rxFrames", "txUsecs", "txFrames", "adaptiveRx", "adaptiveTx"];

/// What ethtool tells of an interface now. Groups that the driver does not know are empty.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EthtoolState {
    /// Every feature that can be changed, and whether it is wanted.
    pub features: BTreeMap<String, bool>,
    /// Features that the driver knows and nobody can change, and whether they are on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fixed_features: BTreeMap<String, bool>,
    pub private_flags: BTreeMap<String, bool>,
    pub rings: BTreeMap<String, u32>,
    pub channels: BTreeMap<String, u32>,
    /// The driver's limits, by the same names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rings_max: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub channels_max: BTreeMap<String, u32>,
    pub coalesce: BTreeMap<String, u32>,
}

/// What the host has on an interface and loses when it leaves: nobody but us brings it back.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Belongings {
    /// Of all tables; without those that the kernel or router advertisements made. In an order in
    /// which they can be added.
    pub routes: Vec<Route>,
    /// The host's rules to the tables that those routes are in, but the main one. They stay on the
    /// host while the interface is away; they are here to be carried over.
    pub rules: Vec<Rule>,
    pub neighbors: Vec<Neighbor>,
    /// Values of [`SYSCTLS`] that differ from what a new interface gets.
    pub sysctls: Vec<(SysctlName, String)>,
}

/// What names of sub-interfaces begin with on the host; eight hexadecimal digits follow.
pub const SUBINTERFACE_PREFIX: &str = "weir-";

/// An interface that is made upon a device for one attachment, and removed with it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubinterfaceSpec {
    /// What it is called on the host: of our own making, the same for the same attachment.
    pub name: IfName,
    pub parent: IfName,
    /// The parent that it is made upon, whatever has its name by then.
    pub parent_index: IfIndex,
    /// The parent was down, and goes down again with its last sub-interface.
    #[serde(default)]
    pub parent_was_down: bool,
    pub kind: SubinterfaceKind,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum SubinterfaceKind {
    Macvlan {
        mode: MacvlanMode,
    },
    Ipvlan {
        mode: IpvlanMode,
    },
    #[serde(rename_all = "camelCase")]
    Vlan {
        /// 1 to 4094.
        vlan_id: u16,
    },
}

impl SubinterfaceKind {
    /// The kernel's word for the link kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Macvlan { .. } => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
            Self::Vlan { .. } => "vlan",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MacvlanMode {
    /// What ip-link(8) calls `bridge`: those of one parent reach each other.
    #[default]
    Bridge,
    Private,
    Vepa,
    /// The only one on its parent.
    Passthru,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum IpvlanMode {
    #[default]
    L2,
    L3,
    L3s,
}

/// Which programs of others shall leave the interface.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OtherPrograms {
    All,
    /// By the kernel's names for programs, of at most 15 bytes.
    Named(Vec<String>),
}

/// What of the host's belongings an interface takes along into its pod.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Inherit {
    /// Addresses, routes, rules to their tables, permanent neighbours.
    #[default]
    All,
    /// Addresses alone.
    Addresses,
    /// Routes and rules to their tables alone.
    Routes,
    None,
}

impl Inherit {
    pub fn has_addresses(self) -> bool {
        matches!(self, Self::All | Self::Addresses)
    }

    pub fn has_routes(self) -> bool {
        matches!(self, Self::All | Self::Routes)
    }

    pub fn has_neighbors(self) -> bool {
        self == Self::All
    }
}
