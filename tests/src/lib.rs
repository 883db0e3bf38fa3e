//! The node in a box, and what its rings of tests stand on.

pub mod runtime;
