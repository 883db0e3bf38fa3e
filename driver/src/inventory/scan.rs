//! One look at all interfaces.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::InventoryError;
use super::assemble::{Observed, assemble};
use super::publishable::{NOT_IN_SYSFS, UNREADABLE};
use crate::model::{Device, EbpfAbilities, IfIndex, IfName, PublishRules, XdpFeatures};
use crate::sys::netlink::{LinkFacts, Netlink};
use crate::sys::sysfs::{Sysfs, SysfsFacts};
use crate::sys::xdp::{self, XdpError};

/// Looks at the interfaces of one namespace, again and again.
pub struct Scanner {
    sysfs: Sysfs,
    netlink: Netlink,
    has_tcx: bool,
    features: BTreeMap<(IfIndex, IfName), KnownFeatures>,
    rules: Rules,
}

/// What is offered, as it is wished now.
pub type Rules = watch::Receiver<Arc<PublishRules>>;

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
    /// Whose it is, or which rule says so.
    pub detail: Option<String>,
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
        // Whoever sent them is gone, so they stay.
        let rules = watch::channel(Arc::default()).1;
        Ok(Self { sysfs, netlink, has_tcx, features: BTreeMap::new(), rules })
    }

    /// The same, offering what these rules say. Without them it is what the driver does by itself.
    #[must_use]
    pub fn following(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Looks at everything, except that XDP features may be up to a minute old. An interface that
    /// vanishes meanwhile is no error.
    ///
    /// # Errors
    ///
    /// Any [`InventoryError`]; then nothing is known, and the last scan is what is known best.
    pub fn scan(&mut self) -> Result<Scan, InventoryError> {
        let observed = self.observe()?;
        let rules = Arc::clone(&self.rules.borrow());
        Ok(assemble(observed, &rules))
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
        for link in links {
            observed.places.insert(link.index, self.place(&link.name));
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
        Ok(observed)
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
