//! DraNet's attributes, by its names and with its meanings, so that claims written for it select our
//! devices (`pkg/apis/attributes.go` and `pkg/inventory/db.go` of DraNet 1.4).
//!
//! Where it and we differ on purpose: lists are sorted and cut to the API's limit, which DraNet leaves
//! to luck.

use ipnet::IpNet;
use pci_ids::FromId as _;

use super::catalog::{addresses, flag, int, pci_address, string};
use super::value::Value;
use super::{Entry, PROVIDED, Seen};
use crate::model::PciFacts;

pub(super) const DRANET: &[Entry] = &[
    string("ifName", |it| Some(Value::text(it.device.interface.as_ref()?))),
    string("resource.kubernetes.io/pcieRoot", |it| Some(Value::text(it.device.pcie_root()?))),
    int("resource.kubernetes.io/numaNode", |it| Some(Value::int(it.device.numa_node?))),
    flag("rdma", |it| Some(Value::Bool(it.device.rdma_device.is_some()))),
    string("rdmaDevice", |it| Some(Value::text(it.device.rdma_device.as_ref()?))),
    string("pciAddress", pci_address),
    string("pciVendor", |it| Some(Value::text(vendor(it.device.pci.as_ref()?)?))),
    string("pciDevice", |it| Some(Value::text(product(it.device.pci.as_ref()?)?))),
    string("pciSubsystem", |it| Some(Value::text(it.device.pci.as_ref()?.subsystem.as_ref()?))),
    int("numaNode", |it| Some(Value::int(it.device.numa_node?))),
    flag("virtual", |it| of_interface(it, it.device.is_virtual)),
    string("type", |it| with_interface(it, &it.device.kind)),
    string("state", |it| with_interface(it, &it.device.state)),
    int("mtu", |it| {
        it.device.interface.as_ref()?;
        Some(Value::int(it.device.mtu))
    }),
    string("encapsulation", |it| with_interface(it, &it.device.encapsulation)),
    // These two may be empty.
    string("mac", |it| {
        with_interface(it, &it.device.mac.map(|mac| mac.to_string()).unwrap_or_default())
    }),
    string("alias", |it| with_interface(it, it.device.alias.as_deref().unwrap_or_default())),
    flag("sriov", |it| of_interface(it, it.device.sriov.is_some())),
    int("sriovVfs", |it| {
        it.device.interface.as_ref()?;
        Some(Value::int(it.device.sriov?.num_vfs))
    }),
    // Only where it is one.
    flag("isSriovVf", |it| of_interface(it, true).filter(|_| it.device.is_sriov_vf)),
    flag("ebpf", |it| {
        let ebpf = &it.device.ebpf;
        of_interface(it, !ebpf.tc_filters.is_empty() || !ebpf.tcx_programs.is_empty())
    }),
    string("tcFilterNames", |it| Value::list(it.device.ebpf.tc_filters.iter().cloned())),
    string("tcxProgramNames", |it| Value::list(it.device.ebpf.tcx_programs.iter().cloned())),
    Entry { name: PROVIDED, kind: "any", of: |_| None },
    string("ipv4", |it| Value::list(addresses(it.device, |net| matches!(net, IpNet::V4(_))))),
    string("ipv6", |it| Value::list(addresses(it.device, |net| matches!(net, IpNet::V6(_))))),
    // Not DraNet's, but every driver of devices on PCI is asked for it.
    string("resource.kubernetes.io/pciBusID", pci_address),
];

fn of_interface(seen: &Seen<'_>, flag: bool) -> Option<Value> {
    seen.device.interface.as_ref().map(|_| Value::Bool(flag))
}

fn with_interface(seen: &Seen<'_>, text: &str) -> Option<Value> {
    seen.device.interface.as_ref().map(|_| Value::text(text))
}

/// Names of the PCI ID Repository, as DraNet publishes them instead of numbers.
fn vendor(pci: &PciFacts) -> Option<&'static str> {
    Some(pci_ids::Vendor::from_id(number(pci.vendor.as_ref())?)?.name())
}

fn product(pci: &PciFacts) -> Option<&'static str> {
    let (vendor, device) = (number(pci.vendor.as_ref())?, number(pci.device.as_ref())?);
    Some(pci_ids::Device::from_vid_pid(vendor, device)?.name())
}

fn number(digits: Option<&String>) -> Option<u16> {
    u16::from_str_radix(digits?, 16).ok()
}
