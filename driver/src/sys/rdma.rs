//! RDMA netlink: which RDMA devices there are, whether namespaces share them, and how one gets from
//! a namespace into another.
//!
//! Numbers are those of `include/uapi/rdma/rdma_netlink.h` (Linux 6.12); the codec is our own and
//! total: whatever the bytes, what makes no sense is not there. A kernel without RDMA, or one that
//! has not loaded it, has no such sockets; that is no error, and there is nothing then.

mod codec;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_sys::protocols::NETLINK_RDMA;
use nix::libc;

use self::codec::{GET, PORT_GET, SYS_GET};
pub use self::codec::{RdmaDevice, RdmaPort, decode_device, decode_mode, decode_port};
use crate::sys::netlink::{AskSocket, NetlinkError, Raw};
use crate::sys::netns::Netns;

/// Whether every namespace sees all RDMA devices, or each has its own (`rdma system show`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetnsMode {
    Shared,
    Exclusive,
}

/// An RDMA netlink socket of one namespace. It keeps that namespace alive: drop it promptly where
/// the namespace is a pod's.
pub struct Rdma {
    socket: AskSocket<Raw>,
}

impl Rdma {
    /// Opens a socket in the namespace of the calling thread; `None` where the kernel has no RDMA.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Option<Self>, NetlinkError> {
        match AskSocket::open(NETLINK_RDMA) {
            Ok(socket) => Ok(Some(Self { socket })),
            Err(error) if is_without_rdma(&error) => Ok(None),
            Err(error) => Err(NetlinkError::Open(error)),
        }
    }

    /// The same in `netns`, by a short visit.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Open`] or [`NetlinkError::OpenIn`].
    pub fn open_in(netns: &Netns) -> Result<Option<Self>, NetlinkError> {
        netns.run(|_| Self::open()).map_err(|error| NetlinkError::OpenIn(netns.id(), error))?
    }

    /// Whether namespaces share RDMA devices. A kernel before 5.2 does not tell: they all do there.
    ///
    /// # Errors
    ///
    /// Any [`NetlinkError`].
    pub fn netns_mode(&self) -> Result<NetnsMode, NetlinkError> {
        let answers =
            self.socket.ask(&"ask for the RDMA namespace mode", codec::ask(SYS_GET), 0)?;
        let mode = answers.iter().find_map(|answer| decode_mode(&answer.body));
        Ok(mode.unwrap_or(NetnsMode::Shared))
    }

    /// All RDMA devices that this namespace sees, by index.
    ///
    /// # Errors
    ///
    /// Any [`NetlinkError`].
    pub fn devices(&self) -> Result<Vec<RdmaDevice>, NetlinkError> {
        let answers = self.socket.list(&"list RDMA devices", &codec::ask(GET))?;
        let mut devices: Vec<_> =
            answers.iter().filter_map(|answer| decode_device(&answer.body)).collect();
        devices.sort_by_key(|device| device.index);
        Ok(devices)
    }

    /// The ports of a device, each with its interface where that is in this namespace.
    ///
    /// # Errors
    ///
    /// Any [`NetlinkError`].
    pub fn ports(&self, device: u32) -> Result<Vec<RdmaPort>, NetlinkError> {
        let request = format!("list the ports of RDMA device {device}");
        let answers = self.socket.list(&request, &codec::about(PORT_GET, device))?;
        Ok(answers.iter().filter_map(|answer| decode_port(&answer.body)).collect())
    }

    /// Moves a device of this namespace into another one. Whoever uses it loses it.
    ///
    /// The calling thread has to be in this namespace as well, not only the socket: the kernel takes
    /// the device out of the caller's (`ib_device_set_netns_put()` passes on
    /// `current->nsproxy->net_ns`, the same file).
    ///
    /// # Errors
    ///
    /// [`NetlinkError::is_unsupported`] where namespaces share RDMA devices, or where the driver
    /// cannot take a device away from who uses it (`ib_device_set_netns_put()` in
    /// `drivers/infiniband/core/device.c`, Linux 6.12).
    pub fn move_to(&self, device: u32, netns: &Netns) -> Result<(), NetlinkError> {
        let request = format!("move RDMA device {device} to {}", netns.id());
        let descriptor = netns.as_fd().as_raw_fd().cast_unsigned();
        self.socket.ask(&request, codec::moving(device, descriptor), 0).map(drop)
    }

    /// Gives a device of this namespace another name.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::is_exists`] where another one has it, in whichever namespace.
    pub fn rename(&self, device: u32, name: &str) -> Result<(), NetlinkError> {
        let request = format!("rename RDMA device {device} to {name}");
        self.socket.ask(&request, codec::naming(device, name), 0).map(drop)
    }
}

/// A kernel that knows nothing of the protocol, or cannot load what does (`netlink_create()` in
/// `net/netlink/af_netlink.c`, Linux 6.12).
fn is_without_rdma(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPROTONOSUPPORT)
}

impl fmt::Debug for Rdma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rdma")
    }
}

/// Everything that this room reads out of a message, for whoever wants to know whether any bytes can
/// harm it. Answers how many things it told of.
#[cfg(any(test, feature = "testing"))]
pub fn read_all(body: &[u8]) -> usize {
    let (device, port) = (decode_device(body).is_some(), decode_port(body).is_some());
    usize::from(device) + usize::from(port) + usize::from(decode_mode(body).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_rdma_is_no_error() {
        assert!(is_without_rdma(&io::Error::from_raw_os_error(libc::EPROTONOSUPPORT)));
        assert!(!is_without_rdma(&io::Error::from_raw_os_error(libc::EPERM)));
    }
}
