//! What the demo takes for granted about the manifests of `deploy/examples`, in one place.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// How many NICs the node has.
pub(super) const NICS: u8 = 3;

/// The request whose NIC gets an XDP program that filters, and the one that only counts.
pub(super) const FILTERED: &str = "filtered";
pub(super) const PLAIN: &str = "plain";

/// What the filter lets through: UDP to this port …
pub(super) const ALLOWED_PORT: u16 = 7000;
/// … and what it does not: another port, if its default is to deny, …
pub(super) const OTHER_PORT: u16 = 7001;
/// … and anything from this peer.
pub(super) const BLOCKED_PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);

/// A host behind the gateway of the plain request's route.
pub(super) const DISTANT_PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

/// Time between two datagrams.
pub(super) const PACE: Duration = Duration::from_millis(1);
/// Datagrams of a burst.
pub(super) const BURST: u64 = 200;
/// How long traffic flows before, during and after the driver's death.
pub(super) const WHILE: Duration = Duration::from_millis(400);
