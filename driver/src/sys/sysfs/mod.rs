//! What sysfs tells of an interface: where it sits in the machine, and what drives it.
//!
//! A [`Sysfs`] is a value with a root, so a tree of fixtures is as good as `/sys`. Which interfaces
//! `class/net` shows depends on the namespace of whoever *mounted* this sysfs, not of whoever reads.

#[cfg(test)]
pub(crate) mod tree;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::libc;

use crate::model::{Cpus, IfName, PciAddress, PciFacts, Sriov};

/// A mounted sysfs.
#[derive(Clone, Debug)]
pub struct Sysfs {
    /// Without symbolic links in it.
    root: PathBuf,
}

/// What sysfs tells of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SysfsFacts {
    /// The nearest PCI function above the interface. A virtio interface is on a function too,
    /// though its `device` is none.
    pub pci: Option<PciFacts>,
    /// Below `devices/virtual`.
    pub is_virtual: bool,
    /// `numa_node` of the PCI function, else of `device`; -1 is `None`.
    pub numa_node: Option<u32>,
    /// `local_cpulist` beside it; `None` where there is no node.
    pub local_cpus: Option<Cpus>,
    /// What `device/driver` links to.
    pub driver: Option<String>,
    /// `speed`, in megabits per second (10^6 bit/s).
    pub speed_mbps: Option<u32>,
    /// `sriov_totalvfs` and `sriov_numvfs` of the PCI function; `None` where the total is 0.
    pub sriov: Option<Sriov>,
    /// What `physfn` of the PCI function links to: this is a virtual function of that.
    pub physical_function: Option<PciAddress>,
    /// The first entry of `device/infiniband`.
    pub rdma_device: Option<String>,
    /// The device's character devices below `/dev/infiniband`, and the one by which connections are
    /// made, which all share; sorted, and none without an RDMA device.
    pub rdma_nodes: Vec<PathBuf>,
    /// Which of the PCI function's ports the interface is, where that is not plain: a representor's
    /// `phys_port_name` such as `pf0vf1`, or a `dev_port` above 0.
    pub port: Option<String>,
}

/// Why sysfs could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysfsError {
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("{} leads out of {}, to {}", .path.display(), .root.display(), .target.display())]
    Outside { path: PathBuf, root: PathBuf, target: PathBuf },

    #[error("{} holds {text:?}, which is not {expected}", .path.display())]
    Malformed { path: PathBuf, text: String, expected: &'static str },
}

impl Sysfs {
    /// A sysfs at `root`, `/sys` as a rule.
    pub fn new(root: &Path) -> Result<Self, SysfsError> {
        let root = fs::canonicalize(root)
            .map_err(|source| SysfsError::Read { path: root.to_owned(), source })?;
        Ok(Self { root })
    }

    /// Everything about one interface; `None` where there is none of that name, as when it vanished
    /// while we looked.
    pub fn interface(&self, name: &IfName) -> Result<Option<SysfsFacts>, SysfsError> {
        let Some(path) = self.canonical(&self.root.join("class/net").join(name.as_str()))? else {
            return Ok(None);
        };
        let below_devices = path.strip_prefix(self.root.join("devices")).unwrap_or(Path::new(""));
        let function = pci_function(&path);
        let attribute_of_function = |attribute: &str| function.map(|path| path.join(attribute));
        let numa_node = attribute_of_function("numa_node")
            .unwrap_or_else(|| path.join("device").join("numa_node"));

        let node = number(&numa_node)?;
        let local_cpus = match node {
            Some(_) => cpus(&numa_node.with_file_name("local_cpulist"))?,
            None => None,
        };
        Ok(Some(SysfsFacts {
            pci: function
                .and_then(pci_address)
                .map(|address| pci_facts(address, &path))
                .transpose()?,
            is_virtual: below_devices.starts_with("virtual"),
            numa_node: node,
            local_cpus,
            driver: self.link_name(&path.join("device").join("driver"))?,
            speed_mbps: number(&path.join("speed"))?,
            sriov: function.map(sriov).transpose()?.flatten(),
            physical_function: match attribute_of_function("physfn") {
                Some(link) => self.link_name(&link)?.and_then(|name| name.parse().ok()),
                None => None,
            },
            rdma_device: entries(&path.join("device").join("infiniband"))?.into_iter().next(),
            rdma_nodes: rdma_nodes(&path.join("device"))?,
            port: port(&path)?,
        }))
    }

