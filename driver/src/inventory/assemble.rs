//! From what the kernel said to devices. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::naming::{Nameable, device_names};
use super::publishable::{NOT_IN_SYSFS, Why, excluded, left_out};
use super::rdma::{function_of_alone, owners};
use super::{IdleFunction, LeftOut, Scan};
use crate::model::{
    Controller, Cpus, Device, DeviceName, EbpfAbilities, IfIndex, IfName, PciFacts, PortFacts,
    PublishRules, Queues, RdmaLinkLayer,
};
use crate::sys::netlink::LinkFacts;
use crate::sys::sysfs::{FunctionFacts, RdmaDevice, SysfsFacts};

/// A function that nothing drives: no kernel code could hand it over, nor user space open it.
const NO_DRIVER: &str = "no driver";
/// A function of `vfio-pci` without an IOMMU: whoever had it could write to all memory.
const NO_IOMMU: &str = "no IOMMU group";

/// Sub-interfaces upon sub-interfaces: the kernel allows eight levels (`MAX_NEST_DEV` in
/// `include/linux/netdevice.h`, Linux 6.12).
const LEVELS: usize = 8;

/// Everything that one scan is made of, as the kernel told it.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    pub(super) default_routes: Vec<IfIndex>,
    pub(super) links: Vec<LinkFacts>,
    pub(super) addresses: BTreeMap<IfIndex, Vec<IpNet>>,
    /// What sysfs has of each link, or why there is nothing.
    pub(super) places: BTreeMap<IfIndex, Result<SysfsFacts, &'static str>>,
    pub(super) ebpf: BTreeMap<IfIndex, EbpfAbilities>,
    pub(super) rdma: Vec<RdmaDevice>,
    /// Network controllers without a driver, and those of `vfio-pci`.
    pub(super) functions: Vec<Arc<FunctionFacts>>,
    pub(super) drivers: BTreeMap<IfIndex, DriverSaid>,
}

/// What a driver says of its device, where it says anything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct DriverSaid {
    pub(super) driver: Option<String>,
    pub(super) firmware: Option<String>,
    pub(super) queues: Option<Queues>,
    /// Asked only where sysfs does not tell.
    pub(super) speed_mbps: Option<u32>,
}

/// What may become a device.
enum Candidate {
    Interface { link: LinkFacts, sysfs: SysfsFacts, rdma: Option<RdmaDevice> },
    Rdma { device: RdmaDevice, function: FunctionFacts },
    Vfio(FunctionFacts),
}

pub(super) fn assemble(mut observed: Observed, rules: &PublishRules) -> Scan {
    let mut reasons = left_out(&observed.links, &observed.default_routes, rules);
    let mut scan = Scan::default();
    let mut candidates = candidates_without_interface(&observed, &mut scan.idle);
    let mut rdma = owned(&observed);
    let surroundings = Surroundings::of(&observed);
    for link in std::mem::take(&mut observed.links) {
        let place = observed.places.remove(&link.index).unwrap_or(Err(NOT_IN_SYSFS));
        let found = match reasons.remove(&link.index) {
            Some(why) => Err(why),
            None => place.map_err(Why::from),
        };
        match found {
            Ok(sysfs) => {
                let rdma = rdma.remove(&link.index);
                candidates.push(Candidate::Interface { link, sysfs, rdma });
            }
            Err(Why { reason, detail }) => {
                scan.left_out.push(LeftOut { called: link.name.to_string(), reason, detail });
            }
        }
    }
    let nameable: Vec<_> = candidates.iter().map(Candidate::nameable).collect();
    for (candidate, name) in candidates.into_iter().zip(device_names(&nameable)) {
        let device = match candidate {
            Candidate::Interface { link, sysfs, rdma } => {
                let mut addresses = observed.addresses.remove(&link.index).unwrap_or_default();
                addresses.sort_unstable();
                let ebpf = observed.ebpf.remove(&link.index).unwrap_or_default();
                let said = observed.drivers.remove(&link.index).unwrap_or_default();
                let mut device = interface(name, link, sysfs, said, &surroundings);
                add_rdma(&mut device, rdma);
                Device { addresses, ebpf, ..device }
            }
            Candidate::Rdma { device: rdma, function } => rdma_alone(name, rdma, &function),
            Candidate::Vfio(function) => bare(name, &function),
        };
        match excluded(&device, rules) {
            Some(Why { reason, detail }) => {
                scan.left_out.push(LeftOut { called: device.called().to_owned(), reason, detail });
            }
            None => scan.devices.push(device),
        }
    }
    scan.devices.sort_by(|a, b| a.name.cmp(&b.name));
    scan
}

