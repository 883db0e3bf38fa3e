//! What can go wrong between us, kubelet and the API server, in words that fit on a pod.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::attach::AttachError;
use crate::dhcp::LeaseError;
use crate::model::{ClaimRef, DeviceName, IdentityError, Problems};
use crate::provider::ProviderError;

/// Why a claim could not be prepared or unprepared. Its text is what kubelet shows on the pod.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// A sandbox that starts now would not reach us.
    #[error(
        "the container runtime's NRI connection is down, a pod started now would miss its device"
    )]
    RuntimeAway,

    /// Kubelet named a claim by something that is no UID.
    #[error("claim {namespace}/{name}: {source}")]
    Uid { namespace: String, name: String, source: IdentityError },

    /// The API server did not hand out the claim.
    #[error("fetch claim {claim}: {message}")]
    Fetch { claim: ClaimRef, message: String },

    /// The claim was deleted and another one made under its name.
    #[error("claim {claim} has the UID {found} now, {} was asked for", .claim.uid)]
    Replaced { claim: ClaimRef, found: String },

    #[error("claim {claim} has no allocation")]
    NotAllocated { claim: ClaimRef },

    /// A device can be moved into one pod only.
    #[error(
        "claim {claim} is reserved for {consumers} consumers, it must be exactly one pod: give each \
         pod a claim of its own, by a ResourceClaimTemplate"
    )]
    Consumers { claim: ClaimRef, consumers: usize },

    #[error("claim {claim} is reserved for {consumer}, which is no pod")]
    NotAPod { claim: ClaimRef, consumer: String },

    /// Something about single devices; all of it.
    #[error("claim {claim}: {}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Devices { claim: ClaimRef, problems: Vec<DeviceProblem> },

    /// Devices that have no address from a DHCP server; they are prepared, and asking again goes on
    /// from there.
    #[error("claim {claim}: {}", .failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Leases { claim: ClaimRef, failures: Vec<LeaseError> },

    /// What the claim is to get of a provider it does not get.
    #[error("claim {claim}: device {device}: {source}")]
    Profile { claim: ClaimRef, device: DeviceName, source: Box<ProviderError> },

    #[error("claim {claim}: {source}")]
    Attach { claim: ClaimRef, source: Box<AttachError> },
}

impl ClaimError {
    /// Whether it only says that the driver is stopping.
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::Attach { source, .. } if matches!(**source, AttachError::Stopping))
    }
}

/// What is wrong with one allocated device of a claim.
#[derive(Debug, thiserror::Error)]
#[error("request {request}, device {device}: {fault}")]
pub struct DeviceProblem {
    pub request: String,
    pub device: String,
    pub fault: DeviceFault,
}

/// How an allocated device can be wrong.
#[derive(Debug, thiserror::Error)]
pub enum DeviceFault {
    #[error("is in pool {pool}, this node has pool {ours}")]
    OtherPool { pool: String, ours: String },

    #[error("is no name of ours")]
    Name,

    #[error("is allocated twice")]
    Twice,

    /// The interface itself can go to one pod only.
    #[error(
        "is shared, so the pod gets an interface upon it: the configuration has to say which, in \
         `subinterface`"
    )]
    SharedWhole,

    #[error("has the share id {0:?}, which is none")]
    ShareId(String),

    /// An administrator may look at a device that is in use; we could only take it away.
    #[error("admin access is not supported, a network device cannot be in two places")]
    AdminAccess,

    #[error("{0}")]
    Config(Problems),
}

/// Why the sockets for kubelet could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    #[error(
        "socket path {} is {length} bytes long with its working name, the kernel takes {limit}: \
         choose a shorter driver name or kubelet directory",
        .path.display()
    )]
    PathTooLong { path: PathBuf, length: usize, limit: usize },

    #[error("kubelet directory {} is no UTF-8 path, kubelet could not be told of it", .path.display())]
    PathText { path: PathBuf },

    #[error("make directory {}", .path.display())]
    Directory { path: PathBuf, source: io::Error },

    #[error("listen on {}", .path.display())]
    Listen { path: PathBuf, source: io::Error },
}

/// Whether asking again would be answered the same. A conflict is: forced apply knows only one, the
/// object of that UID is gone.
pub(super) fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// What the API server or the way to it had to say, without kube's own wrapping.
///
/// For an answer that is the server's message with its code and reason, otherwise the causes from
/// the outside in.
pub(super) fn api_text(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} ({} {})", status.message, status.code, status.reason);
    }
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}
