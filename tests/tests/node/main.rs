//! The node ring: the driver's rooms against the real wire protocols, on a machine that needs
//! nothing but Rust.

mod api_server;
mod dra;
mod manifests;
// Only said so that lints know it for test code.
#[cfg(test)]
mod nri;
