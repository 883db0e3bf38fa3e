//! The unmodified driver, end to end: its binary on a node in a box, with kubelet and a container
//! runtime at its sockets and traffic on its wires.

mod attach;
pub(crate) mod configured;
mod demo;
mod dhcp;
mod drops;
mod failed;
mod gate;
mod hotplug;
mod look;
mod offer;
mod policy;
mod publish;
mod refuse;
mod restart;
mod shared;
pub(crate) mod snapshot;
mod storm;
mod vm_only;
mod watched;
pub(crate) mod world;
