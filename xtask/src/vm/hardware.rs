//! What a guest has that the machine may not: two NUMA nodes, a root of `PCIe` on each, and NICs behind
//! them.
//!
//! ```text
//! node 0, CPUs 0 and 1   pci0000:20   igb 52:54:00:00:00:10
//! node 1, CPUs 2 and 3   pci0000:40   igb 52:54:00:00:00:11, virtio-net 52:54:00:00:00:12
//! ```
//!
//! All three are on one hub, and each igb may have up to seven virtual functions. An IOMMU gives each
//! function a group of its own, and translates for none that is not handed over.

/// As QEMU has them, in an order that it understands: the IOMMU before what is behind it.
const ARGUMENTS: &str = "\
    -smp 4,sockets=2,cores=2 -m 2G -nic none \
    -object memory-backend-ram,id=memory0,size=1G -object memory-backend-ram,id=memory1,size=1G \
    -numa node,nodeid=0,cpus=0-1,memdev=memory0 -numa node,nodeid=1,cpus=2-3,memdev=memory1 \
    -numa dist,src=0,dst=1,val=20 \
    -device intel-iommu,intremap=on,device-iotlb=on \
    -device pxb-pcie,id=root0,bus_nr=0x20,bus=pcie.0,numa_node=0 \
    -device pxb-pcie,id=root1,bus_nr=0x40,bus=pcie.0,numa_node=1 \
    -device pcie-root-port,id=port0,bus=root0,chassis=1,slot=1 \
    -device pcie-root-port,id=port1,bus=root1,chassis=2,slot=2 \
    -device pcie-root-port,id=port2,bus=root1,chassis=3,slot=3 \
    -netdev hubport,id=hub0,hubid=0 -netdev hubport,id=hub1,hubid=0 -netdev hubport,id=hub2,hubid=0 \
    -device igb,bus=port0,netdev=hub0,mac=52:54:00:00:00:10 \
    -device igb,bus=port1,netdev=hub1,mac=52:54:00:00:00:11 \
    -device virtio-net-pci,bus=port2,netdev=hub2,mac=52:54:00:00:00:12";

/// What the kernel has to be told to use the IOMMU for what is handed over, and for nothing else.
pub(super) const KERNEL_ARGUMENTS: &str = "intel_iommu=on iommu=pt";

/// QEMU's words for all of it.
pub(super) fn arguments() -> impl Iterator<Item = &'static str> {
    ARGUMENTS.split_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_iommu_comes_before_what_is_behind_it() {
        let words: Vec<_> = arguments().collect();
        let place = |start: &str| words.iter().position(|word| word.starts_with(start)).unwrap();
        assert!(place("intel-iommu") < place("pxb-pcie"));
        assert!(place("intel-iommu") < place("igb"));
        assert!(words.iter().all(|word| !word.is_empty()));
    }
}
