//! The node in a box, and what its rings of tests stand on: everything around the driver that a
//! cluster would bring, speaking the real wire protocols over real sockets.

pub mod api_server;
pub mod bench;
pub mod containerd;
pub mod demo;
pub mod kubelet;
pub mod node;
pub mod oracle;
mod quantity;
pub mod runtime;
pub mod sandbox;
pub mod scheduler;
pub mod webhook;
