//! From what the kernel said to devices. Pure.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::naming::{Nameable, device_names};
use super::publishable::{NOT_IN_SYSFS, left_out};
use super::{LeftOut, Scan};
use crate::model::{
    Controller, Device, DeviceName, EbpfAbilities, IfIndex, IfName, PortFacts, Queues,
};
use crate::sys::netlink::LinkFacts;
use crate::sys::sysfs::SysfsFacts;

/// Everything that one scan is made of, as the kernel told it.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    pub(super) default_routes: Vec<IfIndex>,
    pub(super) links: Vec<LinkFacts>,
    pub(super) addresses: BTreeMap<IfIndex, Vec<IpNet>>,
    /// What sysfs has of each link, or why there is nothing.
    pub(super) places: BTreeMap<IfIndex, Result<SysfsFacts, &'static str>>,
    pub(super) ebpf: BTreeMap<IfIndex, EbpfAbilities>,
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

/// An interface that may become a device.
struct Candidate {
    link: LinkFacts,
    sysfs: SysfsFacts,
}

pub(super) fn assemble(mut observed: Observed) -> Scan {
    let reasons = left_out(&observed.links, &observed.default_routes);
    let names: BTreeMap<_, _> = observed
        .links
        .iter()
        .map(|link| (link.index, (link.name.clone(), link.kind.clone())))
        .collect();
    let mut scan = Scan::default();
    let mut candidates = Vec::new();
    for link in observed.links {
        let place = observed.places.remove(&link.index).unwrap_or(Err(NOT_IN_SYSFS));
        let found = match reasons.get(&link.index) {
            Some(reason) => Err(*reason),
            None => place,
        };
        match found {
            Ok(sysfs) => candidates.push(Candidate { link, sysfs }),
            Err(reason) => scan.left_out.push(LeftOut { interface: link.name, reason }),
        }
    }
    let nameable: Vec<_> = candidates.iter().map(Candidate::nameable).collect();
    for (candidate, name) in candidates.into_iter().zip(device_names(&nameable)) {
        let mut addresses = observed.addresses.remove(&candidate.link.index).unwrap_or_default();
        addresses.sort_unstable();
        let ebpf = observed.ebpf.remove(&candidate.link.index).unwrap_or_default();
        let said = observed.drivers.remove(&candidate.link.index).unwrap_or_default();
        scan.devices.push(candidate.device(name, addresses, (ebpf, said), &names));
    }
    scan.devices.sort_by(|a, b| a.name.cmp(&b.name));
    scan
}

impl Candidate {
    fn nameable(&self) -> Nameable {
        Nameable {
            interface: self.link.name.clone(),
            pci: self.sysfs.pci.as_ref().map(|pci| pci.address),
            port: self.sysfs.port.clone(),
        }
    }

    fn device(
        self,
        name: DeviceName,
        addresses: Vec<IpNet>,
        (ebpf, said): (EbpfAbilities, DriverSaid),
        names: &BTreeMap<IfIndex, (IfName, String)>,
    ) -> Device {
        let Self { link, sysfs } = self;
        let controller = link.controller.and_then(|index| names.get(&index));
        let parent = link.parent.and_then(|index| names.get(&index));
        Device {
            name,
            interface: Some(link.name),
            index: Some(link.index),
            altnames: link.altnames,
            alias: link.alias,
            mac: link.mac,
            mtu: link.mtu,
            is_up: link.up,
            state: link.oper_state,
            kind: link.kind,
            carrier: link.carrier,
            encapsulation: link.encapsulation,
            parent: parent.map(|(name, _)| name.clone()),
            controller: controller
                .map(|(name, kind)| Controller { interface: name.clone(), kind: kind.clone() }),
            is_virtual: sysfs.is_virtual,
            addresses,
            pci: sysfs.pci,
            numa_node: sysfs.numa_node,
            local_cpus: sysfs.local_cpus,
            driver: sysfs.driver.or(said.driver),
            firmware: said.firmware,
            queues: said.queues.or(Some(link.queues)),
            speed_mbps: sysfs.speed_mbps.or(said.speed_mbps),
            port: PortFacts::default(),
            iommu_group: None,
            sriov: sysfs.sriov,
            is_sriov_vf: sysfs.physical_function.is_some(),
            vf: None,
            rdma_device: sysfs.rdma_device,
            rdma_nodes: sysfs.rdma_nodes,
            rdma: None,
            ebpf,
            provided: BTreeMap::new(),
        }
    }
}
