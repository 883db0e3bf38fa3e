//! A device: what can be allocated, with everything that a claim may select it by.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Cpus, DeviceName, IfIndex, IfName, MacAddr, PciAddress};

/// What claims can ask for: an interface of the host or, where the kernel has none for it, an RDMA
/// device or a PCI function that is handed over as it is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub name: DeviceName,
    /// `None` for what has no network interface: an RDMA device alone, or a function that is bound
    /// to `vfio-pci`.
    pub interface: Option<IfName>,
    pub index: Option<IfIndex>,
    /// Its other names, sorted.
    #[serde(default)]
    pub altnames: Vec<String>,
    /// What somebody wrote on it (`ip link set … alias`).
    #[serde(default)]
    pub alias: Option<String>,
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
    /// `None` where nobody can tell, as while it is set down.
    #[serde(default)]
    pub carrier: Option<bool>,
    /// The link layer: `ether`, `infiniband`, `none` …
    pub encapsulation: String,
    /// What it is stacked on: the device of a VLAN or a macvlan.
    #[serde(default)]
    pub parent: Option<IfName>,
    /// The bond, bridge, team or VRF that it belongs to.
    #[serde(default)]
    pub controller: Option<Controller>,
    /// Not backed by a bus device (its sysfs path is below `/sys/devices/virtual`).
    pub is_virtual: bool,
    /// Global addresses with their prefix length, sorted.
    pub addresses: Vec<IpNet>,
    pub pci: Option<PciFacts>,
    /// The root complex of what a sub-interface is stacked on; it is on no bus itself.
    #[serde(default)]
    pub parent_pcie_root: Option<String>,
    /// Normalised to `None` where sysfs says -1.
    pub numa_node: Option<u32>,
    /// The CPUs of that node.
    #[serde(default)]
    pub local_cpus: Option<Cpus>,
    /// The kernel driver's name.
    pub driver: Option<String>,
    /// What the driver says of its firmware (`ethtool -i`).
    #[serde(default)]
    pub firmware: Option<String>,
    #[serde(default)]
    pub queues: Option<Queues>,
    /// In megabits per second (10^6 bit/s).
    pub speed_mbps: Option<u32>,
    #[serde(default)]
    pub port: PortFacts,
    /// The number in `/sys/kernel/iommu_groups` and in `/dev/vfio`.
    #[serde(default)]
    pub iommu_group: Option<u32>,
    /// Functions of the same group that drivers of the kernel use. As long as there are any, nobody can
    /// open the group (only asked for where the form is [`Form::Vfio`]).
    #[serde(default)]
    pub iommu_group_held_up_by: Vec<PciAddress>,
    /// What a physical function offers; `None` if it cannot have virtual functions.
    pub sriov: Option<Sriov>,
    /// A virtual function of SR-IOV.
    pub is_sriov_vf: bool,
    /// Whose, and which.
    #[serde(default)]
    pub vf: Option<VirtualFunction>,
    /// The RDMA device over this interface, such as `mlx5_0`.
    pub rdma_device: Option<String>,
    /// Its character devices, such as `/dev/infiniband/uverbs0`.
    #[serde(default)]
    pub rdma_nodes: Vec<PathBuf>,
    #[serde(default)]
    pub rdma: Option<RdmaFacts>,
    pub ebpf: EbpfAbilities,
    /// What a provider told of it: attributes by their full names, such as `gce.dra.net/block`.
    #[serde(default)]
    pub provided: BTreeMap<String, ProvidedValue>,
}

/// What is handed over when a device is allocated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// A network interface, and its RDMA device if it has one.
    Interface,
    /// An RDMA device without a network interface.
    Rdma,
    /// A PCI function by `/dev/vfio`.
    Vfio,
}

impl Device {
    pub fn form(&self) -> Form {
        match &self.interface {
            Some(_) => Form::Interface,
            None if self.driver.as_deref() == Some(VFIO_DRIVER) => Form::Vfio,
            None => Form::Rdma,
        }
    }

