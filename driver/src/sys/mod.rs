//! The kernel's doors: namespaces, route netlink, sysfs, bpf(2), files of ours, and the questions about
//! XDP.
//!
//! The only room with `unsafe` and raw system calls. What comes in through here becomes a `model`
//! type on the line where it arrives. This room decides nothing and knows no other room but `model`.

pub mod asked;
pub mod bpf;
pub mod clock;
pub mod cookie;
pub mod disk;
pub mod ethtool;
pub mod gate;
pub mod generic;
pub mod netdev;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod rdma;
pub mod socket;
pub mod sysctl;
pub mod sysfs;
pub mod xdp;
