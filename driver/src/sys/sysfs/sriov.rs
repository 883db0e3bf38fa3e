//! Functions of SR-IOV: which there are, who uses them, and how many there shall be.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use super::function::{identifier, pci_address};
use super::{Sysfs, SysfsError, entries, number, text};
use crate::model::{IfName, PciAddress, PfState, VfUse};

/// `IFF_UP` (`include/uapi/linux/if.h`).
const UP: u32 = 1;

impl Sysfs {
    /// All PCI functions that can have virtual ones, by address.
    ///
    /// # Errors
    ///
    /// Any [`SysfsError`].
    pub fn physical_functions(&self) -> Result<Vec<PfState>, SysfsError> {
        let all = self.root.join("bus/pci/devices");
        let mut functions = Vec::new();
        for name in entries(&all)? {
            let Some(path) = self.target(&all.join(&name))? else { continue };
            if let Some(total_vfs) = number(&path.join("sriov_totalvfs"))?.filter(|n| *n > 0) {
                functions.extend(self.physical_function(&path, total_vfs)?);
            }
        }
        Ok(functions)
    }

    fn physical_function(
        &self,
        path: &Path,
        total_vfs: u32,
    ) -> Result<Option<PfState>, SysfsError> {
        let Some(address) = pci_address(path) else { return Ok(None) };
        let mut vfs = Vec::new();
        for name in entries(path)?.into_iter().filter(|name| name.starts_with("virtfn")) {
            if let Some(vf) = self.target(&path.join(name))? {
                vfs.extend(self.virtual_function(&vf)?);
            }
        }
        let interfaces = interfaces(path)?.into_iter().map(|(name, _)| name).collect();
        Ok(Some(PfState {
            address,
            driver: self.link_name(&path.join("driver"))?,
            interfaces,
            // Sysfs knows no routes.
            needed: None,
            vendor: identifier(&path.join("vendor"))?,
            device: identifier(&path.join("device"))?,
            total_vfs,
            num_vfs: vf_count(path)?,
            vfs,
        }))
    }

    fn virtual_function(&self, path: &Path) -> Result<Option<VfUse>, SysfsError> {
        let Some(address) = pci_address(path) else { return Ok(None) };
        let driver = self.link_name(&path.join("driver"))?;
        let has_rdma = !entries(&path.join("infiniband"))?.is_empty();
        Ok(Some(VfUse { address, driver, has_rdma, interfaces: interfaces(path)? }))
    }

    /// Has a physical function that has `from` virtual ones have `to`. Those that there are go first: the
    /// kernel takes another number only while it is 0 (`sriov_numvfs_store()` in `drivers/pci/iov.c`,
    /// Linux 6.12). Waits for whoever is changing the number. Answers whether anything changed.
    ///
    /// # Errors
    ///
    /// [`SysfsError::Overtaken`] where the number is neither by now: nothing was decided about those.
    /// [`SysfsError::Write`] with what the kernel said; there may be no virtual functions then.
    pub fn set_vf_count(&self, pf: PciAddress, from: u32, to: u32) -> Result<bool, SysfsError> {
        let file = self.root.join("bus/pci/devices").join(pf.to_string()).join("sriov_numvfs");
        let is = number(&file)?.unwrap_or(0);
        if is == to {
            return Ok(false);
        }
        if is != from {
            return Err(SysfsError::Overtaken { path: file, is, from });
        }
        if from != 0 && to != 0 {
            write(&file, 0)?;
        }
        write(&file, to)?;
        Ok(true)
    }
}

/// How many virtual functions a physical one has. Not what `sriov_numvfs` says: reading it waits for
/// whoever is writing it, which may take seconds (`sriov_numvfs_show()` in `drivers/pci/iov.c`, Linux
/// 6.12, locks the device). The links are made one by one while functions are.
pub(super) fn vf_count(physical: &Path) -> Result<u32, SysfsError> {
    let all = entries(physical)?;
    let count = all.iter().filter(|name| name.starts_with("virtfn")).count();
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Interfaces of a function that can be seen from here, and whether each is up.
fn interfaces(function: &Path) -> Result<Vec<(IfName, bool)>, SysfsError> {
    let directory = function.join("net");
    let mut found = Vec::new();
    for name in entries(&directory)? {
        let flags = text(&directory.join(&name).join("flags"))?;
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok());
        // What nobody can tell may be up.
        let is_up = flags.is_none_or(|flags| flags & UP != 0);
        found.extend(name.parse().ok().map(|name| (name, is_up)));
    }
    Ok(found)
}

