//! Speaks with kubelet and the API server about what this node has and what claims got of it.
//!
//! This room owns the two unix sockets below kubelet's directory, the node's `ResourceSlice`s, and
//! our entries
//! in the status of claims, and tells claims and pods by events what failed. It fetches a claim, turns its allocation into
//! [`PrepareClaim`](crate::attach::PrepareClaim), and has the [`Worker`](crate::attach::Worker) do
//! the work.
//!
//! What it never does: change the node, know what a configuration means (`claim` does), or speak
//! with the container runtime. `app` starts [`serve`], [`Publisher::run`], [`StatusWriter::run`],
//! [`Events::run`], [`Sweeper::run`] and [`RuleFollower::run`]; nothing else calls in here.

mod attributes;
mod claims;
mod error;
mod events;
mod filter;
mod health;
mod mirror;
mod offered;
mod plugin;
mod profiles;
pub mod proto;
mod publisher;
mod registration;
mod rules;
mod serve;
mod sharing;
mod sieve;
mod slices;
mod socket;
mod status;
mod sweeper;
mod taints;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod machines;

pub use self::attributes::{Names, Vocabulary};
pub(crate) use self::claims::is_meant;
pub use self::error::{ClaimError, ServeError};
pub use self::events::Events;
pub use self::filter::{CompileError, Filter, Undecided, Verdict};
pub use self::health::HealthSources;
pub use self::offered::{Manner, Offered, OfferedDevice, Standing, offered};
pub use self::plugin::Plugin;
pub use self::publisher::{Offer, Publisher};
pub use self::rules::{Pace, RuleBoard, RuleFollower, in_force};
pub use self::serve::{registration_path, serve, service_path};
pub use self::sharing::Shares;
pub use self::sieve::{Sieve, verdicts};
pub use self::status::{News, StatusWriter};
pub use self::sweeper::{Grace, Sweeper};

/// The devices that this driver has on this node, as the DRA API names them. The pool is called
/// like the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pool {
    /// The driver's name, such as `weir.dev`.
    pub driver: String,
    /// The Node object's name.
    pub node: String,
}

/// How long one call to the API server may take. The client itself has no limit.
const API_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
