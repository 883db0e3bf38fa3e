//! From what the kernel said to devices. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::naming::{Held, Nameable, OfInterface, device_names};
use super::publishable::{NOT_IN_SYSFS, Why, excluded, left_out};
use super::rdma::{function_of_alone, owners};
use super::{IdleFunction, LeftOut, Scan};
use crate::model::{
    Controller, Cpus, Device, DeviceName, EbpfAbilities, IfIndex, PciFacts, PortFacts,
    PublishRules, Queues, RdmaLinkLayer, Record,
};
use crate::sys::netlink::LinkFacts;
use crate::sys::sysfs::{FunctionFacts, RdmaDevice, SysfsFacts};

/// A function that nothing drives: no kernel code could hand it over, nor user space open it.
const NO_DRIVER: &str = "no driver";
/// A function of `vfio-pci` without an IOMMU: whoever had it could write to all memory.
const NO_IOMMU: &str = "no IOMMU group";
/// A group that nobody can open while drivers of the kernel use other functions of it.
const HELD_UP: &str = "the kernel uses its IOMMU group";

/// Sub-interfaces upon sub-interfaces: the kernel allows eight levels (`MAX_NEST_DEV` in
/// `include/linux/netdevice.h`, Linux 6.12).
const LEVELS: usize = 8;

/// Everything that one scan is made of, as the kernel told it.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) default_routes: Vec<IfIndex>,
    /// By index.
    pub(super) links: Vec<LinkFacts>,
    pub(super) addresses: BTreeMap<IfIndex, Vec<IpNet>>,
    /// What sysfs has of each link, or why there is nothing.
    pub(super) places: BTreeMap<IfIndex, Result<SysfsFacts, &'static str>>,
    pub(super) ebpf: BTreeMap<IfIndex, EbpfAbilities>,
    pub(super) rdma: Vec<RdmaDevice>,
    /// Network controllers without a driver, and those of `vfio-pci`.
    pub(super) functions: Vec<Arc<FunctionFacts>>,
    pub(super) drivers: BTreeMap<IfIndex, DriverSaid>,
    /// On which anything may run; `None` where nobody tells.
    pub(super) usable_cpus: Option<Cpus>,
}

/// What a driver says of its device, where it says anything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct DriverSaid {
    pub(super) driver: Option<String>,
    pub(super) firmware: Option<String>,
    pub(super) queues: Option<Queues>,
    /// In megabits per second (10^6 bit/s).
    pub(super) speed_mbps: Option<u32>,
}

/// What may become a device.
enum Candidate<'a> {
    Interface { link: &'a LinkFacts, sysfs: &'a SysfsFacts, rdma: Option<&'a RdmaDevice> },
    Rdma { device: &'a RdmaDevice, function: &'a FunctionFacts },
    Vfio(&'a FunctionFacts),
}

/// `held` is what claims have, here or in their pods.
pub(super) fn assemble(observed: &Observed, rules: &PublishRules, held: &[Record]) -> Scan {
    let mut reasons = left_out(&observed.links, &observed.default_routes, rules);
    let mut scan = Scan::default();
    let mut candidates = candidates_without_interface(observed, &mut scan.idle);
    let rdma = owners(&observed.rdma, &observed.links, &observed.places);
    for link in &observed.links {
        let found = match (reasons.remove(&link.index), observed.places.get(&link.index)) {
            (Some(why), _) => Err(why),
            (None, Some(place)) => place.as_ref().map_err(|reason| Why::from(*reason)),
            (None, None) => Err(Why::from(NOT_IN_SYSFS)),
        };
        match found {
            Ok(sysfs) => {
                let rdma = rdma.get(&link.index).copied();
                candidates.push(Candidate::Interface { link, sysfs, rdma });
            }
            Err(Why { reason, detail }) => {
                scan.left_out.push(LeftOut { called: link.name.to_string(), reason, detail });
            }
        }
    }
    let nameable: Vec<_> = candidates.iter().map(Candidate::nameable).collect();
    let held: Vec<_> = held.iter().filter_map(Held::of).collect();
    let mut named: Vec<_> = device_names(&nameable, &held).into_iter().zip(&candidates).collect();
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    let surroundings = Surroundings::of(observed);
    let device = |(name, candidate): (_, &Candidate<'_>)| match candidate {
        Candidate::Interface { link, sysfs, rdma } => {
            let mut device = interface(name, link, sysfs, observed, &surroundings);
            add_rdma(&mut device, *rdma);
            device
        }
        Candidate::Rdma { device, function } => rdma_alone(name, device, function),
        Candidate::Vfio(function) => bare(name, function),
    };
    for mut device in named.into_iter().map(device) {
        device.local_cpus = near(device.local_cpus, observed.usable_cpus.as_ref());
        match excluded(&device, rules) {
            Some(Why { reason, detail }) => {
                scan.left_out.push(LeftOut { called: device.called().to_owned(), reason, detail });
            }
            None => scan.devices.push(device),
        }
    }
    scan
}

/// Of the CPUs of a node those on which anything may run; `None` rather than none at all.
fn near(cpus: Option<Cpus>, usable: Option<&Cpus>) -> Option<Cpus> {
    let cpus = match usable {
        Some(usable) => cpus?.within(usable),
        None => cpus?,
    };
    (!cpus.is_empty()).then_some(cpus)
}

fn candidates_without_interface<'a>(
    observed: &'a Observed,
    idle: &mut Vec<IdleFunction>,
) -> Vec<Candidate<'a>> {
    let alone = observed.rdma.iter().filter_map(|device| {
        function_of_alone(device).map(|function| Candidate::Rdma { device, function })
    });
    let mut candidates: Vec<_> = alone.collect();
    for function in &observed.functions {
        let reason = match (&function.driver, function.iommu_group) {
            (Some(_), Some(_)) if !function.held_up_by.is_empty() => HELD_UP,
            (Some(_), Some(_)) => {
                candidates.push(Candidate::Vfio(function));
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
struct Surroundings<'a> {
    links: BTreeMap<IfIndex, &'a LinkFacts>,
    /// What the hardware below a sub-interface is behind, and how near that is.
    inherited: BTreeMap<IfIndex, Inherited<'a>>,
}

struct Inherited<'a> {
    pcie_root: Option<&'a str>,
    numa_node: Option<u32>,
    local_cpus: Option<&'a Cpus>,
}

impl<'a> Surroundings<'a> {
    fn of(observed: &'a Observed) -> Self {
        let links: BTreeMap<_, _> = observed.links.iter().map(|link| (link.index, link)).collect();
        let place = |index: &IfIndex| observed.places.get(index)?.as_ref().ok();
        let inherited = |link: &LinkFacts| {
            let ancestors = std::iter::successors(link.parent, |index| links.get(index)?.parent);
            let hardware = |place: &&SysfsFacts| !place.is_virtual();
            let below = ancestors.take(LEVELS).find_map(|it| place(&it).filter(hardware))?;
            let inherited = Inherited {
                pcie_root: below.function.as_ref().map(|function| function.pci.root.as_str()),
                numa_node: below.numa_node,
                local_cpus: below.local_cpus.as_ref(),
            };
            Some((link.index, inherited))
        };
        let virtual_ones = observed
            .links
            .iter()
            .filter(|link| place(&link.index).is_some_and(SysfsFacts::is_virtual));
        Self { inherited: virtual_ones.filter_map(inherited).collect(), links }
    }
}

impl Candidate<'_> {
    fn nameable(&self) -> Nameable<'_> {
        match self {
            Self::Interface { link, sysfs, .. } => Nameable {
                called: Cow::Borrowed(link.name.as_str()),
                // What is stacked on another interface may claim the other's place on the bus, as the
                // children of IPoIB do, but does not have it.
                pci: sysfs
                    .function
                    .as_ref()
                    .filter(|_| link.parent.is_none())
                    .map(|function| function.pci.address),
                port: sysfs.label(&link.port),
                interface: Some(OfInterface { index: link.index, mac: link.mac }),
            },
            Self::Rdma { device, function } => Nameable {
                called: Cow::Borrowed(&device.name),
                pci: Some(function.pci.address),
                port: None,
                interface: None,
            },
            Self::Vfio(function) => Nameable {
                called: Cow::Owned(function.pci.address.to_string()),
                pci: Some(function.pci.address),
                port: None,
                interface: None,
            },
        }
    }
}

