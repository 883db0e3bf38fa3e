//! A device: what can be allocated, with everything that a claim may select it by.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{DeviceName, IfIndex, IfName, MacAddr, PciAddress};

/// An interface of the host that claims can ask for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub name: DeviceName,
    pub interface: IfName,
    pub index: IfIndex,
    pub mac: Option<MacAddr>,
    /// In bytes, without the link-layer header.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`); says nothing about the carrier.
    #[serde(default)]
    pub is_up: bool,
    /// Operational state as in RFC 2863: `up`, `down`, `unknown`, `dormant` …
    pub state: String,
    /// The link kind, as in `ip -d link` (`veth`, `bond` …), or `device` for hardware.
    pub kind: String,
    /// The link layer: `ether`, `infiniband`, `none` …
    pub encapsulation: String,
    /// Not backed by a bus device (its sysfs path is below `/sys/devices/virtual`).
    pub is_virtual: bool,
    /// Global addresses with their prefix length, sorted.
    pub addresses: Vec<IpNet>,
    pub pci: Option<PciFacts>,
    /// Normalised to `None` where sysfs says -1.
    pub numa_node: Option<u32>,
    /// The kernel driver's name.
    pub driver: Option<String>,
    /// In megabits per second (10^6 bit/s).
    pub speed_mbps: Option<u32>,
    /// What a physical function offers; `None` if it cannot have virtual functions.
    pub sriov: Option<Sriov>,
    /// A virtual function of SR-IOV.
    pub is_sriov_vf: bool,
    /// The RDMA device over this interface, such as `mlx5_0`.
    pub rdma_device: Option<String>,
    /// Its character devices, such as `/dev/infiniband/uverbs0`.
    #[serde(default)]
    pub rdma_nodes: Vec<PathBuf>,
    pub ebpf: EbpfAbilities,
}

/// Where on the PCI buses a device is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PciFacts {
    pub address: PciAddress,
    /// The root complex, `pci` and domain and bus: `pci0000:3a`.
    pub root: String,
    /// Four hexadecimal digits, such as `15b3`.
    pub vendor: Option<String>,
    pub device: Option<String>,
}

/// SR-IOV numbers of a physical function.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sriov {
    pub total_vfs: u32,
    pub num_vfs: u32,
}

/// What eBPF can do on an interface.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EbpfAbilities {
    /// `None` where nobody could tell: a kernel before 6.3, or a driver built without libbpf.
    pub xdp: Option<XdpFeatures>,
    /// An XDP program, ours or another's, is attached now.
    pub xdp_in_use: bool,
    /// The kernel takes TCX links (6.6 and later).
    pub tcx: bool,
    /// Names of programs attached to the interface now, XDP and TCX, sorted.
    pub programs: Vec<String>,
}

/// The kernel's `xdp-features` of an interface: what its driver can do, not what it does.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct XdpFeatures(pub u64);

impl XdpFeatures {
    /// Bits of `enum netdev_xdp_act` (`include/uapi/linux/netdev.h`, Linux 6.12).
    const BASIC: u64 = 1;
    const REDIRECT: u64 = 1 << 1;
    const XSK_ZEROCOPY: u64 = 1 << 3;
    const RX_SG: u64 = 1 << 5;

    /// Programs run in the driver and may return PASS, DROP, TX and ABORTED.
    pub fn is_native(self) -> bool {
        self.0 & Self::BASIC != 0
    }

    /// Programs may return REDIRECT.
    pub fn has_redirect(self) -> bool {
        self.0 & Self::REDIRECT != 0
    }

    /// AF_XDP sockets without copying.
    pub fn has_zero_copy(self) -> bool {
        self.0 & Self::XSK_ZEROCOPY != 0
    }

    /// Packets in several buffers, as large MTUs need them.
    pub fn has_frags(self) -> bool {
        self.0 & Self::RX_SG != 0
    }
}
