//! One look at all interfaces, or again at some.
//!
//! A look at everything is a handful of listings, whatever the number of interfaces, and the files of
//! sysfs: the kernel answers much of it under its one lock on all interfaces, for which also the hook
//! waits that moves one into a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;

use tokio::sync::watch;

use super::InventoryError;
use super::assemble::{DriverSaid, Observed, assemble};
use super::attached::{Attached, Turn};
use super::publishable::{NOT_IN_SYSFS, UNREADABLE};
use super::rdma::look as rdma;
use crate::model::{
    By, Device, EbpfAbilities, IfIndex, IfName, PciAddress, PublishRules, Queues, Record,
};
use crate::sys::asked::asked;
use crate::sys::ethtool::{self, DriverFacts, Ethtool, EthtoolError};
use crate::sys::netdev::{Netdev, NetdevFacts};
use crate::sys::netlink::{Changes, LinkFacts, Netlink};
use crate::sys::sysfs::{Look, Sysfs, SysfsError, SysfsFacts};
use crate::sys::xdp::{self, XdpError};

/// Looks at the interfaces of one namespace, again and again.
pub struct Scanner {
    sysfs: Sysfs,
    netlink: Netlink,
    netdev: Option<Netdev>,
    ethtool: Option<Ethtool>,
    has_tcx: bool,
    attached: Attached,
    turn: Turn,
    observed: Observed,
    /// Interfaces that are devices.
    devices: BTreeSet<IfIndex>,
    /// Ids of the TCX programs that were found on an interface.
    tcx: BTreeMap<IfIndex, Vec<u32>>,
    /// What drivers said of themselves. They are asked once for each interface: their firmware is
    /// another one after they were loaded anew, and then so are their interfaces.
    drivers: BTreeMap<IfIndex, DriverFacts>,
    rules: Rules,
    held: Held,
    /// Those by which the last look was judged.
    followed: Arc<PublishRules>,
}

/// What is offered, as it is wished now.
pub type Rules = watch::Receiver<Arc<PublishRules>>;

/// What claims have: it keeps its name, also while it is in a pod.
pub type Held = watch::Receiver<Arc<Vec<Record>>>;

/// With more changes than that it is less to look at everything.
const MANY: usize = 32;

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

