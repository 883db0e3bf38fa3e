//! Route netlink of one namespace: interfaces, addresses, routes, rules, neighbours, filters, and news of changes.
//!
//! Every call blocks until the kernel has answered, so [`Netlink`] belongs on plain threads, never
//! on a worker of an async runtime. A request names what it acts on by index; whether its result
//! was there already is for the caller to find out, by [`NetlinkError::is_exists`] and
//! [`NetlinkError::is_absent`] if it comes to that.
//!
//! The messages are `rtnetlink`'s; the exchange is our own (`socket.rs`), because one request after
//! the other on one socket needs no runtime.

mod address;
#[cfg(any(test, feature = "testing"))]
mod datagram;
mod error;
mod events;
mod filter;
mod link;
mod neighbor;
mod program;
mod raw;
mod route;
mod rule;
mod segments;
mod socket;
mod vf;
mod virtual_link;

use std::fmt;

use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::sys::netns::Netns;

#[cfg(any(test, feature = "testing"))]
pub use self::datagram::read_all;
pub use self::error::NetlinkError;
pub use self::events::{Changes, Events};
pub use self::filter::{FilterFacts, Side};
pub use self::link::{LinkFacts, LinkStatistics};
pub use self::program::{BpfFilter, XdpMode};
pub(in crate::sys) use self::raw::Raw;
pub use self::segments::replaced;
pub(in crate::sys) use self::socket::AskSocket;
pub use self::virtual_link::Made;

/// A route netlink socket of one namespace.
///
/// It can go to another thread and stays in its namespace all the same. It keeps that namespace
/// alive: drop it promptly where the namespace is a pod's.
pub struct Netlink {
    socket: AskSocket<RouteNetlinkMessage>,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = AskSocket::open(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        Ok(Self { socket })
    }

    /// Which namespace it is, by a number that no other one gets before the machine starts anew.
    pub fn namespace_cookie(&self) -> Result<u64, NetlinkError> {
        self.socket.namespace_cookie().map_err(NetlinkError::Cookie)
    }

    /// Opens a socket in `netns`, by a short visit.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        netns.run(|_| Self::open()).map_err(|error| NetlinkError::OpenIn(netns.id(), error))?
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Netlink")
    }
}
