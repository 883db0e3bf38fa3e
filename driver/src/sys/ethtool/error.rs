//! Why a driver's settings could not be read or changed.

use crate::sys::netlink::NetlinkError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EthtoolError {
    #[error("the kernel has no ethtool by netlink")]
    NoFamily,

    #[error("there is no {noun} {name}")]
    Unknown { noun: &'static str, name: String },

    #[error("feature {name} cannot be changed")]
    Fixed { name: String },

    /// The driver left them as they were; everything is as it was.
    #[error("the driver did not take {}", .names.join(", "))]
    NotTaken { names: Vec<String> },

    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