/// What each interface has of RDMA.
fn owned(observed: &Observed) -> BTreeMap<IfIndex, RdmaDevice> {
    let Observed { rdma, links, places, .. } = observed;
    let owners = owners(rdma, links, places).into_iter();
    owners.map(|(index, number)| (index, rdma[number].clone())).collect()
}

fn candidates_without_interface(
    observed: &Observed,
    idle: &mut Vec<IdleFunction>,
) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for device in &observed.rdma {
        if let Some(function) = function_of_alone(device, &observed.places) {
            let (device, function) = (device.clone(), function.clone());
            candidates.push(Candidate::Rdma { device, function });
        }
    }
    for function in &observed.functions {
        let reason = match (&function.driver, function.iommu_group) {
            (Some(_), Some(_)) => {
                candidates.push(Candidate::Vfio(FunctionFacts::clone(function)));
                continue;
            }
            (Some(_), None) => NO_IOMMU,
            (None, _) => NO_DRIVER,
        };
        idle.push(IdleFunction { address: function.pci.address, reason });
    }
    idle.sort_by_key(|function| function.address);
    candidates
}

/// What an interface has to be told about others.
struct Surroundings {
    names: BTreeMap<IfIndex, (IfName, String)>,
    /// What the hardware below a sub-interface is behind, and how near that is.
    inherited: BTreeMap<IfIndex, Inherited>,
}

struct Inherited {
    pcie_root: Option<String>,
    numa_node: Option<u32>,
    local_cpus: Option<Cpus>,
}

impl Surroundings {
    fn of(observed: &Observed) -> Self {
        let links: BTreeMap<_, _> = observed.links.iter().map(|link| (link.index, link)).collect();
        let place = |index: &IfIndex| observed.places.get(index)?.as_ref().ok();
        let inherited = |link: &LinkFacts| {
            let ancestors = std::iter::successors(link.parent, |index| links.get(index)?.parent);
            let hardware = |place: &&SysfsFacts| !place.is_virtual();
            let below = ancestors.take(LEVELS).find_map(|it| place(&it).filter(hardware))?;
            let inherited = Inherited {
                pcie_root: below.function.as_ref().map(|function| function.pci.root.clone()),
                numa_node: below.numa_node,
                local_cpus: below.local_cpus.clone(),
            };
            Some((link.index, inherited))
        };
        let names = links.values().map(|link| (link.index, (link.name.clone(), link.kind.clone())));
        Self {
            names: names.collect(),
            inherited: links
                .values()
                .filter(|link| place(&link.index).is_some_and(SysfsFacts::is_virtual))
                .filter_map(|link| inherited(link))
                .collect(),
        }
    }
}

impl Candidate {
    fn nameable(&self) -> Nameable {
        match self {
            Self::Interface { link, sysfs, .. } => Nameable {
                called: link.name.to_string(),
                // What is stacked on another interface may claim the other's place on the bus, as the
                // children of IPoIB do, but does not have it.
                pci: sysfs
                    .function
                    .as_ref()
                    .filter(|_| link.parent.is_none())
                    .map(|function| function.pci.address),
                port: sysfs.label(),
            },
            Self::Rdma { device, function } => Nameable {
                called: device.name.clone(),
                pci: Some(function.pci.address),
                port: None,
            },
            Self::Vfio(function) => Nameable {
                called: function.pci.address.to_string(),
                pci: Some(function.pci.address),
                port: None,
            },
        }
    }
}

