//! The kernel ring: what we rely on, shown on the running kernel. Needs root.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod inventory;
mod netlink;
mod sandbox;
