//! Stub.

pub mod netns;
