//! The kernel ring: what we rely on, shown on the running kernel. Needs root, and runs in mount,
//! network and process namespaces of its own on one thread (`cargo xtask test --ring kernel`).

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod config;
mod datapath;
mod dranet;
mod driver;
mod hardware;
mod inventory;
mod netlink;
mod sandbox;
