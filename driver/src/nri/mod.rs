//! The runtime's side.

pub mod mux;
pub mod proto;
pub mod ttrpc;
