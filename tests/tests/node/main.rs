//! The node ring: the driver and what surrounds it over real sockets, without a kernel's help.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api_server;