    /// Where `path` really is; `None` where nothing is.
    fn canonical(&self, path: &Path) -> Result<Option<PathBuf>, SysfsError> {
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(source) => return Err(SysfsError::Read { path: path.to_owned(), source }),
        };
        if target.starts_with(&self.root) {
            return Ok(Some(target));
        }
        Err(SysfsError::Outside { path: path.to_owned(), root: self.root.clone(), target })
    }

    /// The name of what the link at `path` leads to.
    fn link_name(&self, path: &Path) -> Result<Option<String>, SysfsError> {
        let target = self.canonical(path)?;
        Ok(target.as_deref().and_then(Path::file_name).and_then(OsStr::to_str).map(str::to_owned))
    }
}

/// The nearest directory at or above `path` that is a PCI function.
fn pci_function(path: &Path) -> Option<&Path> {
    path.ancestors().find(|directory| pci_address(directory).is_some())
}

fn pci_address(directory: &Path) -> Option<PciAddress> {
    directory.file_name()?.to_str()?.parse().ok()
}

/// `root` is the first `pciDDDD:BB` on the way down: the root complex that the processor sees, also
/// where bridges such as VMD open domains of their own further down.
fn pci_facts(address: PciAddress, interface: &Path) -> Result<PciFacts, SysfsError> {
    let root = interface.iter().filter_map(OsStr::to_str).find(|part| is_pcie_root(part));
    let function = pci_function(interface).unwrap_or(interface);
    Ok(PciFacts {
        address,
        root: root.unwrap_or_default().to_owned(),
        vendor: identifier(&function.join("vendor"))?,
        device: identifier(&function.join("device"))?,
    })
}

fn is_pcie_root(part: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    part.strip_prefix("pci").and_then(|rest| rest.split_once(':')).is_some_and(|(domain, bus)| {
        domain.len() >= 4 && bus.len() == 2 && is_hex(domain) && is_hex(bus)
    })
}

/// The four digits of an identifier that is written `0x15b3`.
fn identifier(path: &Path) -> Result<Option<String>, SysfsError> {
    Ok(text(path)?.map(|text| text.trim_start_matches("0x").to_owned()))
}

fn sriov(function: &Path) -> Result<Option<Sriov>, SysfsError> {
    let Some(total_vfs) = number(&function.join("sriov_totalvfs"))?.filter(|total| *total > 0)
    else {
        return Ok(None);
    };
    let num_vfs = number(&function.join("sriov_numvfs"))?.unwrap_or(0);
    Ok(Some(Sriov { total_vfs, num_vfs }))
}

fn port(interface: &Path) -> Result<Option<String>, SysfsError> {
    // An uplink is called `p0`, `p1`…; its function tells that already.
    let is_uplink = |name: &str| {
        name.strip_prefix('p').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if let Some(name) = text(&interface.join("phys_port_name"))?
        && !name.is_empty()
        && !is_uplink(&name)
    {
        return Ok(Some(name));
    }
    let port = number(&interface.join("dev_port"))?.filter(|port| *port > 0);
    Ok(port.map(|port| port.to_string()))
}

/// A number that is not negative. `None` when there is nothing to tell, which is normal: -1 stands
/// for "unknown", and `speed` fails with `EINVAL` while an interface is down.
fn number(path: &Path) -> Result<Option<u32>, SysfsError> {
    match text(path)?.as_deref() {
        None | Some("-1") => Ok(None),
        Some(text) => u32::from_str(text).map(Some).map_err(|_| SysfsError::Malformed {
            path: path.to_owned(),
            text: text.to_owned(),
            expected: "a number from -1 to 4294967295",
        }),
    }
}

fn text(path: &Path) -> Result<Option<String>, SysfsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if is_absence(&error) => Ok(None),
        Err(source) => Err(SysfsError::Read { path: path.to_owned(), source }),
    }
}

