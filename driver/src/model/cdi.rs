//! What lets containers in: a specification of the Container Device Interface.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{AttachmentId, ClaimUid};

/// All devices of one claim that are in their sandbox now. There is one file for each.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiSpec {
    pub claim: ClaimUid,
    /// The network namespace that a container has to be in to get one of the devices: its cookie
    /// (`SO_NETNS_COOKIE`), which no other namespace gets until the node restarts. Inode numbers
    /// are used again.
    pub cookie: u64,
    pub devices: Vec<CdiDevice>,
}

/// One device, and what a container that names it gets besides.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiDevice {
    /// What comes after `weir.dev/nic=`.
    pub name: String,
    /// Variables and their values.
    pub environment: Vec<(String, String)>,
    /// Character devices, such as `/dev/infiniband/uverbs0`.
    pub nodes: Vec<PathBuf>,
}

/// What kind of device a CDI specification of the driver is about: `weir.dev/nic`.
pub fn cdi_kind(driver: &str) -> String {
    format!("{driver}/nic")
}

impl AttachmentId {
    /// The whole name of the attachment's CDI device, as kubelet passes it on to the runtime.
    pub fn cdi_id(&self, driver: &str) -> String {
        format!("{}={}", cdi_kind(driver), self.cdi_device())
    }

    /// The name of the attachment's CDI device. Fixed at prepare, before there is a sandbox.
    pub fn cdi_device(&self) -> String {
        match &self.share {
            Some(share) => format!("{}-{}-{share}", self.claim, self.device),
            None => format!("{}-{}", self.claim, self.device),
        }
    }
}