fn interface(
    name: DeviceName,
    link: &LinkFacts,
    sysfs: &SysfsFacts,
    observed: &Observed,
    surroundings: &Surroundings<'_>,
) -> Device {
    let nothing = DriverSaid::default();
    let said = observed.drivers.get(&link.index).unwrap_or(&nothing);
    let controller = link.controller.and_then(|index| surroundings.links.get(&index));
    let parent = link.parent.and_then(|index| surroundings.links.get(&index));
    let inherited = surroundings.inherited.get(&link.index);
    let mut addresses = observed.addresses.get(&link.index).cloned().unwrap_or_default();
    addresses.sort_unstable();
    // What the function offers is not offered again by its representors and other ports.
    let is_functions_own = sysfs.label(&link.port).is_none();
    let function = sysfs.function.as_deref();
    let bare = at_function(name, function);
    Device {
        sriov: bare.sriov.filter(|_| is_functions_own),
        interface: Some(link.name.clone()),
        index: Some(link.index),
        altnames: link.altnames.clone(),
        alias: link.alias.clone(),
        carrier: link.carrier,
        mac: link.mac,
        mtu: link.mtu,
        is_up: link.up,
        state: link.oper_state.clone(),
        kind: link.kind.clone(),
        encapsulation: link.encapsulation.clone(),
        parent: parent.map(|it| it.name.clone()),
        controller: controller
            .map(|it| Controller { interface: it.name.clone(), kind: it.kind.clone() }),
        is_virtual: sysfs.is_virtual(),
        addresses,
        parent_pcie_root: inherited.and_then(|it| it.pcie_root.map(str::to_owned)),
        numa_node: sysfs.numa_node.or(inherited.and_then(|it| it.numa_node)),
        local_cpus: sysfs.local_cpus.as_ref().or(inherited.and_then(|it| it.local_cpus)).cloned(),
        driver: sysfs.driver.as_ref().or(said.driver.as_ref()).cloned(),
        firmware: said.firmware.clone(),
        queues: said.queues.or(Some(link.queues)),
        speed_mbps: said.speed_mbps,
        port: link.port.clone(),
        ebpf: observed.ebpf.get(&link.index).cloned().unwrap_or_default(),
        ..bare
    }
}

fn add_rdma(device: &mut Device, rdma: Option<&RdmaDevice>) {
    let Some(rdma) = rdma else { return };
    device.rdma_device = Some(rdma.name.clone());
    device.rdma_nodes.clone_from(&rdma.nodes);
    device.rdma = Some(rdma.facts.clone());
}

fn rdma_alone(name: DeviceName, rdma: &RdmaDevice, function: &FunctionFacts) -> Device {
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
