//! PCI functions.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sriov::vf_count;
use super::{Sysfs, SysfsError, entries, is_there, nearness, number, text};
use crate::model::{Cpus, IfName, PciAddress, PciFacts, Sriov, VFIO_DRIVER, VirtualFunction};

/// What sysfs tells of a PCI function.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FunctionFacts {
    pub pci: PciFacts,
    /// Base class, sub-class and programming interface: `0x020000` for Ethernet.
    pub class: u32,
    pub driver: Option<String>,
    pub numa_node: Option<u32>,
    /// `local_cpulist`; `None` where there is no node.
    pub local_cpus: Option<Cpus>,
    /// `None` also where VFIO has made a group without an IOMMU.
    pub iommu_group: Option<u32>,
    /// Functions in the same IOMMU group whose drivers use them for the kernel, so that none of the
    /// group can be given to user space. Only asked for where `vfio-pci` is the driver.
    pub held_up_by: Vec<PciAddress>,
    /// `sriov_totalvfs` and how many there are; `None` where the total is 0.
    pub sriov: Option<Sriov>,
    /// What `physfn` links to, and which of its `virtfnN` links back.
    pub vf: Option<VirtualFunction>,
}

/// The base class of network controllers (`PCI_BASE_CLASS_NETWORK` in `include/linux/pci_ids.h`).
const NETWORK: u32 = 0x02;

/// Drivers beside which a function can be given to user space: those that do no DMA for the kernel
/// (`driver_managed_dma` in `drivers/vfio/pci/vfio_pci.c`, `drivers/pci/pci-stub.c` and
/// `drivers/pci/pcie/portdrv.c`, Linux 6.12).
const HARMLESS_DRIVERS: [&str; 3] = [VFIO_DRIVER, "pci-stub", "pcieport"];

impl FunctionFacts {
    pub fn is_network(&self) -> bool {
        is_network(self.class)
    }
}

fn is_network(class: u32) -> bool {
    class >> 16 == NETWORK
}

/// What a physical function's directory tells of the ways to its virtual functions.
#[derive(Clone, Debug, Default)]
pub(super) struct Family {
    /// By address, the N of `virtfnN`.
    indices: BTreeMap<PciAddress, u32>,
    interface: Option<IfName>,
}

impl Family {
    pub(super) fn read(sysfs: &Sysfs, physical: &Path) -> Result<Self, SysfsError> {
        let mut family = Self::default();
        for entry in entries(physical)? {
            let Some(index) = entry.strip_prefix("virtfn").and_then(|n| n.parse().ok()) else {
                continue;
            };
            let address =
                sysfs.link_name(&physical.join(&entry))?.and_then(|name| name.parse().ok());
            family.indices.extend(address.map(|address: PciAddress| (address, index)));
        }
        let interfaces = entries(&physical.join("net"))?;
        // Representors are beside the function's own interface; only they have names of this form.
        for name in &interfaces {
            let port = match interfaces.len() {
                1 => None,
                _ => text(&physical.join("net").join(name).join("phys_port_name"))?,
            };
            if port.is_none_or(|port| !port.contains("pf")) {
                family.interface = name.parse().ok();
                break;
            }
        }
        Ok(family)
    }
}

/// The nearest directory at or above `path` that is a PCI function.
pub(super) fn function_above(path: &Path) -> Option<&Path> {
    path.ancestors().find(|directory| pci_address(directory).is_some())
}

pub(super) fn pci_address(directory: &Path) -> Option<PciAddress> {
    directory.file_name()?.to_str()?.parse().ok()
}

