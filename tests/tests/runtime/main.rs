//! The runtime ring: the unmodified driver with a real containerd and runc, which no model replaces.
//! Needs root, packages and namespaces of its own (`cargo xtask test --ring runtime`).

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod closed;
mod open;
mod ring;
#[path = "../kernel/driver/world.rs"]
#[expect(dead_code, reason = "the kernel ring asks more of it")]
mod world;
