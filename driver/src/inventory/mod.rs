//! Sees which devices the node has and what they can do, again on every change.
//!
//! A [`Scanner`] looks at everything, by a few listings of netlink, or again at what has changed, and
//! finds out on which interfaces programs came and went; an [`Inventory`] has a thread that does so
//! whenever something changes, and shows the last result to everybody. What has been moved into a pod is not seen here: `dra` publishes that from the
//! records of `attach`.
//!
//! What this room never does: change anything, or know what a claim is.

mod assemble;
mod attached;
mod cni;
#[cfg(test)]
pub(crate) mod machines;
mod naming;
mod publishable;
mod rdma;
mod scan;
mod watch;

use std::io;

use crate::sys::ethtool::EthtoolError;
use crate::sys::netlink::NetlinkError;
use crate::sys::sysfs::SysfsError;

pub use self::publishable::needed_for;
pub use self::scan::{Held, IdleFunction, LeftOut, Rules, Scan, Scanner};
pub use self::watch::Inventory;

/// Why the devices of this node cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InventoryError {
    #[error("look at the network interfaces")]
    Netlink(#[from] NetlinkError),

    #[error("ask the drivers of the interfaces")]
    Ethtool(#[from] EthtoolError),

    #[error("list the programs and links of eBPF")]
    Programs(#[source] io::Error),

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
            Self::Ethtool(_) => "ethtool",
            Self::Programs(_) => "programs",
            Self::Sysfs(_) => "sysfs",
            Self::Start(_) => "start",
        }
    }
}
