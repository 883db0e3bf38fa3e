//! An address that a DHCP server has lent to an interface.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{MacAddr, Route};

/// What a DHCP server gave, and until when.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// With the prefix length of its network.
    pub address: Ipv4Net,
    /// By what the server knows us: the MAC address that asked.
    pub client: MacAddr,
    pub server: Ipv4Addr,
    /// Where its answer came from: the server itself, or the relay or router on the way to it.
    pub server_mac: MacAddr,
    /// Of the main table, in the server's order.
    pub routes: Vec<Route>,
    /// `None` for one that never ends.
    pub times: Option<LeaseTimes>,
}

/// The three moments of a lease, in seconds since the node started; each before the next.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseTimes {
    /// T1: its server is asked for more time.
    pub renew: u64,
    /// T2: any server is asked.
    pub rebind: u64,
    /// The address may not be used any more.
    pub end: u64,
}
