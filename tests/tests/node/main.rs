//! The node ring: the driver's rooms against peers that speak the real protocols over real sockets,
//! on a machine that needs nothing but Rust.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod api_server;
mod dra;
mod manifests;
mod nri;
mod oracle;
mod selectors;
