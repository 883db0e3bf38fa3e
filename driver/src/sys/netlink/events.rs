//! News that something about the machine's devices has changed, and about which interface.
//!
//! What it is like now has to be asked: news say where to look, and nothing else. They come from five
//! sources: route netlink, its filters by themselves, the family `netdev`, RDMA and the kernel's
//! uevents. A kernel that lacks one of the last three has less to tell; whoever listens looks at
//! everything now and then.

mod heard;
mod sift;

use std::collections::BTreeSet;
use std::io;

use futures::future::select_all;
use netlink_sys::protocols::{
    NETLINK_GENERIC, NETLINK_KOBJECT_UEVENT, NETLINK_RDMA, NETLINK_ROUTE,
};
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::NetlinkError;
use crate::model::IfIndex;
use crate::sys::netdev::Netdev;

#[cfg(any(test, feature = "testing"))]
pub(super) use self::heard::hear_all;

/// What has to be looked at again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Some of them may be gone.
    pub interfaces: BTreeSet<IfIndex>,
    /// Which interfaces carry default routes.
    pub default_routes: bool,
    /// Filters or what they are attached to: some interface has others than before.
    pub filters: bool,
    /// All there is: something came or went that is more than an interface, or news were lost.
    pub everything: bool,
}

impl Changes {
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn add(&mut self, other: Self) {
        self.interfaces.extend(other.interfaces);
        self.default_routes |= other.default_routes;
        self.filters |= other.filters;
        self.everything |= other.everything;
    }
}

/// Where news come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    Route,
    /// Route netlink, too, with a socket of its own: a switch that hands its flows to hardware changes
    /// thousands of filters a second.
    Filters,
    Netdev,
    Rdma,
    Uevent,
}

/// Listens for changes in one namespace.
///
/// The one part of this room that is asynchronous: whoever waits for the network waits for other
/// things too.
#[derive(Debug)]
pub struct Events {
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    source: Source,
    socket: AsyncFd<Socket>,
}

impl Events {
    /// Starts to listen in the namespace of the calling thread, which must be within a tokio
    /// runtime. What changes from now on is told of.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Events`] where route netlink cannot be listened to. Other sources that are not
    /// there are left out.
    pub fn open() -> Result<Self, NetlinkError> {
        let route = Listener::open(Source::Route).map_err(NetlinkError::Events)?;
        let mut events = Self { listeners: vec![route] };
        events.complete();
        Ok(events)
    }

    /// Listens to those sources too that were not there before, such as RDMA until its module is
    /// loaded. Within a tokio runtime, as [`open`](Self::open).
    pub fn complete(&mut self) {
        for source in [Source::Filters, Source::Netdev, Source::Rdma, Source::Uevent] {
            if self.listeners.iter().any(|listener| listener.source == source) {
                continue;
            }
            match Listener::open(source) {
                Ok(listener) => self.listeners.push(listener),
                Err(error) => tracing::debug!(%error, ?source, "no news from there"),
            }
        }
    }

    /// Waits until something has changed that is not told yet. Many changes at once are one.
    ///
    /// Can be dropped at any time; no news are lost by that.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Events`]: the sockets are of no more use.
    pub async fn changed(&self) -> Result<Changes, NetlinkError> {
        let all = self.listeners.iter().map(|listener| Box::pin(listener.changed()));
        select_all(all).await.0.map_err(NetlinkError::Events)
    }

    /// What has changed that is not told yet, without waiting.
    ///
    /// # Errors
    ///
    /// As [`changed`](Self::changed).
    pub fn drain(&self) -> Result<Changes, NetlinkError> {
        let mut changes = Changes::default();
        for listener in &self.listeners {
            let source = listener.source;
            let mut heard = 0..MOST_AT_ONCE;
            loop {
                if heard.next().is_none() {
                    // Somebody writes faster than it is worth reading, as whoever fills a routing
                    // table: a look at everything is cheaper.
                    changes.everything = true;
                    break;
                }
                match hear(source, listener.socket.get_ref(), &mut changes) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(NetlinkError::Events(error)),
                }
            }
        }
        Ok(changes)
    }
}

/// Datagrams of one socket that are read without anything else being done.
const MOST_AT_ONCE: u32 = 512;

impl Listener {
    fn open(source: Source) -> io::Result<Self> {
        let (protocol, groups) = match source {
            Source::Route => (NETLINK_ROUTE, mask(&ROUTE_GROUPS)),
            Source::Filters => (NETLINK_ROUTE, 0),
            Source::Netdev => (NETLINK_GENERIC, 0),
            Source::Rdma => (NETLINK_RDMA, mask(&[RDMA_GROUP])),
            Source::Uevent => (NETLINK_KOBJECT_UEVENT, mask(&[UEVENT_GROUP])),
        };
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        if source == Source::Filters {
            sift::only_of_kinds(&socket, HEARD_KINDS)?;
            socket.add_membership(TC_GROUP)?;
        }
        if source == Source::Netdev {
            let netdev = Netdev::open().map_err(io::Error::other)?;
            let group = netdev.as_ref().and_then(Netdev::group);
            socket.add_membership(group.ok_or(io::ErrorKind::Unsupported)?)?;
        }
        socket.set_non_blocking(true)?;
        // SAFETY: `Socket` owns its descriptor, always answers the same one, and closes it only when
        // dropped; the `AsyncFd` owns the `Socket`.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { source, socket })
    }

    /// What is taken off the socket is answered in the same moment, so whoever drops this loses
    /// nothing.
    async fn changed(&self) -> io::Result<Changes> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut changes = Changes::default();
            for _ in 0..MOST_AT_ONCE {
                match ready.try_io(|socket| hear(self.source, socket.get_ref(), &mut changes)) {
                    Ok(heard) => heard?,
                    Err(_) => break,
                }
            }
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}

/// Takes one datagram off the socket.
fn hear(source: Source, socket: &Socket, changes: &mut Changes) -> io::Result<()> {
    let mut datagram = Vec::with_capacity(DATAGRAM_LEN);
    match socket.recv(&mut datagram, 0) {
        Ok(_) => heard::note(source, &datagram, changes),
        // There were more than the kernel had room for.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changes.everything = true,
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Enough for what is read: of a longer datagram the rest is lost, which is fine. A uevent has at most
/// 2 KiB (`UEVENT_BUFFER_SIZE`, `include/linux/kobject.h`, Linux 6.12).
const DATAGRAM_LEN: usize = 4096;

fn mask(groups: &[u32]) -> u32 {
    groups.iter().fold(0, |mask, group| mask | 1 << (group - 1))
}

/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR` and `_IPV6_ROUTE`
/// (`include/uapi/linux/rtnetlink.h`).
const ROUTE_GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// `RTNLGRP_TC`, in the same file.
const TC_GROUP: u32 = 4;
/// The first four bytes of the kinds of filters and qdiscs that are heard of: programs of eBPF, and
/// `clsact` and `ingress`, with which their filters go without a word (`tcf_block_put_ext()` in
/// `net/sched/cls_api.c`, Linux 6.12).
const HEARD_KINDS: [[u8; 4]; 3] = [*b"bpf\0", *b"clsa", *b"ingr"];
/// `RDMA_NL_GROUP_NOTIFY` (`include/uapi/rdma/rdma_netlink.h`); silent before Linux 6.12.
const RDMA_GROUP: u32 = 4;
/// What the kernel itself says; udev repeats it to the next group.
const UEVENT_GROUP: u32 = 1;
