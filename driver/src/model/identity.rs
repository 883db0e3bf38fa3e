//! Who is who: claims, pods, sandboxes, namespaces, attachments.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DeviceName;

/// The kernel's number for an interface. It means something only together with a namespace.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that cannot be a UID.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no UID: 1 to 63 of a-z, A-Z, 0-9 and `-`")]
pub struct IdentityError(String);

/// Checks what the API server hands out as a UID. The set of characters is what we rely on: a
/// claim's UID becomes a directory name on bpffs, where dots and slashes are not allowed.
fn check_uid(text: &str) -> Result<Box<str>, IdentityError> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Ok(text.into()) } else { Err(IdentityError(text.to_owned())) }
}

macro_rules! uid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check_uid(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdentityError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(uid: $name) -> Self {
                uid.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

uid! {
    /// The UID of a ResourceClaim. A claim of the same name with another UID is another claim.
    ClaimUid
}
uid! {
    /// The UID of a pod.
    PodUid
}

uid! {
    /// One of several allocations of a device that can be shared (`shareID`).
    ShareId
}

/// A ResourceClaim, by name and by identity.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ClaimRef {
    pub namespace: String,
    pub name: String,
    pub uid: ClaimUid,
}

impl fmt::Display for ClaimRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod, by name and by identity.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: PodUid,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A network namespace's identity: device and inode of its file in nsfs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct NetnsId {
    pub device: u64,
    pub inode: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

/// Where a network namespace was found, and which one it was. A path that has come to mean another
/// namespace is noticed by the identity.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct NetnsRef {
    pub path: PathBuf,
    pub id: NetnsId,
}

/// A pod's sandbox as the runtime tells of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sandbox {
    /// The runtime's own name for it.
    pub id: String,
    pub pod: PodRef,
    /// None for a pod on the host's network, and at stop where the runtime has forgotten it.
    pub netns: Option<NetnsRef>,
}

/// One device of one claim, or one share of it: the name of an attachment, of its record and of its
/// pins.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct AttachmentId {
    pub claim: ClaimUid,
    pub device: DeviceName,
    /// `None` for a device that the claim has to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<ShareId>,
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.claim, self.device)?;
        match &self.share {
            Some(share) => write!(f, "/{share}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_can_be_a_directory_name() {
        assert!("6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c11".parse::<ClaimUid>().is_ok());
        for bad in ["", "../x", "a.b", "a/b", &"1".repeat(64)] {
            assert!(bad.parse::<ClaimUid>().is_err(), "{bad:?}");
        }
    }
}
