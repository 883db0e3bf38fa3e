//! Why a provider has not said what it was asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no answer of a provider, or none that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    #[error("provider {provider}: make its client: {reason}")]
    Client { provider: String, reason: String },
    #[error("provider {provider}: no answer to {path} within {} s", .limit.as_secs())]
    Late { provider: String, path: &'static str, limit: Duration },
    #[error("profile {profile:?} was not resolved within {} s", .limit.as_secs())]
    Slow { profile: String, limit: Duration },
    #[error("provider {provider}: {path}: {reason}")]
    Call { provider: String, path: &'static str, reason: String },
    #[error("provider {provider}: {path} was answered with {status}: {body}")]
    Refused { provider: String, path: &'static str, status: u16, body: String },
    #[error("provider {provider}: the answer to {path} makes no sense: {reason}")]
    Nonsense { provider: String, path: &'static str, reason: String },
    #[error("provider {provider}: read {}", .path.display())]
    File { provider: String, path: PathBuf, source: io::Error },
    #[error("provider {provider}: {}: {reason}", .path.display())]
    Format { provider: String, path: PathBuf, reason: String },
    /// None is configured, or none that says it could.
    #[error("no provider of this node resolves profiles, {profile:?} among them")]
    NoProfiles { profile: String },
    /// What is run on the node is in the way of a pod's start.
    #[error(
        "provider {provider}: profile {profile:?} comes with a program to be run on the node for each \
         container (/GetRuntimeHook), and no such program is run"
    )]
    RuntimeHook { provider: String, profile: String },
    /// It may still be the start.
    #[error("it is not known yet whom to ask for profile {profile:?}")]
    NotYet { profile: String },
    /// What it granted can be given back by nobody else.
    #[error(
        "provider {provider}: it granted a profile and is no longer asked; configure it again, or give back by hand"
    )]
    Gone { provider: String },
    #[error("profile {profile:?} of an earlier try is being given back")]
    Releasing { profile: String },
    #[error("record in {} what a provider grants", .path.display())]
    Record { path: PathBuf, source: io::Error },
}

impl ProviderError {
    /// One word of a closed set, for labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client { .. } => "client",
            Self::Late { .. } | Self::Slow { .. } => "late",
            Self::Call { .. } => "call",
            Self::Refused { .. } => "refused",
            Self::Nonsense { .. } | Self::Format { .. } => "nonsense",
            Self::File { .. } => "file",
            Self::NoProfiles { .. } => "no_profiles",
            Self::RuntimeHook { .. } => "runtime_hook",
            Self::NotYet { .. } => "not_yet",
            Self::Gone { .. } => "gone",
            Self::Releasing { .. } => "releasing",
            Self::Record { .. } => "record",
        }
    }

    /// Whether it says that what was to be released is not known there.
    pub(super) fn is_unknown_there(&self) -> bool {
        matches!(self, Self::Refused { status: 404 | 410, .. })
    }
}
