//! The node in a box, and the rings of tests that run on it.

pub mod api_server;

pub mod scheduler;