/// Never makes the file: where there is none, nothing can be set.
fn write(file: &Path, count: u32) -> Result<(), SysfsError> {
    let opened = OpenOptions::new().write(true).truncate(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(count.to_string().as_bytes()));
    let text = count.to_string();
    written.map_err(|source| SysfsError::Write { path: file.to_owned(), text, source })
}

#[cfg(test)]
mod tests {
    use super::super::function::sriov;
    use super::super::tree::SysfsTree;
    use super::*;

    const IGB: &str = "
        bus/pci/devices/0000:01:00.0 -> ../../../devices/pci0000:00/0000:00:02.0/0000:01:00.0
        bus/pci/devices/0000:01:10.0 -> ../../../devices/pci0000:00/0000:00:02.0/0000:01:10.0
        bus/pci/devices/0000:00:02.0 -> ../../../devices/pci0000:00/0000:00:02.0
        devices/pci0000:00/0000:00:02.0/0000:01:00.0/vendor = 0x8086
        devices/pci0000:00/0000:00:02.0/0000:01:00.0/device = 0x10c9
        devices/pci0000:00/0000:00:02.0/0000:01:00.0/sriov_totalvfs = 7
        devices/pci0000:00/0000:00:02.0/0000:01:00.0/sriov_numvfs = 1
        devices/pci0000:00/0000:00:02.0/0000:01:00.0/virtfn0 -> ../0000:01:10.0
        devices/pci0000:00/0000:00:02.0/0000:01:00.0/net/eth1/flags = 0x1003
        devices/pci0000:00/0000:00:02.0/0000:01:00.0/driver -> ../../../../bus/pci/drivers/igb
        bus/pci/drivers/igb/
        devices/pci0000:00/0000:00:02.0/0000:01:10.0/driver -> ../../../../bus/pci/drivers/igbvf
        devices/pci0000:00/0000:00:02.0/0000:01:10.0/net/eth2/flags = 0x1002
        devices/pci0000:00/0000:00:02.0/0000:01:10.0/infiniband/rdma0/node_type = 1: CA
        bus/pci/drivers/igbvf/
    ";

    #[test]
    fn a_physical_function_shows_who_uses_its_virtual_ones() {
        let found = SysfsTree::new(IGB).sysfs().physical_functions().unwrap();
        let vf = VfUse {
            address: "0000:01:10.0".parse().unwrap(),
            driver: Some("igbvf".to_owned()),
            has_rdma: true,
            interfaces: vec![("eth2".parse().unwrap(), false)],
        };
        let pf = PfState {
            address: "0000:01:00.0".parse().unwrap(),
            driver: Some("igb".to_owned()),
            interfaces: vec!["eth1".parse().unwrap()],
            needed: None,
            vendor: Some("8086".to_owned()),
            device: Some("10c9".to_owned()),
            total_vfs: 7,
            num_vfs: 1,
            vfs: vec![vf],
        };
        assert_eq!(found, [pf]);
    }

    /// A pipe that nobody writes to keeps whoever opens it waiting, as the kernel does.
    #[test]
    fn nobody_who_looks_waits_for_who_changes_the_number() {
        let tree = SysfsTree::new(IGB);
        let sysfs = tree.sysfs();
        let function = sysfs.root.join("devices/pci0000:00/0000:00:02.0/0000:01:00.0");
        let file = function.join("sriov_numvfs");
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let here = sysfs.physical_functions().unwrap()[0].num_vfs;
            let offered = sriov(&function).unwrap().unwrap().num_vfs;
            tell.send((here, offered)).unwrap();
        });
        let found = told.recv_timeout(std::time::Duration::from_mins(1));
        assert_eq!(found, Ok((1, 1)));
    }

    #[test]
    fn a_number_is_written_once_and_only_where_there_is_a_file() {
        let tree = SysfsTree::new(IGB);
        let (sysfs, pf) = (tree.sysfs(), "0000:01:00.0".parse().unwrap());
        assert!(sysfs.set_vf_count(pf, 1, 3).unwrap());
        assert!(!sysfs.set_vf_count(pf, 1, 3).unwrap(), "it is so already");
        let file = "devices/pci0000:00/0000:00:02.0/0000:01:00.0/sriov_numvfs";
        assert_eq!(tree.text(file).as_deref(), Some("3"));
        // Somebody was making these while it was decided to make some where there are none.
        let error = sysfs.set_vf_count(pf, 0, 8).unwrap_err().to_string();
        assert!(error.ends_with("sriov_numvfs holds 3 by now, not 0"), "{error}");
        assert_eq!(tree.text(file).as_deref(), Some("3"));
        let error = sysfs.set_vf_count("0000:01:10.0".parse().unwrap(), 0, 1).unwrap_err();
        assert!(matches!(error, SysfsError::Write { .. }), "{error}");
    }
}