/// What claims cannot have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeftOut {
    /// As [`Device::called`] calls it: its interface, where there is one.
    pub called: String,
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
        let has_tcx = xdp::has_tcx().unwrap_or_else(|error| {
            let error = &error as &dyn Error;
            tracing::warn!(error, "cannot tell whether the kernel has TCX");
            false
        });
        let ethtool = match Ethtool::open() {
            Ok(ethtool) => Some(ethtool),
            Err(EthtoolError::NoFamily) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            sysfs,
            netlink,
            netdev: Netdev::open()?,
            ethtool,
            has_tcx,
            attached: Attached::default(),
            turn: Turn::default(),
            observed: Observed::default(),
            devices: BTreeSet::new(),
            tcx: BTreeMap::new(),
            drivers: BTreeMap::new(),
            // Whoever sent them is gone, so they stay.
            rules: watch::channel(Arc::default()).1,
            held: watch::channel(Arc::default()).1,
            followed: Arc::default(),
        })
    }

    /// The same, offering what these rules say. Without them it is what the driver does by itself.
    #[must_use]
    pub fn following(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The same, knowing what claims have.
    #[must_use]
    pub fn knowing(self, held: Held) -> Self {
        Self { held, ..self }
    }

    /// Looks at everything. An interface that vanishes meanwhile is no error.
    ///
    /// # Errors
    ///
    /// Any [`InventoryError`]; then nothing is known, and the last scan is what is known best.
    pub fn scan(&mut self) -> Result<Scan, InventoryError> {
        let before = asked();
        self.attached.forget();
        if self.attached.look().map_err(InventoryError::Programs)?.came_or_went {
            self.turn.begin();
        }
        // The routes first: an interface that gets the default route after that is seen by the next
        // scan, but one that had it before the links were listed must not be missed.
        let default_routes = self.netlink.default_route_interfaces()?;
        let links = self.netlink.links()?;
        let there: BTreeSet<_> = links.iter().map(|link| link.index).collect();
        self.tcx.clear();
        self.drivers.retain(|index, _| there.contains(index));
        self.observed = Observed {
            default_routes,
            addresses: self.netlink.all_addresses()?,
            ..Observed::default()
        };
        let mut features = match &self.netdev {
            Some(netdev) => netdev.devices()?,
            None => BTreeMap::new(),
        };
        let (mut queues, speeds) = match &self.ethtool {
            Some(ethtool) => (ethtool.all_queues()?, ethtool.all_speeds()?),
            None => Default::default(),
        };
        let (has_loose, with_tcx) = (self.attached.has_loose(), self.attached.with_tcx());
        let sysfs = self.sysfs.clone();
        let mut look = sysfs.look();
        for link in links {
            let index = link.index;
            if has_loose || with_tcx.contains(&index) {
                self.look_at_tcx(&link);
            }
            let place = place(&mut look, &link.name);
            let said = Said {
                features: features.remove(&index),
                queues: queues.remove(&index),
                speed_mbps: speeds.get(&index).copied(),
            };
            self.note(link, place, said);
        }
        self.observed.rdma = rdma::all(&mut look);
        self.observed.functions =
            told("list PCI functions", look.functions_without_interface()).unwrap_or_default();
        self.observed.usable_cpus =
            told("tell which CPUs are usable", look.usable_cpus()).flatten();
        tracing::debug!(requests = asked() - before, "looked at everything");
        Ok(self.assemble())
    }

    /// Looks again at what has changed, and at nothing else where that is not much.
    ///
    /// # Errors
    ///
    /// As [`scan`](Self::scan). What was looked at before that stays known.
    pub fn rescan(&mut self, changes: &Changes) -> Result<Scan, InventoryError> {
        if changes.everything || changes.interfaces.len() > MANY {
            return self.scan();
        }
        let mut interfaces = changes.interfaces.clone();
        if changes.filters {
            // A program may have come just now that only a filter holds.
            interfaces.extend(self.attached()?.interfaces);
        }
        // A route goes without a word when its interface or its address does (`fib_table_flush()` in
        // `net/ipv4/fib_trie.c`, Linux 6.12).
        let carries = |index: &IfIndex| self.observed.default_routes.contains(index);
        if changes.default_routes || interfaces.iter().any(carries) {
            self.observed.default_routes = self.netlink.default_route_interfaces()?;
        }
        let mut looked_at = rdma::Changed::default();
        for &index in &interfaces {
            self.observed.note_rdma(index, &mut looked_at);
            self.look_at(index)?;
            self.observed.note_rdma(index, &mut looked_at);
        }
        if !interfaces.is_empty() {
            let Observed { rdma, links, .. } = &mut self.observed;
            rdma::again(&mut self.sysfs.look(), rdma, links, &looked_at);
        }
        Ok(self.assemble())
    }

    /// Where programs came or went since this was last asked, or since the last scan.
    ///
    /// On a node that is quiet this takes a request for each program and each link that there is, all
    /// without a lock. Only while there is a program that may be attached by TCX without a link,
    /// devices are asked for theirs: all of them after programs came or went, else some ([`Turn`]).
    ///
    /// # Errors
    ///
    /// [`InventoryError::Programs`], as without `CAP_SYS_ADMIN`.
    pub fn attached(&mut self) -> Result<Changes, InventoryError> {
        let had_loose = self.attached.has_loose();
        let news = self.attached.look().map_err(InventoryError::Programs)?;
        if news.came_or_went {
            self.turn.begin();
        }
        let mut interfaces = news.interfaces;
        interfaces.retain(|index| self.devices.contains(index));
        if self.has_tcx && (had_loose || self.attached.has_loose()) {
            let held = self.attached.programs_of_links();
            let has_one = |index: &IfIndex| {
                let programs = self.tcx.get(index).into_iter().flatten();
                programs.into_iter().any(|program| !held.contains(program))
            };
            for index in self.turn.next(&self.devices, has_one) {
                // What cannot be asked now is asked with the next scan.
                let Ok(programs) = xdp::tcx_programs(index) else { continue };
                if self.tcx.get(&index).map_or(&[][..], Vec::as_slice) != programs {
                    interfaces.insert(index);
                }
            }
        }
        Ok(Changes { interfaces, ..Changes::default() })
    }

    /// The rules by which the last look was judged.
    pub(super) fn followed(&self) -> Arc<PublishRules> {
        Arc::clone(&self.followed)
    }

    /// Whether the rules are others since.
    pub(super) fn has_new_rules(&self) -> bool {
        !Arc::ptr_eq(&self.followed, &self.rules.borrow())
    }

    fn assemble(&mut self) -> Scan {
        let rules = Arc::clone(&self.rules.borrow());
        let held = Arc::clone(&self.held.borrow());
        let scan = assemble(&self.observed, &rules, &held);
        self.followed = rules;
        self.devices = scan.devices.iter().filter_map(|device| device.index).collect();
        scan
    }

    fn look_at(&mut self, index: IfIndex) -> Result<(), InventoryError> {
        self.observed.forget(index);
        self.tcx.remove(&index);
        let Some(link) = self.netlink.link(&By::Index(index))? else {
            self.drivers.remove(&index);
            return Ok(());
        };
        let addresses = self.netlink.addresses(index)?;
        self.observed.addresses.insert(index, addresses);
        let features = match &self.netdev {
            Some(netdev) => netdev.device(index)?,
            None => None,
        };
        let (queues, speed_mbps) = match &self.ethtool {
            Some(ethtool) => (ethtool.queues(index)?, ethtool.speed_mbps(index)?),
            None => (None, None),
        };
        self.look_at_tcx(&link);
        let place = place(&mut self.sysfs.look(), &link.name);
        self.note(link, place, Said { features, queues, speed_mbps });
        Ok(())
    }

    fn look_at_tcx(&mut self, link: &LinkFacts) {
        if !self.has_tcx {
            return;
        }
        match xdp::tcx_programs(link.index) {
            Ok(programs) if programs.is_empty() => {}
            Ok(programs) => drop(self.tcx.insert(link.index, programs)),
            Err(error) => cannot_tell(link, &error),
        }
    }

    /// Takes what was told of an interface, and asks what has to be asked about each by itself.
    fn note(&mut self, link: LinkFacts, place: Result<SysfsFacts, &'static str>, said: Said) {
        let ebpf = self.ebpf(&link, said.features);
        let said = self.said(&link, place.as_ref().ok(), &said);
        let index = link.index;
        self.observed.places.insert(index, place);
        self.observed.drivers.insert(index, said);
        self.observed.ebpf.insert(index, ebpf);
        let at = self.observed.links.partition_point(|other| other.index < index);
        self.observed.links.insert(at, link);
    }

    /// What is made of software has no firmware, and a driver that says no more than its name.
    fn said(&mut self, link: &LinkFacts, place: Option<&SysfsFacts>, said: &Said) -> DriverSaid {
        let is_virtual = place.is_none_or(SysfsFacts::is_virtual);
        let speed_mbps = match &self.ethtool {
            // A driver of hardware knows also how fast what is set down would be.
            Some(_) => said.speed_mbps.filter(|_| link.up || !is_virtual),
            None => speed_by_sysfs(&self.sysfs.look(), &link.name),
        };
        let mut said = DriverSaid { queues: said.queues, speed_mbps, ..DriverSaid::default() };
        if is_virtual {
            return said;
        }
        let facts = self.drivers.entry(link.index).or_insert_with(|| about_driver(&link.name));
        said.driver.clone_from(&facts.driver);
        said.firmware.clone_from(&facts.firmware);
        said
    }

    fn ebpf(&self, link: &LinkFacts, features: Option<NetdevFacts>) -> EbpfAbilities {
        let names = |ids: &[u32]| {
            xdp::program_names(ids).unwrap_or_else(|error| {
                cannot_tell(link, &error);
                Vec::new()
            })
        };
        let mut tcx_programs = names(self.tcx.get(&link.index).map_or(&[], Vec::as_slice));
        tcx_programs.sort_unstable();
        let mut programs = names(&link.xdp_programs);
        programs.extend(tcx_programs.iter().cloned());
        programs.sort_unstable();
        EbpfAbilities {
            xdp: features.map(|features| features.xdp),
            rx_metadata: features.and_then(|features| features.rx_metadata),
            xsk: features.and_then(|features| features.xsk),
            zero_copy_segments: features.and_then(|features| features.zero_copy_segments),
            xdp_in_use: link.is_xdp_attached(),
            tcx: self.has_tcx,
            programs,
            tcx_programs,
            tc_filters: self.tc_filters(link),
        }
    }

    /// Only while there is a program that is attached without a link there can be any.
    fn tc_filters(&self, link: &LinkFacts) -> Vec<String> {
        if !self.attached.has_loose() {
            return Vec::new();
        }
        self.netlink.filter_names(link.index).unwrap_or_else(|error| {
            let error = &error as &dyn Error;
            tracing::warn!(error, interface = %link.name, "cannot tell which filters it has");
            Vec::new()
        })
    }
}

