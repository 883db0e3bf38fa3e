//! The node ring: rooms of the driver between real sockets, without a kernel to change.

mod dra;
