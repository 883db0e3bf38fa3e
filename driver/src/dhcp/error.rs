//! Why there is no address from a DHCP server, in words that fit on a pod.

use std::io;
use std::net::Ipv4Addr;

use crate::attach::AttachError;
use crate::model::{DeviceName, IfName};
use crate::sys::netlink::NetlinkError;
use crate::sys::netns::NetnsError;
use crate::telemetry::chain;

/// What went wrong between us and the DHCP servers of a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DhcpError {
    #[error("no DHCP server has offered an address within {seconds} s")]
    NoOffer { seconds: u64 },

    /// It offered an address, or had lent one, and then said no more.
    #[error("DHCP server {server} has not answered within {seconds} s")]
    NoAnswer { server: Ipv4Addr, seconds: u64 },

    /// DHCPNAK.
    #[error("DHCP server {server} refuses{}", said(.message))]
    Refused { server: Ipv4Addr, message: String },

    #[error("there is no interface {0}")]
    NoInterface(IfName),

    #[error("talk to DHCP servers")]
    Socket(#[from] io::Error),

    #[error("look for the interface")]
    Netlink(#[from] NetlinkError),

    #[error("enter the pod's namespace")]
    Netns(#[from] NetnsError),

    /// A message of ours that cannot be written: a bug.
    #[error("write a DHCP message: {0}")]
    Message(String),

    /// The driver stops, or its thread has met a bug.
    #[error("the conversation with DHCP servers was broken off")]
    Ended,

    #[cfg(not(feature = "dhcp"))]
    #[error("this driver is built without a DHCP client")]
    NotBuilt,
}

/// Why a device has no address.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("device {device}: interface.dhcp: {}", chain(.source))]
    Dhcp { device: DeviceName, source: DhcpError },

    /// There was one, and it was let go again.
    #[error("{}", chain(.0))]
    Record(AttachError),
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message:?}") }
}

impl DhcpError {
    /// Whether the server said no, so that the address may not be used any more.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}
