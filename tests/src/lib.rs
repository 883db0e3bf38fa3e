//! The node in a box: everything around the driver that a cluster would bring, speaking the real
//! wire protocols over real sockets.

pub mod kubelet;
pub mod runtime;
