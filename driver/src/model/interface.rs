//! A kernel network interface: where it is and what it is like.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{IfIndex, IfName, MacAddr, NetnsRef, Segments};

/// Which namespace something is in.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// The namespace that the driver runs in.
    Host,
    /// The namespace of a pod's sandbox.
    Pod(NetnsRef),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Pod(netns) => netns.id.fmt(f),
        }
    }
}

/// An interface by place and name.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct At {
    pub place: Place,
    pub interface: IfName,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.interface, self.place)
    }
}

/// How to find an interface within its namespace. A pod may rename what it was given; the index
/// stays.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum By {
    Name(IfName),
    Index(IfIndex),
}

/// What an interface is like now, as far as attaching changes it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceState {
    pub name: IfName,
    pub index: IfIndex,
    /// None where the link layer has no 48-bit addresses.
    pub mac: Option<MacAddr>,
    /// In bytes, without the link-layer header.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`); says nothing about the carrier.
    pub up: bool,
    /// Addresses that somebody assigned: IPv6 link-local ones, which the kernel makes by itself,
    /// are left out. In the order in which they can be assigned: the first IPv4 one of a network is
    /// its primary one.
    pub addresses: Vec<IpNet>,
    /// The bridge, bond or the like that it is a member of.
    #[serde(default)]
    pub controller: Option<IfIndex>,
    #[serde(default)]
    pub segments: Segments,
}

impl InterfaceState {
    /// For a device without an interface. Nobody looks for it by this name.
    pub fn none() -> Self {
        Self {
            name: IfName::none(),
            index: IfIndex(0),
            mac: None,
            mtu: 0,
            up: false,
            addresses: Vec::new(),
            controller: None,
            segments: Segments::default(),
        }
    }
}
