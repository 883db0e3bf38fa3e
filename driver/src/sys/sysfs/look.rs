//! One look at sysfs: everything in it is asked for once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::function::{Family, function, function_above, without_interface};
use super::interface::{interface, speed_mbps};
use super::rdma::{ask_first_port, has_cm, rdma_device, rdma_names};
use super::{FunctionFacts, RdmaDevice, Sysfs, SysfsError, SysfsFacts, cpus};
use crate::model::{Cpus, IfName, PciAddress};

/// What was seen of sysfs in one scan.
///
/// A function that has 256 virtual ones is read once for all of them, and so are they for all of
/// their interfaces.
#[derive(Debug)]
pub struct Look<'a> {
    pub(super) sysfs: &'a Sysfs,
    functions: BTreeMap<PathBuf, Option<Arc<FunctionFacts>>>,
    families: BTreeMap<PathBuf, Arc<Family>>,
    has_cm: Option<bool>,
}

impl<'a> Look<'a> {
    pub(super) fn new(sysfs: &'a Sysfs) -> Self {
        Self { sysfs, functions: BTreeMap::new(), families: BTreeMap::new(), has_cm: None }
    }

    /// Everything about one interface; `None` where there is none of that name.
    ///
    /// # Errors
    ///
    /// [`SysfsError`] where something of it is there and cannot be read.
    pub fn interface(&mut self, name: &IfName) -> Result<Option<SysfsFacts>, SysfsError> {
        interface(self, name)
    }

    /// The speed of an interface that is up, in megabits per second (10^6 bit/s); `None` where nobody
    /// tells. Netlink tells it of all interfaces at once.
    ///
    /// # Errors
    ///
    /// [`SysfsError`] where it is there and cannot be read.
    pub fn speed_mbps(&self, name: &IfName) -> Result<Option<u32>, SysfsError> {
        speed_mbps(self.sysfs, name)
    }

    /// One PCI function; `None` where there is none at this address.
    ///
    /// # Errors
    ///
    /// [`SysfsError`] where something of it is there and cannot be read.
    pub fn function(
        &mut self,
        address: PciAddress,
    ) -> Result<Option<Arc<FunctionFacts>>, SysfsError> {
        let link = self.sysfs.root.join("bus/pci/devices").join(address.to_string());
        match self.sysfs.target(&link)? {
            Some(path) => self.function_above(&path),
            None => Ok(None),
        }
    }

    /// Network controllers on PCI that have no driver, or are bound to `vfio-pci`.
    ///
    /// # Errors
    ///
    /// [`SysfsError`] where something of them is there and cannot be read.
    pub fn functions_without_interface(&mut self) -> Result<Vec<Arc<FunctionFacts>>, SysfsError> {
        let mut found = Vec::new();
        for path in without_interface(self.sysfs, &self.functions)? {
            found.extend(self.function_above(&path)?);
        }
        Ok(found)
    }

    /// The names of all RDMA devices, sorted.
    ///
    /// # Errors
    ///
    /// [`SysfsError`] where they are there and cannot be listed.
    pub fn rdma_names(&self) -> Result<Vec<String>, SysfsError> {
        rdma_names(self)
    }

    /// Everything about one RDMA device; `None` where there is none of that name, or none yet.
    ///
    /// # Errors
    ///
    /// [`SysfsError`] where something of it is there and cannot be read.
    pub fn rdma_device(&mut self, name: &str) -> Result<Option<RdmaDevice>, SysfsError> {
        rdma_device(self, name)
    }

    /// Whether RDMA connections can be made by addresses.
    pub(super) fn has_connection_manager(&mut self) -> bool {
        let sysfs = self.sysfs;
        *self.has_cm.get_or_insert_with(|| has_cm(sysfs))
    }

    /// Fills in how the first port of an RDMA device is doing. Drivers ask the hardware for it, so this is
    /// for devices of which nothing else tells.
    ///
    /// # Errors
    ///
    /// [`SysfsError`] where it is there and cannot be read.
    pub fn ask_first_port(&self, device: &mut RdmaDevice) -> Result<(), SysfsError> {
        ask_first_port(device)
    }

    /// The CPUs that anything may be put on: those that are online, but not those that the kernel was
    /// started without (`isolcpus=`, `print_cpus_isolated()` in `drivers/base/cpu.c`, Linux 6.12);
    /// `None` where nobody tells.
    ///
    /// # Errors
    ///
    /// [`SysfsError`] where it is there and cannot be read.
    pub fn usable_cpus(&self) -> Result<Option<Cpus>, SysfsError> {
        let directory = self.sysfs.root.join("devices/system/cpu");
        let Some(online) = cpus(&directory.join("online"))? else { return Ok(None) };
        let isolated = cpus(&directory.join("isolated"))?.unwrap_or_default();
        Ok(Some(online.without(&isolated)))
    }

    /// The PCI function that `path` is, or is below.
    pub(super) fn function_above(
        &mut self,
        path: &Path,
    ) -> Result<Option<Arc<FunctionFacts>>, SysfsError> {
        let Some(path) = function_above(path) else { return Ok(None) };
        if let Some(known) = self.functions.get(path) {
            return Ok(known.clone());
        }
        let Self { sysfs, families, .. } = self;
        let family = |physical: &Path| {
            if let Some(known) = families.get(physical) {
                return Ok(Arc::clone(known));
            }
            let family = Arc::new(Family::read(sysfs, physical)?);
            families.insert(physical.to_owned(), Arc::clone(&family));
            Ok(family)
        };
        let facts = function(sysfs, path, family)?.map(Arc::new);
        self.functions.insert(path.to_owned(), facts.clone());
        Ok(facts)
    }
}
