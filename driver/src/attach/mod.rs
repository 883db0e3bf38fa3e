//! Moves one device into a pod's sandbox and back.
//!
//! This room owns the life of an attachment: it asks [`plan`](crate::plan) what to do, records the
//! intent in [`state`](crate::state), and only then has a [`Node`](crate::node::Node) do it.
//!
//! What it never does: speak to the API server, read sysfs, or know that NRI exists. `dra` sends
//! the [`Worker`] prepare and unprepare, `nri` sends it attach and detach, `admin` sends it policies
//! of the operator, and nothing else does.
//!
//! All changes to the node run one after another on one thread, so no two sandboxes ever race for
//! the same interface and no lock guards the node.

mod engine;
mod error;
mod execute;
mod notice;
mod worker;

pub use self::engine::Engine;
pub use self::error::AttachError;
pub use self::notice::{Notice, NoticeKind, Notices};
pub use self::worker::{
    Changed, Command, Desk, Ordered, PrepareClaim, Provisioned, Tenancy, Wanted, Worker,
};
