//! Sees which devices the node has and what they can do, again on every change.
//!
//! A [`Scanner`] looks once, at route netlink, sysfs and the kernel's answers about eBPF; an
//! [`Inventory`] has a thread that does so whenever the network changes, and shows the last result
//! to everybody. What has been moved into a pod is not seen here: `dra` publishes that from the
//! records of `attach`.
//!
//! What this room never does: change anything, or know what a claim is.

mod assemble;
mod cni;
mod naming;
mod publishable;
mod scan;
mod watch;

use std::io;

use crate::sys::netlink::NetlinkError;
use crate::sys::sysfs::SysfsError;

pub use self::scan::{LeftOut, Rules, Scan, Scanner};
pub use self::watch::Inventory;

/// Why the devices of this node cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InventoryError {
    #[error("look at the network interfaces")]
    Netlink(#[from] NetlinkError),

    #[error("look at the machine")]
    Sysfs(#[from] SysfsError),

    #[error("start the thread that watches the network")]
    Start(#[source] io::Error),
}

impl InventoryError {
    /// One word of a closed set, for labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Netlink(error) => error.reason(),
            Self::Sysfs(_) => "sysfs",
            Self::Start(_) => "start",
        }
    }
}
