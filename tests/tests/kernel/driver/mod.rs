//! The unmodified driver, end to end: its binary on a node in a box, with kubelet and a container
//! runtime at its sockets and traffic on its wires.

mod attach;
mod demo;
mod dhcp;
mod drops;
mod gate;
mod look;
mod policy;
mod publish;
mod refuse;
mod restart;
mod watched;
mod world;
