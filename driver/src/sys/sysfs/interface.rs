//! Interfaces.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::function::pci_address;
use super::{FunctionFacts, Look, Sysfs, SysfsError, is_there, nearness, number};
use crate::model::{Cpus, IfName, PortFacts};

/// What sysfs tells of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SysfsFacts {
    /// The nearest PCI function above the interface. A virtio interface is on a function too,
    /// though its `device` is none.
    pub function: Option<Arc<FunctionFacts>>,
    /// The bus device that the interface belongs to, as a path: a PCI function, or what is below it.
    /// `None` below `devices/virtual`.
    pub bus_device: Option<PathBuf>,
    /// `numa_node` of the PCI function, else of `device`; -1 is `None`.
    pub numa_node: Option<u32>,
    /// `local_cpulist` beside it; `None` where there is no node.
    pub local_cpus: Option<Cpus>,
    /// What `device/driver` links to.
    pub driver: Option<String>,
    /// `dev_port`: which of its bus device's ports the interface is, from 0.
    pub dev_port: u32,
}

impl SysfsFacts {
    /// Below `devices/virtual`.
    pub fn is_virtual(&self) -> bool {
        self.bus_device.is_none()
    }

    /// What tells an interface of this `port` from others of its PCI function, where that is not plain: a
    /// representor's `phys_port_name` such as `pf0vf1`, the number of a sub-function, or a `dev_port`
    /// above 0.
    pub fn label(&self, port: &PortFacts) -> Option<String> {
        // An uplink is called `p0`, `p1`…; its function tells that already.
        let is_uplink = |name: &str| {
            name.strip_prefix('p').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
        };
        let name = port.name.as_ref().filter(|name| !is_uplink(name));
        // Sub-functions are auxiliary devices such as `mlx5_core.sf.4`
        // (`mlx5_sf_dev_add()` in `drivers/net/ethernet/mellanox/mlx5/core/sf/dev/dev.c`, Linux 6.12).
        let bus_device = self.bus_device.as_deref().and_then(Path::file_name);
        let sub_function = bus_device.and_then(OsStr::to_str).and_then(|it| it.split_once(".sf."));
        name.cloned()
            .or_else(|| sub_function.map(|(_, number)| format!("sf{number}")))
            .or_else(|| (self.dev_port > 0).then(|| self.dev_port.to_string()))
    }
}

/// Everything about one interface; `None` where there is none of that name, as when it vanished while
/// we looked.
pub(super) fn interface(
    look: &mut Look<'_>,
    name: &IfName,
) -> Result<Option<SysfsFacts>, SysfsError> {
    let root = &look.sysfs.root;
    let Some(path) = look.sysfs.target(&root.join("class/net").join(name.as_str()))? else {
        return Ok(None);
    };
    if !is_there(&path) {
        return Ok(None);
    }
    if path.starts_with(root.join("devices/virtual")) {
        return Ok(Some(SysfsFacts {
            function: None,
            bus_device: None,
            numa_node: None,
            local_cpus: None,
            driver: None,
            dev_port: 0,
        }));
    }
    // `…/<bus device>/net/<name>`
    let bus_device = path.ancestors().nth(2).unwrap_or(&path).to_owned();
    let function = look.function_above(&bus_device)?;
    let (numa_node, local_cpus) = match &function {
        Some(function) => (function.numa_node, function.local_cpus.clone()),
        None => nearness(&bus_device)?,
    };
    let driver = match &function {
        Some(function) if pci_address(&bus_device) == Some(function.pci.address) => {
            function.driver.clone()
        }
        _ => look.sysfs.link_name(&bus_device.join("driver"))?,
    };
    Ok(Some(SysfsFacts {
        numa_node,
        local_cpus,
        driver,
        dev_port: number(&path.join("dev_port"))?.unwrap_or(0),
        function,
        bus_device: Some(bus_device),
    }))
}

