//! The runtime's side: a plugin of the Node Resource Interface (NRI), by which containerd and CRI-O
//! tell of sandboxes that start and stop.
//!
//! This room owns the wire format from the socket up ([`mux`], [`ttrpc`], [`proto`]), the session
//! with its reconnects, and the time that an event may take. What an event asks for it sends to the
//! [`Worker`](crate::attach::Worker).
//!
//! What it never does: call the API server, change the node, or leave an event unanswered. Field
//! numbers, methods and their order are those of NRI 0.8 to 0.12 (`pkg/api/api.proto`).

mod events;
pub mod mux;
mod plugin;
#[expect(clippy::doc_markdown, reason = "generated")]
pub mod proto;
mod sandboxes;
mod session;
pub mod ttrpc;

pub use self::plugin::{Connection, NriConfig, Plugin};
#[cfg(any(test, feature = "testing"))]
pub use self::session::listen;