    /// Whether the kernel keeps it in its namespace. What is made upon it can go.
    pub fn is_immovable(&self) -> bool {
        IMMOVABLE_KINDS.contains(&self.kind.as_str())
    }

    /// The root complex that it is behind, be it by what it is stacked on.
    pub fn pcie_root(&self) -> Option<&str> {
        let own = self.pci.as_ref().map(|pci| pci.root.as_str());
        own.or(self.parent_pcie_root.as_deref()).filter(|root| !root.is_empty())
    }

    /// What people know it by: its interface, else its RDMA device, else its place on the bus.
    pub fn called(&self) -> &str {
        let interface = self.interface.as_ref().map(IfName::as_str);
        interface.or(self.rdma_device.as_deref()).unwrap_or(self.name.as_str())
    }
}

/// Kinds of interfaces that the kernel keeps in their namespace (`netns_immutable`, Linux 6.18). Nobody
/// can have one, but what is made upon it.
pub const IMMOVABLE_KINDS: [&str; 5] = ["bond", "bridge", "openvswitch", "team", "vrf"];

/// Hands PCI functions to user space.
pub const VFIO_DRIVER: &str = "vfio-pci";

/// What an interface is a member of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    pub interface: IfName,
    /// `bond`, `bridge` …
    pub kind: String,
}

/// Hardware queues in use; a combined channel counts for both ways.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Queues {
    pub rx: u32,
    pub tx: u32,
}

/// Which port of which switch or card an interface is, as its driver tells.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortFacts {
    /// `phys_port_name`, such as `p0` or, of a representor, `pf0vf1`.
    pub name: Option<String>,
    /// `phys_port_id`.
    pub id: Option<String>,
    /// `phys_switch_id`: the same for all ports of one switch.
    pub switch_id: Option<String>,
}

impl PortFacts {
    /// Whether the interface stands for a function of a card in switchdev mode: what it sends comes
    /// out there (`Documentation/networking/representors.rst`, Linux 6.12; the names are made by
    /// `__devlink_port_phys_port_name_get()` in `net/devlink/port.c`).
    pub fn is_representor(&self) -> bool {
        let Some(name) = &self.name else { return false };
        let name = name.strip_prefix('c').unwrap_or(name);
        let name = name.trim_start_matches(|c: char| c.is_ascii_digit());
        let function = name.strip_prefix("pf");
        self.switch_id.is_some()
            && function.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

/// A virtual function's place below its physical one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualFunction {
    pub pf: PciAddress,
    /// The physical function's interface, if it is on the host.
    pub pf_interface: Option<IfName>,
    /// As in `virtfn0`, and in `ip link set … vf 0`.
    pub index: u32,
}

/// What RDMA there is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RdmaFacts {
    pub link_layer: RdmaLinkLayer,
    /// As in `node_type`: `CA`, `RNIC`, `unspecified` …
    pub node_type: String,
    /// Sixteen hexadecimal digits with colons between each four.
    pub node_guid: Option<String>,
}

/// What RDMA runs over.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RdmaLinkLayer {
    InfiniBand,
    /// RDMA over Converged Ethernet.
    RoCE,
    #[serde(rename = "iWARP")]
    IWarp,
    /// The driver does not say, as that of AWS's EFA.
    Unspecified,
}

impl RdmaLinkLayer {
    /// As it is published.
    pub fn name(self) -> &'static str {
        match self {
            Self::InfiniBand => "InfiniBand",
            Self::RoCE => "RoCE",
            Self::IWarp => "iWARP",
            Self::Unspecified => "unspecified",
        }
    }
}

