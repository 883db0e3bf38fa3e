//! One look at all interfaces.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::InventoryError;
use super::naming::{Nameable, device_names};
use super::publishable::{NOT_IN_SYSFS, UNREADABLE, left_out};
use crate::model::{Device, DeviceName, EbpfAbilities, IfIndex, IfName, XdpFeatures};
use crate::sys::netlink::{LinkFacts, Netlink};
use crate::sys::sysfs::{Sysfs, SysfsFacts};
use crate::sys::xdp::{self, XdpError};

/// Looks at the interfaces of one namespace, again and again.
pub struct Scanner {
    sysfs: Sysfs,
    netlink: Netlink,
    has_tcx: bool,
    features: BTreeMap<(IfIndex, IfName), KnownFeatures>,
}

/// An answer of the kernel, and when it was given.
#[derive(Clone, Copy)]
struct KnownFeatures {
    features: Option<XdpFeatures>,
    asked: Instant,
}

/// How long an answer about XDP features is good for. They belong to the driver and seldom change (a
/// veth can be a target of redirection once its peer has a program), but each question has libbpf
/// list all interfaces: 2 ms among 250 of them.
const FEATURES_LAST: Duration = Duration::from_secs(50);

/// What one look has shown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scan {
    /// Sorted by name.
    pub devices: Vec<Device>,
    /// Interfaces that are no devices, by index.
    pub left_out: Vec<LeftOut>,
}

/// An interface that claims cannot have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeftOut {
    pub interface: IfName,
    /// One of a closed set.
    pub reason: &'static str,
}

/// An interface that may become a device.
struct Candidate {
    link: LinkFacts,
    sysfs: SysfsFacts,
}

impl Scanner {
    /// A scanner of the namespace of the calling thread. Must stay on this thread, or one in the
    /// same namespace; `sysfs` must have been mounted in it too.
    pub fn new(sysfs: Sysfs) -> Result<Self, InventoryError> {
        let netlink = Netlink::open()?;
        let lo = netlink.links()?.into_iter().find(|link| link.is_loopback);
        let has_tcx = lo.is_some_and(|lo| {
            xdp::has_tcx(&lo.name).unwrap_or_else(|error| {
                let error = &error as &dyn Error;
                tracing::warn!(error, "cannot tell whether the kernel has TCX");
                false
            })
        });
        Ok(Self { sysfs, netlink, has_tcx, features: BTreeMap::new() })
    }

    /// Looks at everything, except that XDP features may be up to a minute old. An interface that
    /// vanishes meanwhile is no error.
    ///
    /// # Errors
    ///
    /// Any [`InventoryError`]; then nothing is known, and the last scan is what is known best.
    pub fn scan(&mut self) -> Result<Scan, InventoryError> {
        // The routes first: an interface that gets the default route after that is seen by the next
        // scan, but one that had it before the links were listed must not be missed.
        let default_routes = self.netlink.default_route_interfaces()?;
        let links = self.netlink.links()?;
        let mut addresses = self.netlink.all_addresses()?;
        let reasons = left_out(&links, &default_routes);

        self.features.retain(|_, known| known.asked.elapsed() < FEATURES_LAST);
        let mut scan = Scan::default();
        let mut candidates = Vec::new();
        for link in links {
            let found = match reasons.get(&link.index) {
                Some(reason) => Err(*reason),
                None => self.place(&link.name),
            };
            match found {
                Ok(sysfs) => candidates.push(Candidate { link, sysfs }),
                Err(reason) => scan.left_out.push(LeftOut { interface: link.name, reason }),
            }
        }

        let nameable: Vec<_> = candidates.iter().map(Candidate::nameable).collect();
        for (candidate, name) in candidates.into_iter().zip(device_names(&nameable)) {
            let mut addresses = addresses.remove(&candidate.link.index).unwrap_or_default();
            addresses.sort_unstable();
            let ebpf = match self.ebpf(&candidate.link) {
                Ok(ebpf) => ebpf,
                Err(error) if error.is_absent() => continue,
                Err(error) => {
                    let error = &error as &dyn Error;
                    let interface = &candidate.link.name;
                    tracing::warn!(error, %interface, "cannot tell what eBPF can do");
                    EbpfAbilities::default()
                }
            };
            scan.devices.push(candidate.device(name, addresses, ebpf));
        }
        scan.devices.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(scan)
    }

    /// One odd interface must not hide all the others.
    fn place(&self, interface: &IfName) -> Result<SysfsFacts, &'static str> {
        match self.sysfs.interface(interface) {
            Ok(facts) => facts.ok_or(NOT_IN_SYSFS),
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::warn!(error, %interface, "cannot tell where an interface is");
                Err(UNREADABLE)
            }
        }
    }

    fn ebpf(&mut self, link: &LinkFacts) -> Result<EbpfAbilities, XdpError> {
        let mut programs = xdp::program_names(&link.xdp_programs)?;
        if self.has_tcx {
            programs.extend(xdp::tcx_programs(&link.name)?);
        }
        programs.sort_unstable();
        Ok(EbpfAbilities {
            xdp: self.features(link)?,
            xdp_in_use: link.is_xdp_attached(),
            tcx: self.has_tcx,
            programs,
        })
    }

    fn features(&mut self, link: &LinkFacts) -> Result<Option<XdpFeatures>, XdpError> {
        let key = (link.index, link.name.clone());
        if let Some(known) = self.features.get(&key) {
            return Ok(known.features);
        }
        let features = xdp::features(link.index)?;
        self.features.insert(key, KnownFeatures { features, asked: Instant::now() });
        Ok(features)
    }
}

impl Candidate {
    fn nameable(&self) -> Nameable {
        Nameable {
            interface: self.link.name.clone(),
            pci: self.sysfs.pci.as_ref().map(|pci| pci.address),
            port: self.sysfs.port.clone(),
        }
    }

    fn device(self, name: DeviceName, addresses: Vec<IpNet>, ebpf: EbpfAbilities) -> Device {
        let Self { link, sysfs } = self;
        Device {
            name,
            interface: link.name,
            index: link.index,
            mac: link.mac,
            mtu: link.mtu,
            is_up: link.up,
            state: link.oper_state,
            kind: link.kind,
            encapsulation: link.encapsulation,
            is_virtual: sysfs.is_virtual,
            addresses,
            pci: sysfs.pci,
            numa_node: sysfs.numa_node,
            driver: sysfs.driver,
            speed_mbps: sysfs.speed_mbps,
            sriov: sysfs.sriov,
            is_sriov_vf: sysfs.physical_function.is_some(),
            rdma_device: sysfs.rdma_device,
            rdma_nodes: sysfs.rdma_nodes,
            ebpf,
        }
    }
}
