//! What a claim asks for, after parsing: every value is in range, every text has its type.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{IfName, MacAddr};

/// The configuration of one device: class and claim merged.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wishes {
    pub interface: InterfaceWishes,
    pub routes: Vec<Route>,
    pub ebpf: EbpfWishes,
}

/// How the interface shall look inside the pod. What is `None` stays as it was on the host.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceWishes {
    pub name: Option<IfName>,
    /// With prefix length. `None` carries the host's addresses over; an empty list means none.
    pub addresses: Option<Vec<IpNet>>,
    pub mtu: Option<u32>,
    pub mac: Option<MacAddr>,
}

/// A route in the pod's main table, through the device.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    pub destination: IpNet,
    /// `None` for what is directly on the link.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
}

/// Which programs the claim wants on its interface, and what they shall do.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EbpfWishes {
    pub hook: HookWish,
    pub telemetry: Telemetry,
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
}

/// What may pass, by direction as the pod sees it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    pub ingress: Option<DirectionFilter>,
    pub egress: Option<DirectionFilter>,
}

/// Rules for one direction: the first that matches decides, `default_action` where none does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionFilter {
    pub default_action: Action,
    pub rules: Vec<FilterRule>,
}

/// One rule. An empty list does not narrow: no `cidrs` means any address, no `ports` any port.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterRule {
    /// Unique within its direction.
    pub name: String,
    pub action: Action,
    /// The peer's address: the source of what comes in, the destination of what goes out.
    pub cidrs: Vec<IpNet>,
    pub protocol: Option<Protocol>,
    /// Destination ports. Only with a protocol that has ports.
    pub ports: Vec<PortRange>,
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
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
