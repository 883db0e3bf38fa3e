//! Our attributes.

use ipnet::IpNet;

use super::value::Value;
use super::{Entry, PROVIDED, Seen};
use crate::model::{Device, EbpfAbilities, Form, XdpFeatures};

pub(super) const fn string(name: &'static str, of: fn(&Seen<'_>) -> Option<Value>) -> Entry {
    Entry { name, kind: "string", of }
}

pub(super) const fn int(name: &'static str, of: fn(&Seen<'_>) -> Option<Value>) -> Entry {
    Entry { name, kind: "int", of }
}

pub(super) const fn flag(name: &'static str, of: fn(&Seen<'_>) -> Option<Value>) -> Entry {
    Entry { name, kind: "bool", of }
}

/// In the order of their importance: where a device is, what it is, what it can do, how it is.
pub(super) const OURS: &[Entry] = &[
    string("ifName", |it| Some(Value::text(it.device.interface.as_ref()?))),
    string("form", |it| Some(Value::text(form(it.device.form())))),
    string("resource.kubernetes.io/pcieRoot", |it| Some(Value::text(it.device.pcie_root()?))),
    int("resource.kubernetes.io/numaNode", |it| Some(Value::int(it.device.numa_node?))),
    string("resource.kubernetes.io/pciBusID", pci_address),
    flag("rdma", |it| Some(Value::Bool(it.device.rdma_device.is_some()))),
    string("rdmaDevice", |it| Some(Value::text(it.device.rdma_device.as_ref()?))),
    string("rdmaLinkLayer", |it| Some(Value::text(it.device.rdma.as_ref()?.link_layer.name()))),
    string("type", |it| Some(Value::text(&it.device.kind))),
    flag("virtual", |it| Some(Value::Bool(it.device.is_virtual))),
    string("kernelDriver", |it| Some(Value::text(it.device.driver.as_ref()?))),
    int("linkSpeedMbps", |it| Some(Value::int(it.device.speed_mbps?))),
    flag("isSriovVf", |it| Some(Value::Bool(it.device.is_sriov_vf))),
    string("pfName", |it| Some(Value::text(it.device.vf.as_ref()?.pf_interface.as_ref()?))),
    int("vfIndex", |it| Some(Value::int(it.device.vf.as_ref()?.index))),
    flag("sriov", |it| Some(Value::Bool(it.device.sriov.is_some()))),
    int("mtu", |it| Some(Value::int(interface(it)?.mtu))),
    string("state", |it| Some(Value::text(&it.device.state))),
    flag("carrier", |it| Some(Value::Bool(it.device.carrier?))),
    string("encapsulation", |it| Some(Value::text(&it.device.encapsulation))),
    string("mac", |it| Some(Value::text(&it.device.mac?.to_string()))),
    flag("tcx", |it| Some(Value::Bool(it.device.ebpf.tcx))),
    flag("xdpNative", |it| xdp(it, XdpFeatures::is_native)),
    flag("xdpInUse", |it| Some(Value::Bool(it.device.ebpf.xdp_in_use))),
    flag("ebpf", |it| Some(Value::Bool(has_programs(&it.device.ebpf)))),
    Entry { name: PROVIDED, kind: "any", of: |_| None },
    string("pciVendor", |it| Some(Value::text(it.device.pci.as_ref()?.vendor.as_ref()?))),
    string("pciDevice", |it| Some(Value::text(it.device.pci.as_ref()?.device.as_ref()?))),
    flag("representor", |it| it.device.port.is_representor().then_some(Value::Bool(true))),
    string("physSwitchID", |it| Some(Value::text(it.device.port.switch_id.as_ref()?))),
    flag("iommuGroupViable", |it| {
        let is_held_up = !it.device.iommu_group_held_up_by.is_empty();
        (it.device.form() == Form::Vfio).then_some(Value::Bool(!is_held_up))
    }),
    int("iommuGroup", |it| Some(Value::int(it.device.iommu_group?))),
    string("controller", |it| Some(Value::text(&it.device.controller.as_ref()?.interface))),
    string("controllerType", |it| Some(Value::text(&it.device.controller.as_ref()?.kind))),
    string("parent", |it| Some(Value::text(it.device.parent.as_ref()?))),
    flag("xdpFrags", |it| xdp(it, XdpFeatures::has_frags)),
    flag("xdpRedirect", |it| xdp(it, XdpFeatures::has_redirect)),
    flag("xdpZeroCopy", |it| xdp(it, XdpFeatures::has_zero_copy)),
    Entry {
        name: "kernelVersion",
        kind: "version",
        of: |it| Some(Value::Version(it.kernel?.to_owned())),
    },
    string("physPortName", |it| Some(Value::text(it.device.port.name.as_ref()?))),
    string("ipv4", |it| Value::list(addresses(it.device, |net| matches!(net, IpNet::V4(_))))),
    string("ipv6", |it| Value::list(addresses(it.device, |net| matches!(net, IpNet::V6(_))))),
    int("sriovVfs", |it| Some(Value::int(it.device.sriov?.num_vfs))),
    int("rxQueues", |it| Some(Value::int(it.device.queues?.rx))),
    int("txQueues", |it| Some(Value::int(it.device.queues?.tx))),
    string("pciAddress", pci_address),
    flag("xdpRxHash", |it| Some(Value::Bool(it.device.ebpf.rx_metadata?.has_hash()))),
    flag("xdpRxTimestamp", |it| Some(Value::Bool(it.device.ebpf.rx_metadata?.has_timestamp()))),
    flag("xdpVlanTag", |it| Some(Value::Bool(it.device.ebpf.rx_metadata?.has_vlan_tag()))),
    int("xdpZeroCopySegments", |it| Some(Value::int(it.device.ebpf.zero_copy_segments?))),
    flag("xdpHardwareOffload", |it| xdp(it, XdpFeatures::has_hw_offload)),
    flag("xskTxTimestamp", |it| Some(Value::Bool(it.device.ebpf.xsk?.has_tx_timestamp()))),
    flag("xskTxChecksum", |it| Some(Value::Bool(it.device.ebpf.xsk?.has_tx_checksum()))),
    string("alias", |it| Some(Value::text(it.device.alias.as_ref()?))),
    string("altNames", |it| Value::list(it.device.altnames.iter().cloned())),
    string("rdmaNodeGUID", |it| Some(Value::text(it.device.rdma.as_ref()?.node_guid.as_ref()?))),
    string("rdmaNodeType", |it| Some(Value::text(&it.device.rdma.as_ref()?.node_type))),
    string("pfPciAddress", |it| Some(Value::text(&it.device.vf.as_ref()?.pf.to_string()))),
    string("physPortID", |it| Some(Value::text(it.device.port.id.as_ref()?))),
    string("firmware", |it| Some(Value::text(it.device.firmware.as_ref()?))),
    string("pciSubsystem", |it| Some(Value::text(it.device.pci.as_ref()?.subsystem.as_ref()?))),
];

fn form(form: Form) -> &'static str {
    match form {
        Form::Interface => "interface",
        Form::Rdma => "rdma",
        Form::Vfio => "vfio",
    }
}

/// The device, if it has an interface.
fn interface<'a>(seen: &Seen<'a>) -> Option<&'a Device> {
    seen.device.interface.as_ref().map(|_| seen.device)
}

pub(super) fn pci_address(seen: &Seen<'_>) -> Option<Value> {
    Some(Value::text(&seen.device.pci.as_ref()?.address.to_string()))
}

/// Not known is not the same as not possible.
fn xdp(seen: &Seen<'_>, can: fn(XdpFeatures) -> bool) -> Option<Value> {
    Some(Value::Bool(can(seen.device.ebpf.xdp?)))
}

fn has_programs(ebpf: &EbpfAbilities) -> bool {
    ebpf.xdp_in_use || !ebpf.programs.is_empty()
}

pub(super) fn addresses(
    device: &Device,
    is_wanted: fn(&IpNet) -> bool,
) -> impl Iterator<Item = String> {
    device.addresses.iter().filter(move |net| is_wanted(net)).map(IpNet::to_string)
}
