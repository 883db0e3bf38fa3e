//! The node ring: the driver's edges against peers that speak the real protocols over real sockets.
//! Needs no privileges.

// Only said so that lints know it for test code.
#[cfg(test)]
mod nri;
