//! Whom an operator means.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ClaimRef, DeviceName, KeptPolicy, PodRef, Record};

/// Attachments of this node, by what they belong to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Selection {
    /// Every attachment that has programs.
    All,
    /// Those of one pod: `NAMESPACE/NAME`, or its UID.
    Pod(String),
    /// Those of one claim: `NAMESPACE/NAME`, or its UID.
    Claim(String),
    /// The one of this device.
    Device(String),
}

impl Selection {
    /// Whether it means what `record` is about.
    pub fn has(&self, record: &Record) -> bool {
        let is_meant = self.names(&record.pod, &record.claim, &record.device.name);
        is_meant && (*self != Self::All || record.datapath.is_some())
    }

    /// The same for what is kept of a former one.
    pub fn has_kept(&self, kept: &KeptPolicy) -> bool {
        self.names(&kept.pod, &kept.claim, &kept.device)
    }

    fn names(&self, pod: &PodRef, claim: &ClaimRef, device: &DeviceName) -> bool {
        match self {
            Self::All => true,
            Self::Pod(name) => pod.to_string() == *name || pod.uid.as_str() == name,
            Self::Claim(name) => claim.to_string() == *name || claim.uid.as_str() == name,
            Self::Device(name) => device.as_str() == name,
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("any device with programs"),
            Self::Pod(name) => write!(f, "a device of pod {name}"),
            Self::Claim(name) => write!(f, "a device of claim {name}"),
            Self::Device(name) => write!(f, "device {name}"),
        }
    }
}