/// A value that an attribute of DRA can have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProvidedValue {
    Bool(bool),
    Int(i64),
    String(String),
    Version(String),
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
    /// The same, of the card or machine that its maker put it on.
    #[serde(default)]
    pub subsystem: Option<String>,
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
    /// `None` where nobody could tell, as a kernel before 6.3.
    pub xdp: Option<XdpFeatures>,
    /// What programs can ask of the NIC about a packet; `None` before Linux 6.7.
    #[serde(default)]
    pub rx_metadata: Option<RxMetadata>,
    /// What senders by AF_XDP can have the NIC do; `None` before Linux 6.8.
    #[serde(default)]
    pub xsk: Option<XskFeatures>,
    /// How many buffers a packet of AF_XDP can have without being copied; 1 is one. `None` where
    /// none can be without.
    #[serde(default)]
    pub zero_copy_segments: Option<u32>,
    /// An XDP program, ours or another's, is attached now.
    pub xdp_in_use: bool,
    /// The kernel takes TCX links (6.6 and later).
    pub tcx: bool,
    /// Names of programs attached to the interface now, XDP and TCX, sorted.
    pub programs: Vec<String>,
    /// Those of them that are attached by TCX.
    #[serde(default)]
    pub tcx_programs: Vec<String>,
    /// Names of programs that are filters of `clsact`, sorted.
    #[serde(default)]
    pub tc_filters: Vec<String>,
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
    const HW_OFFLOAD: u64 = 1 << 4;
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

    /// Programs can run on the NIC itself.
    pub fn has_hw_offload(self) -> bool {
        self.0 & Self::HW_OFFLOAD != 0
    }
}

/// The kernel's `xdp-rx-metadata-features`: what XDP programs can ask about a packet.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RxMetadata(pub u64);

impl RxMetadata {
    /// Bits of `enum netdev_xdp_rx_metadata` (`include/uapi/linux/netdev.h`, Linux 6.12).
    const TIMESTAMP: u64 = 1;
    const HASH: u64 = 1 << 1;
    const VLAN_TAG: u64 = 1 << 2;

    /// When the NIC received it, by the NIC's clock (`bpf_xdp_metadata_rx_timestamp()`).
    pub fn has_timestamp(self) -> bool {
        self.0 & Self::TIMESTAMP != 0
    }

    /// Its hash, as the NIC spreads packets by it (`bpf_xdp_metadata_rx_hash()`).
    pub fn has_hash(self) -> bool {
        self.0 & Self::HASH != 0
    }

    /// The VLAN tag that the NIC took off it (`bpf_xdp_metadata_rx_vlan_tag()`).
    pub fn has_vlan_tag(self) -> bool {
        self.0 & Self::VLAN_TAG != 0
    }
}

/// The kernel's `xsk-features`: what who sends by AF_XDP can have the NIC do.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct XskFeatures(pub u64);

impl XskFeatures {
    /// Bits of `enum netdev_xsk_flags` (`include/uapi/linux/netdev.h`, Linux 6.12).
    const TX_TIMESTAMP: u64 = 1;
    const TX_CHECKSUM: u64 = 1 << 1;

    /// Tell when a packet was sent.
    pub fn has_tx_timestamp(self) -> bool {
        self.0 & Self::TX_TIMESTAMP != 0
    }

    /// Compute checksums.
    pub fn has_tx_checksum(self) -> bool {
        self.0 & Self::TX_CHECKSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_representor_is_known_by_the_name_of_its_port() {
        let is_representor = |name: &str, switch_id: Option<&str>| {
            let [name, switch_id] = [Some(name), switch_id].map(|it| it.map(str::to_owned));
            PortFacts { name, id: None, switch_id }.is_representor()
        };
        for name in ["pf0vf1", "pf1sf88", "c1pf0", "c1pf0vf3", "pf0hpf"] {
            assert!(is_representor(name, Some("0a")), "{name}");
            assert!(!is_representor(name, None), "{name}, of a card that switches nothing");
        }
        for name in ["p0", "p0s1", "pfx", "c1", ""] {
            assert!(!is_representor(name, Some("0a")), "{name}");
        }
    }
}