/// What the kernel lists of all interfaces, of one of them.
#[derive(Clone, Copy, Debug)]
struct Said {
    features: Option<NetdevFacts>,
    queues: Option<Queues>,
    speed_mbps: Option<u32>,
}

/// For kernels whose drivers cannot be asked by netlink.
fn speed_by_sysfs(look: &Look<'_>, interface: &IfName) -> Option<u32> {
    look.speed_mbps(interface).unwrap_or_else(|error| {
        let error = &error as &dyn Error;
        tracing::warn!(error, %interface, "cannot tell a speed");
        None
    })
}

/// Nothing, where the driver cannot be asked.
fn about_driver(interface: &IfName) -> DriverFacts {
    let said = ethtool::driver(interface).unwrap_or_else(|error| {
        tracing::warn!(%error, %interface, "cannot ask the driver of an interface");
        None
    });
    said.unwrap_or_default()
}

fn cannot_tell(link: &LinkFacts, error: &XdpError) {
    if !error.is_absent() {
        let error = error as &dyn Error;
        tracing::warn!(error, interface = %link.name, "cannot tell which programs it has");
    }
}

impl Observed {
    /// Adds to `changed` what an RDMA device may know of an interface.
    fn note_rdma(&self, index: IfIndex, changed: &mut rdma::Changed) {
        let link = self.links.iter().find(|link| link.index == index);
        changed.names.extend(link.map(|link| link.name.to_string()));
        let place = self.places.get(&index).and_then(|place| place.as_ref().ok());
        changed.bus_devices.extend(place.and_then(|place| place.bus_device.clone()));
    }

    /// Drops everything about an interface.
    fn forget(&mut self, index: IfIndex) {
        self.links.retain(|link| link.index != index);
        self.addresses.remove(&index);
        self.places.remove(&index);
        self.ebpf.remove(&index);
        self.drivers.remove(&index);
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

/// Nor must anything that is no interface. `what` could not be done.
pub(super) fn told<T>(what: &str, found: Result<T, SysfsError>) -> Option<T> {
    found
        .inspect_err(|error| {
            let error = error as &dyn Error;
            tracing::warn!(error, "cannot {what}");
        })
        .ok()
}