fn interface(
    name: DeviceName,
    link: LinkFacts,
    sysfs: SysfsFacts,
    said: DriverSaid,
    surroundings: &Surroundings,
) -> Device {
    let controller = link.controller.and_then(|index| surroundings.names.get(&index));
    let parent = link.parent.and_then(|index| surroundings.names.get(&index));
    let inherited = surroundings.inherited.get(&link.index);
    let is_virtual = sysfs.is_virtual();
    // What the function offers is not offered again by its representors and other ports.
    let is_functions_own = sysfs.label().is_none();
    let function = sysfs.function.as_deref();
    let bare = at_function(name, function);
    Device {
        sriov: bare.sriov.filter(|_| is_functions_own),
        interface: Some(link.name),
        index: Some(link.index),
        altnames: link.altnames,
        alias: link.alias,
        carrier: link.carrier,
        mac: link.mac,
        mtu: link.mtu,
        is_up: link.up,
        state: link.oper_state,
        kind: link.kind,
        encapsulation: link.encapsulation,
        parent: parent.map(|(name, _)| name.clone()),
        controller: controller
            .map(|(name, kind)| Controller { interface: name.clone(), kind: kind.clone() }),
        is_virtual,
        parent_pcie_root: inherited.and_then(|it| it.pcie_root.clone()),
        numa_node: sysfs.numa_node.or(inherited.and_then(|it| it.numa_node)),
        local_cpus: sysfs.local_cpus.or_else(|| inherited.and_then(|it| it.local_cpus.clone())),
        driver: sysfs.driver.or(said.driver),
        firmware: said.firmware,
        queues: said.queues.or(Some(link.queues)),
        speed_mbps: sysfs.speed_mbps.or(said.speed_mbps),
        port: sysfs.port,
        ..bare
    }
}

fn add_rdma(device: &mut Device, rdma: Option<RdmaDevice>) {
    let Some(rdma) = rdma else { return };
    device.rdma_device = Some(rdma.name);
    device.rdma_nodes = rdma.nodes;
    device.rdma = Some(rdma.facts);
}

fn rdma_alone(name: DeviceName, rdma: RdmaDevice, function: &FunctionFacts) -> Device {
    let encapsulation = match rdma.facts.link_layer {
        RdmaLinkLayer::InfiniBand => "infiniband",
        RdmaLinkLayer::RoCE | RdmaLinkLayer::IWarp | RdmaLinkLayer::Unspecified => NO_LINK_LAYER,
    };
    let mut device = Device {
        state: if rdma.is_active { "up" } else { "down" }.to_owned(),
        carrier: Some(rdma.is_active),
        encapsulation: encapsulation.to_owned(),
        speed_mbps: rdma.speed_mbps,
        ..bare(name, function)
    };
    add_rdma(&mut device, Some(rdma));
    device
}

/// A function of which nothing is known but its place.
fn bare(name: DeviceName, function: &FunctionFacts) -> Device {
    Device {
        numa_node: function.numa_node,
        local_cpus: function.local_cpus.clone(),
        driver: function.driver.clone(),
        ..at_function(name, Some(function))
    }
}

const NO_LINK_LAYER: &str = "none";

/// A device with nothing but what its PCI function tells.
fn at_function(name: DeviceName, function: Option<&FunctionFacts>) -> Device {
    Device {
        name,
        interface: None,
        index: None,
        altnames: Vec::new(),
        alias: None,
        mac: None,
        mtu: 0,
        is_up: true,
        state: "unknown".to_owned(),
        kind: "device".to_owned(),
        carrier: None,
        encapsulation: NO_LINK_LAYER.to_owned(),
        parent: None,
        controller: None,
        is_virtual: false,
        addresses: Vec::new(),
        pci: function.map(|it| PciFacts::clone(&it.pci)),
        parent_pcie_root: None,
        numa_node: None,
        local_cpus: None,
        driver: None,
        firmware: None,
        queues: None,
        speed_mbps: None,
        port: PortFacts::default(),
        iommu_group: function.and_then(|it| it.iommu_group),
        iommu_group_held_up_by: function.map(|it| it.held_up_by.clone()).unwrap_or_default(),
        sriov: function.and_then(|it| it.sriov),
        is_sriov_vf: function.is_some_and(|it| it.vf.is_some()),
        vf: function.and_then(|it| it.vf.clone()),
        rdma_device: None,
        rdma_nodes: Vec::new(),
        rdma: None,
        ebpf: EbpfAbilities::default(),
        provided: BTreeMap::new(),
    }
}