/// Node names are those of the class devices (`ib_uverbs_add_one()` in
/// `drivers/infiniband/core/uverbs_main.c` and `ib_umad_init_port()` in `user_mad.c`, Linux 6.12).
fn rdma_nodes(device: &Path) -> Result<Vec<PathBuf>, SysfsError> {
    let mut names = entries(&device.join("infiniband_verbs"))?;
    names.extend(entries(&device.join("infiniband_mad"))?);
    if !names.is_empty() {
        names.push("rdma_cm".to_owned());
    }
    names.sort();
    Ok(names.into_iter().map(|name| Path::new("/dev/infiniband").join(name)).collect())
}

/// A list of CPUs; `None` where there is none, or an empty one.
fn cpus(path: &Path) -> Result<Option<Cpus>, SysfsError> {
    let Some(text) = text(path)? else { return Ok(None) };
    match text.parse::<Cpus>() {
        Ok(cpus) => Ok((!cpus.is_empty()).then_some(cpus)),
        Err(_) => {
            Err(SysfsError::Malformed { path: path.to_owned(), text, expected: "a list of CPUs" })
        }
    }
}

/// Names of what is in a directory, sorted; none where there is no directory.
fn entries(directory: &Path) -> Result<Vec<String>, SysfsError> {
    let error = |source| SysfsError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(absence) if is_absence(&absence) => return Ok(Vec::new()),
        Err(source) => return Err(error(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(error)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Whether a failed read means "this interface has no such attribute" rather than "reading broke".
fn is_absence(error: &io::Error) -> bool {
    let absences =
        [libc::ENOENT, libc::ENOTDIR, libc::EINVAL, libc::EOPNOTSUPP, libc::ENODEV, libc::ENXIO];
    error.raw_os_error().is_some_and(|errno| absences.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::tree::SysfsTree;
    use super::*;

    fn facts(tree: &SysfsTree, name: &str) -> SysfsFacts {
        tree.sysfs().interface(&name.parse().unwrap()).unwrap().unwrap()
    }

    /// A physical function and one of its virtual functions, as an ice driver shows them.
    const ONE_VF: &str = "
        class/net/eth0 -> ../../devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/net/eth0
        class/net/eth1 -> ../../devices/pci0000:3a/0000:3a:02.0/0000:3b:01.0/net/eth1
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/vendor = 0x8086
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/device = 0x1592
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/numa_node = 1
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/local_cpulist = 16-31,48-63
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/sriov_totalvfs = 64
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/sriov_numvfs = 1
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/driver -> ../../../../bus/pci/drivers/ice
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/net/eth0/device -> ../../../0000:3b:00.0
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/net/eth0/speed = 100000
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0/net/eth0/phys_port_name = p0
        devices/pci0000:3a/0000:3a:02.0/0000:3b:01.0/numa_node = 1
        devices/pci0000:3a/0000:3a:02.0/0000:3b:01.0/physfn -> ../0000:3b:00.0
        devices/pci0000:3a/0000:3a:02.0/0000:3b:01.0/net/eth1/device -> ../../../0000:3b:01.0
        devices/pci0000:3a/0000:3a:02.0/0000:3b:01.0/net/eth1/speed = -1
        bus/pci/drivers/ice/
    ";

    #[test]
    fn a_physical_function_tells_all_about_itself() {
        let found = facts(&SysfsTree::new(ONE_VF), "eth0");
        let expected = SysfsFacts {
            pci: Some(PciFacts {
                address: "0000:3b:00.0".parse().unwrap(),
                root: "pci0000:3a".to_owned(),
                vendor: Some("8086".to_owned()),
                device: Some("1592".to_owned()),
            }),
            is_virtual: false,
            numa_node: Some(1),
            local_cpus: Some("16-31,48-63".parse().unwrap()),
            driver: Some("ice".to_owned()),
            speed_mbps: Some(100_000),
            sriov: Some(Sriov { total_vfs: 64, num_vfs: 1 }),
            physical_function: None,
            rdma_device: None,
            rdma_nodes: Vec::new(),
            port: None,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_virtual_function_names_its_physical_function() {
        let found = facts(&SysfsTree::new(ONE_VF), "eth1");
        assert_eq!(found.pci.unwrap().address.to_string(), "0000:3b:01.0");
        assert_eq!(found.physical_function, Some("0000:3b:00.0".parse().unwrap()));
        assert_eq!((found.sriov, found.speed_mbps), (None, None));
    }

    #[test]
    fn a_virtio_interface_is_on_the_pci_function_one_level_further_up() {
        let tree = SysfsTree::new(
            "
            class/net/eth0 -> ../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0
            devices/pci0000:00/0000:00:03.0/numa_node = -1
            devices/pci0000:00/0000:00:03.0/virtio2/driver -> ../../../../bus/virtio/drivers/virtio_net
            devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/device -> ../../../virtio2
            bus/virtio/drivers/virtio_net/
            ",
        );
        let found = facts(&tree, "eth0");
        assert_eq!(found.pci.unwrap().address.to_string(), "0000:00:03.0");
        assert_eq!(found.driver.as_deref(), Some("virtio_net"));
        assert_eq!(found.numa_node, None, "-1 means that nobody knows");
        assert!(!found.is_virtual);
    }

    #[test]
    fn a_veth_is_virtual_and_has_a_speed_all_the_same() {
        let tree = SysfsTree::new(
            "
            class/net/veth0 -> ../../devices/virtual/net/veth0
            devices/virtual/net/veth0/speed = 10000
            devices/virtual/net/veth0/dev_port = 0
            ",
        );
        let found = facts(&tree, "veth0");
        assert!(found.is_virtual);
        assert_eq!((found.pci, found.driver, found.port), (None, None, None));
        assert_eq!(found.speed_mbps, Some(10_000));
    }

    #[test]
    fn rdma_devices_and_ports_are_found_below_the_device() {
        let tree = SysfsTree::new(
            "
            class/net/ens1 -> ../../devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0/net/ens1
            class/net/rep0 -> ../../devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0/net/rep0
            devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0/infiniband/mlx5_bond_0/
            devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0/infiniband_mad/issm0/
            devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0/infiniband_mad/umad0/
            devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0/infiniband_verbs/uverbs0/
            devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0/net/ens1/device -> ../../../10000:00:02.0
            devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0/net/ens1/dev_port = 1
            devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0/net/rep0/phys_port_name = pf0vf1
            ",
        );
        let found = facts(&tree, "ens1");
        assert_eq!(found.rdma_device.as_deref(), Some("mlx5_bond_0"));
        let nodes = ["issm0", "rdma_cm", "umad0", "uverbs0"];
        assert_eq!(found.rdma_nodes, nodes.map(|name| Path::new("/dev/infiniband").join(name)));
        assert_eq!(found.port.as_deref(), Some("1"));
        assert_eq!(found.pci.unwrap().root, "pci0000:d7", "not the domain behind the bridge");
        assert_eq!(facts(&tree, "rep0").port.as_deref(), Some("pf0vf1"));
    }

    #[test]
    fn an_interface_that_vanishes_while_we_look_is_not_an_error() {
        let eth1 = "devices/pci0000:3a/0000:3a:02.0/0000:3b:01.0/net/eth1";
        let tree = SysfsTree::new(ONE_VF).without(eth1);
        assert_eq!(tree.sysfs().interface(&"eth1".parse().unwrap()).unwrap(), None);
        assert_eq!(tree.sysfs().interface(&"eth9".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn nothing_outside_the_root_is_believed() {
        let tree = SysfsTree::new("class/net/eth0 -> /proc");
        let error = tree.sysfs().interface(&"eth0".parse().unwrap()).unwrap_err();
        assert!(matches!(error, SysfsError::Outside { .. }), "{error}");
    }

    #[test]
    fn nonsense_is_an_error_that_shows_it() {
        let tree = SysfsTree::new(
            "
            class/net/veth0 -> ../../devices/virtual/net/veth0
            devices/virtual/net/veth0/speed = fast
            ",
        );
        let error = tree.sysfs().interface(&"veth0".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("holds \"fast\""), "{error}");
    }

    /// A tree cannot show an errno.
    #[test]
    fn some_errors_only_mean_that_there_is_no_such_attribute() {
        for errno in [libc::ENOENT, libc::EINVAL, libc::EOPNOTSUPP, libc::ENODEV] {
            assert!(is_absence(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::EACCES, libc::EIO, libc::ELOOP] {
            assert!(!is_absence(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
    }
}
