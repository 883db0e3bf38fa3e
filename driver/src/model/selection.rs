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

    /// The sentence that it means nothing here, without its full stop.
    pub fn absence(&self) -> String {
        match self {
            Self::All => "no device with programs is prepared on this node".to_owned(),
            Self::Pod(name) => format!("no device of pod {name} is prepared on this node"),
            Self::Claim(name) => format!("no device of claim {name} is prepared on this node"),
            Self::Device(name) => format!("device {name} is not prepared on this node"),
        }
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
            Self::All => f.write_str("all devices with programs"),
            Self::Pod(name) => write!(f, "all devices of pod {name}"),
            Self::Claim(name) => write!(f, "all devices of claim {name}"),
            Self::Device(name) => write!(f, "device {name}"),
        }
    }
}