/// What the driver says of the speed; nothing while the interface is down (`speed_show()` in
/// `net/core/net-sysfs.c`, Linux 6.12). The kernel takes its lock on all interfaces for it.
pub(super) fn speed_mbps(sysfs: &Sysfs, name: &IfName) -> Result<Option<u32>, SysfsError> {
    number(&sysfs.root.join("class/net").join(name.as_str()).join("speed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PciFacts, Sriov, VirtualFunction};
    use crate::sys::sysfs::tree::SysfsTree;

    fn facts(tree: &SysfsTree, name: &str) -> SysfsFacts {
        tree.sysfs().look().interface(&name.parse().unwrap()).unwrap().unwrap()
    }

    /// A physical function and two of its virtual functions, as an ice driver shows them.
    const TWO_VFS: &str = "
        devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0:
          vendor = 0x8086
          device = 0x1592
          class = 0x020000
          numa_node = 1
          local_cpulist = 8-15,24-31
          iommu_group => kernel/iommu_groups/42
          sriov_totalvfs = 64
          sriov_numvfs = 2
          driver => bus/pci/drivers/ice
          virtfn0 -> ../0000:3b:01.0
          virtfn10 -> ../0000:3b:02.2
          net/eth0/speed = 100000
          net/eth0/phys_port_name = p0
          net/rep0/phys_port_name = pf0vf0
        devices/pci0000:3a/0000:3a:02.0/0000:3b:01.0:
          numa_node = 1
          physfn -> ../0000:3b:00.0
          net/eth1/speed = -1
        devices/pci0000:3a/0000:3a:02.0/0000:3b:02.2:
          physfn -> ../0000:3b:00.0
          net/eth2/dev_port = 0
    ";

    #[test]
    fn a_physical_function_tells_all_about_itself() {
        let found = facts(&SysfsTree::machine(TWO_VFS), "eth0");
        let function = FunctionFacts {
            pci: PciFacts {
                address: "0000:3b:00.0".parse().unwrap(),
                root: "pci0000:3a".to_owned(),
                vendor: Some("8086".to_owned()),
                device: Some("1592".to_owned()),
                subsystem: None,
            },
            class: 0x02_0000,
            driver: Some("ice".to_owned()),
            numa_node: Some(1),
            local_cpus: Some("8-15,24-31".parse().unwrap()),
            iommu_group: Some(42),
            held_up_by: Vec::new(),
            sriov: Some(Sriov { total_vfs: 64, num_vfs: 2 }),
            vf: None,
        };
        assert_eq!(found.function.as_deref(), Some(&function));
        assert_eq!((found.is_virtual(), found.numa_node), (false, Some(1)));
        assert_eq!(found.driver.as_deref(), Some("ice"));
        let uplink = PortFacts { name: Some("p0".to_owned()), ..PortFacts::default() };
        assert_eq!(found.label(&uplink), None);
    }

    #[test]
    fn a_virtual_function_names_its_physical_one_and_its_number() {
        let tree = SysfsTree::machine(TWO_VFS);
        for (name, address, index) in [("eth1", "0000:3b:01.0", 0), ("eth2", "0000:3b:02.2", 10)] {
            let function = facts(&tree, name).function.unwrap();
            assert_eq!(function.pci.address.to_string(), address);
            let vf = VirtualFunction {
                pf: "0000:3b:00.0".parse().unwrap(),
                pf_interface: Some("eth0".parse().unwrap()),
                index,
            };
            assert_eq!((&function.vf, &function.sriov), (&Some(vf), &None));
        }
    }

    #[test]
    fn a_virtio_interface_is_on_the_pci_function_one_level_further_up() {
        let tree = SysfsTree::machine(
            "
            devices/pci0000:00/0000:00:03.0/numa_node = -1
            devices/pci0000:00/0000:00:03.0/local_cpulist = 0-7
            devices/pci0000:00/0000:00:03.0/virtio2/driver => bus/virtio/drivers/virtio_net
            devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/dev_port = 0
            ",
        );
        let found = facts(&tree, "eth0");
        assert_eq!(found.driver.as_deref(), Some("virtio_net"));
        assert_eq!(found.numa_node, None, "-1 means that nobody knows");
        assert_eq!(found.local_cpus, None, "all of them, then");
        assert!(!found.is_virtual());
        assert_eq!(found.function.unwrap().pci.address.to_string(), "0000:00:03.0");
    }

    #[test]
    fn a_veth_is_virtual_and_has_a_speed_all_the_same() {
        let tree = SysfsTree::machine("devices/virtual/net/veth0/speed = 10000");
        let found = facts(&tree, "veth0");
        assert!(found.is_virtual());
        assert_eq!((&found.function, &found.driver), (&None, &None));
        assert_eq!(found.label(&PortFacts::default()), None);
        let speed = |name: &str| tree.sysfs().look().speed_mbps(&name.parse().unwrap()).unwrap();
        assert_eq!((speed("veth0"), speed("veth1")), (Some(10_000), None));
    }

    #[test]
    fn interfaces_of_one_function_have_labels() {
        let tree = SysfsTree::machine(
            "
            devices/pci0000:d7/0000:d8:00.0:
              net/ens1/dev_port = 0
              net/ens1d1/dev_port = 1
              net/rep0/dev_port = 0
              mlx5_core.sf.4/net/ens1s88/dev_port = 0
            ",
        );
        let port = |port: &str| PortFacts { name: Some(port.to_owned()), ..PortFacts::default() };
        let label = |name: &str| facts(&tree, name).label(&PortFacts::default());
        assert_eq!(label("ens1"), None);
        assert_eq!(label("ens1d1").as_deref(), Some("1"));
        let rep0 = facts(&tree, "rep0").label(&port("pf0vf1"));
        assert_eq!(rep0.as_deref(), Some("pf0vf1"));
        assert_eq!(label("ens1s88").as_deref(), Some("sf4"));
    }

    #[test]
    fn an_interface_that_vanishes_while_we_look_is_not_an_error() {
        let eth1 = "devices/pci0000:3a/0000:3a:02.0/0000:3b:01.0/net/eth1";
        let tree = SysfsTree::machine(TWO_VFS).without(eth1);
        let sysfs = tree.sysfs();
        assert_eq!(sysfs.look().interface(&"eth1".parse().unwrap()).unwrap(), None);
        assert_eq!(sysfs.look().interface(&"eth9".parse().unwrap()).unwrap(), None);
    }
}
