//! The operator's door: a unix socket below the state directory, by which rules are laid over the
//! filters of attachments while their pods run.
//!
//! It speaks HTTP/1.1 with JSON, to root alone. `PUT /v1/policies` applies a policy, `DELETE` takes
//! it away; `weir policy` calls them by [`call`]. This room translates: it has `claim` read the policy
//! and asks the worker of `attach`, decides nothing and remembers nothing.

mod api;
mod client;
mod server;

use std::io;
use std::path::{Path, PathBuf};

pub use self::api::{Applied, Form, PolicyAnswer, PolicyRequest, ProblemText, Refusal};
pub use self::client::{CallError, Verb, call};
pub use self::server::Door;

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("listen on {}", .path.display())]
pub struct AdminError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Where the door of the driver that keeps its state in `state_dir` is.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("weir.sock")
}

/// The one resource.
const PATH: &str = "/v1/policies";

/// Largest body that is read, in bytes: 4096 rules with all that they can name, and room.
const LARGEST_BODY: usize = 4 << 20;