/// Reads the function at `path`; `family` answers for a physical function's directory. `None` if
/// `path` is no function.
pub(super) fn function(
    sysfs: &Sysfs,
    path: &Path,
    family: impl FnOnce(&Path) -> Result<Arc<Family>, SysfsError>,
) -> Result<Option<FunctionFacts>, SysfsError> {
    let Some(address) = pci_address(path) else { return Ok(None) };
    // The first `pciDDDD:BB` on the way down is the root complex that the processor sees, also where
    // bridges such as VMD open domains of their own further down.
    let root = path.iter().filter_map(OsStr::to_str).find(|part| is_pcie_root(part));
    let driver = sysfs.link_name(&path.join("driver"))?;
    let is_vfio = driver.as_deref() == Some(VFIO_DRIVER);
    let group = sysfs.target(&path.join("iommu_group"))?;
    let group = group.filter(|group| !(is_vfio && is_without_iommu(sysfs, group)));
    let held_up_by = match &group {
        Some(group) if is_vfio => held_up_by(sysfs, group)?,
        _ => Vec::new(),
    };
    let vf = match sysfs.target(&path.join("physfn"))? {
        Some(physical) => {
            let family = family(&physical)?;
            let place = pci_address(&physical).zip(family.indices.get(&address).copied());
            let pf_interface = family.interface.clone();
            place.map(|(pf, index)| VirtualFunction { pf, pf_interface, index })
        }
        None => None,
    };
    let (numa_node, local_cpus) = nearness(path)?;
    Ok(Some(FunctionFacts {
        pci: PciFacts {
            address,
            root: root.unwrap_or_default().to_owned(),
            vendor: identifier(&path.join("vendor"))?,
            device: identifier(&path.join("device"))?,
            subsystem: identifier(&path.join("subsystem_device"))?,
        },
        class: class(path)?,
        driver,
        numa_node,
        local_cpus,
        iommu_group: group.as_deref().and_then(group_number),
        held_up_by,
        // Virtual functions have none of their own.
        sriov: if vf.is_none() { sriov(path)? } else { None },
        vf,
    }))
}

/// Where the PCI functions are that have no interface here though they are network controllers: those
/// without a driver, and those that user space has. One whose driver made an interface that is in a
/// pod is none of them: the link to its driver stays. Nothing is asked of those that are `known`.
pub(super) fn without_interface(
    sysfs: &Sysfs,
    known: &BTreeMap<PathBuf, Option<Arc<FunctionFacts>>>,
) -> Result<Vec<PathBuf>, SysfsError> {
    let all = sysfs.root.join("bus/pci/devices");
    let mut found = Vec::new();
    for entry in entries(&all)? {
        let Some(path) = sysfs.target(&all.join(entry))? else { continue };
        let is_idle = |driver: Option<&str>| driver.is_none_or(|driver| driver == VFIO_DRIVER);
        let is_one = match known.get(&path) {
            Some(Some(function)) => function.is_network() && is_idle(function.driver.as_deref()),
            Some(None) => false,
            None => {
                is_network(class(&path)?)
                    && is_idle(sysfs.link_name(&path.join("driver"))?.as_deref())
            }
        };
        if is_one {
            found.push(path);
        }
    }
    Ok(found)
}

fn class(function: &Path) -> Result<u32, SysfsError> {
    let path = function.join("class");
    let Some(text) = text(&path)? else { return Ok(0) };
    u32::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|_| SysfsError::Malformed {
        path,
        text,
        expected: "a class such as 0x020000",
    })
}

fn group_number(group: &Path) -> Option<u32> {
    group.file_name()?.to_str()?.parse().ok()
}

/// Whether VFIO made the group itself, for a function without an IOMMU: whoever had it could write to
/// all memory. Its file is called so then (`vfio_create_group()` in `drivers/vfio/group.c`, Linux 6.12).
fn is_without_iommu(sysfs: &Sysfs, group: &Path) -> bool {
    let name = group_number(group).map(|number| format!("noiommu-{number}"));
    name.is_some_and(|name| is_there(&sysfs.root.join("class/vfio").join(name)))
}

fn held_up_by(sysfs: &Sysfs, group: &Path) -> Result<Vec<PciAddress>, SysfsError> {
    let devices = group.join("devices");
    let mut holders = Vec::new();
    for entry in entries(&devices)? {
        let Some(path) = sysfs.target(&devices.join(&entry))? else { continue };
        let driver = sysfs.link_name(&path.join("driver"))?;
        if driver.is_some_and(|driver| !HARMLESS_DRIVERS.contains(&driver.as_str())) {
            holders.extend(entry.parse::<PciAddress>());
        }
    }
    Ok(holders)
}

