//! One look at all interfaces.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use super::InventoryError;
use super::assemble::{Observed, assemble};
use super::publishable::{NOT_IN_SYSFS, UNREADABLE};
use crate::model::{Device, EbpfAbilities, IfIndex, IfName, PciAddress, XdpFeatures};
use crate::sys::netlink::{LinkFacts, Netlink};
use crate::sys::sysfs::{Look, Sysfs, SysfsError, SysfsFacts};
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
    /// Network controllers on PCI that are no devices, by address.
    pub idle: Vec<IdleFunction>,
}

/// A PCI function that claims cannot have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdleFunction {
    pub address: PciAddress,
    /// One of a closed set.
    pub reason: &'static str,
}

/// An interface that claims cannot have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeftOut {
    pub interface: IfName,
    /// One of a closed set.
    pub reason: &'static str,
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
        Ok(assemble(self.observe()?))
    }

    /// Asks the kernel everything that a scan is made of.
    fn observe(&mut self) -> Result<Observed, InventoryError> {
        // The routes first: an interface that gets the default route after that is seen by the next
        // scan, but one that had it before the links were listed must not be missed.
        let default_routes = self.netlink.default_route_interfaces()?;
        let links = self.netlink.links()?;
        let mut observed = Observed {
            default_routes,
            addresses: self.netlink.all_addresses()?,
            ..Observed::default()
        };
        self.features.retain(|_, known| known.asked.elapsed() < FEATURES_LAST);
        let sysfs = self.sysfs.clone();
        let mut look = sysfs.look();
        observed.rdma = told("RDMA devices", look.rdma_devices());
        for link in links {
            observed.places.insert(link.index, place(&mut look, &link.name));
            match self.ebpf(&link) {
                Ok(ebpf) => drop(observed.ebpf.insert(link.index, ebpf)),
                Err(error) if error.is_absent() => continue,
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, interface = %link.name, "cannot tell what eBPF can do");
                }
            }
            observed.links.push(link);
        }
        observed.functions = told("PCI functions", look.functions_without_interface());
        Ok(observed)
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
            tcx_programs: Vec::new(),
            tc_filters: Vec::new(),
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

/// One odd interface must not hide all the others.
pub(super) fn place(look: &mut Look<'_>, interface: &IfName) -> Result<SysfsFacts, &'static str> {
    match look.interface(interface) {
        Ok(facts) => facts.ok_or(NOT_IN_SYSFS),
        Err(error) => {
            let error = &error as &dyn Error;
            tracing::warn!(error, %interface, "cannot tell where an interface is");
            Err(UNREADABLE)
        }
    }
}

/// Nor must anything that is no interface.
fn told<T>(what: &str, found: Result<Vec<T>, SysfsError>) -> Vec<T> {
    found.unwrap_or_else(|error| {
        let error = &error as &dyn Error;
        tracing::warn!(error, "cannot tell this node's {what}");
        Vec::new()
    })
}
