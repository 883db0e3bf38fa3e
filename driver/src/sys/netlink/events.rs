//! News that something about the network has changed; what, has to be looked up.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::NetlinkError;

/// Listens for changes of interfaces, addresses and routes in one namespace.
///
/// The one part of this room that is asynchronous: whoever waits for the network waits for other
/// things too.
#[derive(Debug)]
pub struct LinkEvents {
    socket: AsyncFd<Socket>,
}

impl LinkEvents {
    /// Starts to listen in the namespace of the calling thread, which must be within a tokio
    /// runtime. What changes from now on is told of.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Self> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            let groups = GROUPS.iter().fold(0, |groups, group| groups | 1 << (group - 1));
            socket.bind(&SocketAddr::new(0, groups))?;
            socket.set_non_blocking(true)?;
            // SAFETY: `Socket` owns its descriptor, always answers the same one, and closes it only
            // when dropped; the `AsyncFd` owns the `Socket`.
            let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
            Ok(Self { socket })
        };
        open().map_err(NetlinkError::Events)
    }

    /// Waits until something has changed since the last call. Many changes at once are one; so are
    /// changes that the kernel had no room to tell of (`ENOBUFS`).
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Events`]: the socket is of no more use.
    pub async fn changed(&self) -> Result<(), NetlinkError> {
        loop {
            let mut ready = self.socket.readable().await.map_err(NetlinkError::Events)?;
            let mut has_changed = false;
            while let Ok(news) = ready.try_io(|socket| discard(socket.get_ref())) {
                news.map_err(NetlinkError::Events)?;
                has_changed = true;
            }
            if has_changed {
                return Ok(());
            }
        }
    }
}

/// Takes one datagram off the socket. What does not fit the buffer is lost, which is fine.
fn discard(socket: &Socket) -> io::Result<()> {
    match socket.recv(&mut Vec::with_capacity(16), 0) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR` and `_IPV6_ROUTE`
/// (`include/uapi/linux/rtnetlink.h`).
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