fn is_pcie_root(part: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    part.strip_prefix("pci").and_then(|rest| rest.split_once(':')).is_some_and(|(domain, bus)| {
        domain.len() >= 4 && bus.len() == 2 && is_hex(domain) && is_hex(bus)
    })
}

/// The four digits of an identifier that is written `0x15b3`.
pub(super) fn identifier(path: &Path) -> Result<Option<String>, SysfsError> {
    Ok(text(path)?.map(|text| text.trim_start_matches("0x").to_owned()))
}

pub(super) fn sriov(function: &Path) -> Result<Option<Sriov>, SysfsError> {
    let Some(total_vfs) = number(&function.join("sriov_totalvfs"))?.filter(|total| *total > 0)
    else {
        return Ok(None);
    };
    Ok(Some(Sriov { total_vfs, num_vfs: vf_count(function)? }))
}

#[cfg(test)]
mod tests {
    use crate::sys::sysfs::tree::SysfsTree;

    const IDLE: &str = "
        devices/pci0000:00/0000:00:01.0/0000:01:00.0:
          class = 0x020000
          driver => bus/pci/drivers/vfio-pci
          iommu_group => kernel/iommu_groups/9
        devices/pci0000:00/0000:00:01.0/0000:01:00.1:
          class = 0x020000
          driver => bus/pci/drivers/igb
          iommu_group => kernel/iommu_groups/9
        devices/pci0000:00/0000:00:01.0:
          class = 0x060400
          driver => bus/pci/drivers/pcieport
          iommu_group => kernel/iommu_groups/9
        devices/pci0000:00/0000:00:02.0/class = 0x028000
        devices/pci0000:00/0000:00:03.0/class = 0x010802
        kernel/iommu_groups/9/devices:
          0000:00:01.0 => devices/pci0000:00/0000:00:01.0
          0000:01:00.0 => devices/pci0000:00/0000:00:01.0/0000:01:00.0
          0000:01:00.1 => devices/pci0000:00/0000:00:01.0/0000:01:00.1
    ";

    #[test]
    fn network_controllers_without_an_interface_are_found_unless_a_driver_has_them() {
        let tree = SysfsTree::machine(IDLE);
        let found = tree.sysfs().look().functions_without_interface().unwrap();
        let found: Vec<_> =
            found.iter().map(|it| (it.pci.address.to_string(), it.driver.as_deref())).collect();
        let [idle, vfio] = &found[..] else { panic!("{found:?}") };
        assert_eq!(*vfio, ("0000:01:00.0".to_owned(), Some("vfio-pci")));
        assert_eq!(*idle, ("0000:00:02.0".to_owned(), None));
    }

    #[test]
    fn a_group_is_held_up_by_those_whose_drivers_use_them() {
        let found = |tree: &SysfsTree| {
            let sysfs = tree.sysfs();
            let found = sysfs.look().functions_without_interface().unwrap();
            let vfio = found.iter().find(|it| it.driver.is_some()).unwrap();
            assert_eq!(vfio.iommu_group, Some(9));
            vfio.held_up_by.clone()
        };
        let tree = SysfsTree::machine(IDLE);
        assert_eq!(found(&tree), ["0000:01:00.1".parse().unwrap()], "a bridge does not matter");
        let tree = tree.unlinked("devices/pci0000:00/0000:00:01.0/0000:01:00.1/driver");
        assert_eq!(found(&tree), []);
    }

    #[test]
    fn a_group_of_vfio_without_an_iommu_is_none() {
        let found = |tree: SysfsTree| {
            let function = tree.sysfs().look().function("0000:01:00.0".parse().unwrap()).unwrap();
            function.unwrap().iommu_group
        };
        assert_eq!(found(SysfsTree::machine(&format!("{IDLE}\nclass/vfio/9/"))), Some(9));
        assert_eq!(found(SysfsTree::machine(&format!("{IDLE}\nclass/vfio/noiommu-9/"))), None);
        let absent = "0000:01:00.7".parse().unwrap();
        assert_eq!(SysfsTree::machine(IDLE).sysfs().look().function(absent).unwrap(), None);
    }
}
