//! The unmodified driver with hardware: NICs on two NUMA nodes and behind two roots of `PCIe`,
//! virtual functions, RDMA, and kinds of links that a machine's own kernel may not have. Only guests of the vm
//! ring have all that (`xtask/src/vm/hardware.rs`), so the kernel ring leaves it to them.

mod alignment;
mod attributes;
mod exclusive;
mod kinds;
mod machine;
mod needs_netkit;
mod needs_rxe_in_pods;
mod needs_xdp_features;
mod returns;
mod rxe;
mod sriov;
mod topology;
