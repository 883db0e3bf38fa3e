//! The node ring: the driver's rooms against peers that speak the real protocols over real sockets,
//! on a machine that needs nothing but Rust.

// Says nothing new, but by it lints know test code.
#![cfg(test)]

mod api_server;
mod dra;
mod manifests;
mod nri;
