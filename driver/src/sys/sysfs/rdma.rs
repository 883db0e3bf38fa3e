//! RDMA devices.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::function::{function_above, pci_address};
use super::{FunctionFacts, Look, Sysfs, SysfsError, entries, is_there, some_text, text};
use crate::model::{PciAddress, RdmaFacts, RdmaLinkLayer};

/// What sysfs tells of an RDMA device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RdmaDevice {
    /// Such as `mlx5_0`.
    pub name: String,
    pub home: RdmaHome,
    pub facts: RdmaFacts,
    /// Whether any of its ports is on Ethernet.
    pub has_ethernet: bool,
    /// The interface of its first port, as the kernel calls it there. That may be a name in another
    /// namespace: `print_ndev()` in `drivers/infiniband/core/sysfs.c` (Linux 6.12) asks for none.
    pub interface: Option<String>,
    /// The first GID of its first port, such as `fe80:0000:0000:0000:0200:00ff:fe00:0002`.
    pub first_gid: Option<String>,
    /// Whether there is a place for interfaces of its bus device, which there is as long as it has
    /// one, in whichever namespace: an interface of another one is not shown in it, but the directory
    /// stays (`get_device_parent()` and `cleanup_glue_dir()` in `drivers/base/core.c`, Linux 6.12).
    pub has_interface: bool,
    /// `state` of its first port is `ACTIVE`. Not known before [`Look::ask_first_port`].
    pub is_active: bool,
    /// `rate` of its first port, in megabits per second (10^6 bit/s). Not known before
    /// [`Look::ask_first_port`].
    pub speed_mbps: Option<u32>,
    /// The directory of its first port.
    pub(super) first_port: PathBuf,
    /// Its character devices below `/dev/infiniband`, and the one by which connections are made, which
    /// all share, if there is one; sorted.
    pub nodes: Vec<PathBuf>,
}

/// What an RDMA device sits on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RdmaHome {
    /// A bus device, by its path, and the PCI function that it is or is below.
    Bus { path: PathBuf, function: Option<Arc<FunctionFacts>> },
    /// Software, such as `rdma_rxe`: an interface, which [`RdmaDevice::interface`] names.
    Virtual,
}

/// The directories of a bus device in which its character devices are. Nodes have the names of these
/// class devices (`ib_uverbs_add_one()` in `drivers/infiniband/core/uverbs_main.c` and
/// `ib_umad_init_port()` in `user_mad.c`, Linux 6.12; `ib_ucm_add_one()` in `ucm.c` before 5.10).
const NODE_CLASSES: [&str; 3] = ["infiniband_verbs", "infiniband_mad", "infiniband_cm"];

/// Below the root.
const CLASS: &str = "class/infiniband";

pub(super) fn rdma_names(look: &Look<'_>) -> Result<Vec<String>, SysfsError> {
    entries(&look.sysfs.root.join(CLASS))
}

pub(super) fn rdma_device(
    look: &mut Look<'_>,
    name: &str,
) -> Result<Option<RdmaDevice>, SysfsError> {
    match look.sysfs.target(&look.sysfs.root.join(CLASS).join(name))? {
        Some(path) => device_at(look, &path, name.to_owned()),
        None => Ok(None),
    }
}

fn device_at(
    look: &mut Look<'_>,
    path: &Path,
    name: String,
) -> Result<Option<RdmaDevice>, SysfsError> {
    let Some(node_type) = text(&path.join("node_type"))? else {
        // It is gone.
        return Ok(None);
    };
    // `4: RNIC`
    let node_type = node_type.split_once(": ").map_or(node_type.as_str(), |(_, name)| name);
    let below = path.ancestors().nth(2).unwrap_or(path);
    let home = if below == look.sysfs.root.join("devices/virtual") {
        RdmaHome::Virtual
    } else {
        RdmaHome::Bus { path: below.to_owned(), function: look.function_above(below)? }
    };
    let ports = path.join("ports");
    let mut numbers: Vec<u32> = entries(&ports)?.iter().filter_map(|n| n.parse().ok()).collect();
    numbers.sort_unstable();
    let first = ports.join(numbers.first().unwrap_or(&1).to_string());
    // Without it nobody knows yet what this is: a device is there with its own attributes first, gets its
    // ports then, and is announced at last (`ib_register_device()` in
    // `drivers/infiniband/core/device.c`, Linux 6.12).
    let Some(layer) = text(&first.join("link_layer"))? else { return Ok(None) };
    let mut has_ethernet = layer == ETHERNET;
    for number in numbers.iter().skip(1) {
        // Whoever has one for each representor has all of them on Ethernet, so this ends soon.
        if has_ethernet {
            break;
        }
        let layer = text(&ports.join(number.to_string()).join("link_layer"))?;
        has_ethernet = layer.as_deref() == Some(ETHERNET);
    }
    let parent = match home {
        // Of those in the kernel, rxe has this attribute (`parent_show()` in
        // `drivers/infiniband/sw/rxe/rxe_verbs.c`, Linux 6.12).
        RdmaHome::Virtual => some_text(&path.join("parent"))?,
        RdmaHome::Bus { .. } => None,
    };
    let interface = match parent {
        Some(parent) => Some(parent),
        None => some_text(&first.join("gid_attrs/ndevs/0"))?,
    };
    let has_interface = match home {
        RdmaHome::Virtual => interface.is_some(),
        RdmaHome::Bus { .. } => is_there(&below.join("net")),
    };
    Ok(Some(RdmaDevice {
        facts: RdmaFacts {
            link_layer: link_layer(&layer, node_type),
            node_type: node_type.to_owned(),
            node_guid: some_text(&path.join("node_guid"))?,
        },
        has_ethernet,
        interface,
        // Only what is of software has to be found by it.
        first_gid: match home {
            RdmaHome::Virtual => some_text(&first.join("gids/0"))?,
            RdmaHome::Bus { .. } => None,
        },
        has_interface,
        is_active: false,
        speed_mbps: None,
        nodes: nodes(below, &name, &home, look.has_connection_manager())?,
        first_port: first,
        name,
        home,
    }))
}

/// See [`Look::ask_first_port`].
pub(super) fn ask_first_port(device: &mut RdmaDevice) -> Result<(), SysfsError> {
    let state = text(&device.first_port.join("state"))?;
    device.is_active = state.is_some_and(|state| state.ends_with(": ACTIVE"));
    device.speed_mbps = text(&device.first_port.join("rate"))?.as_deref().and_then(rate);
    Ok(())
}

const ETHERNET: &str = "Ethernet";

/// What `link_layer_show()` writes, which is `Unknown` where the driver says "unspecified", as EFA's
/// does; and what runs over Ethernet depends on the node (`rdma_node_get_transport()` in
/// `drivers/infiniband/core/verbs.c`, Linux 6.12).
fn link_layer(text: &str, node_type: &str) -> RdmaLinkLayer {
    match text {
        // Whatever the port says, as EFA's older drivers say Ethernet.
        _ if node_type == "unspecified" => RdmaLinkLayer::Unspecified,
        "InfiniBand" => RdmaLinkLayer::InfiniBand,
        ETHERNET if node_type == "RNIC" => RdmaLinkLayer::IWarp,
        ETHERNET => RdmaLinkLayer::RoCE,
        _ => RdmaLinkLayer::Unspecified,
    }
}

/// The speed in `100 Gb/sec (4X EDR)` or `2.5 Gb/sec (1X SDR)`.
fn rate(text: &str) -> Option<u32> {
    let (gigabits, _) = text.split_once(" Gb/sec")?;
    let (whole, half) = gigabits.split_once('.').unwrap_or((gigabits, "0"));
    let halves = if half == "5" { 500 } else { 0 };
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(halves).filter(|mbps| *mbps > 0)
}

fn nodes(
    below: &Path,
    device: &str,
    home: &RdmaHome,
    has_cm: bool,
) -> Result<Vec<PathBuf>, SysfsError> {
    let is_shared = *home == RdmaHome::Virtual || entries(&below.join("infiniband"))?.len() > 1;
    let mut names = Vec::new();
    for class in NODE_CLASSES {
        let class = below.join(class);
        for name in entries(&class)? {
            // Each says whose it is; where there is one RDMA device, nothing has to be asked.
            let is_ours = !is_shared
                || text(&class.join(&name).join("ibdev"))?.is_some_and(|owner| owner == device);
            names.extend(is_ours.then_some(name));
        }
    }
    Ok(in_dev(names, has_cm))
}

/// With the one by which connections are made, which all share, if there is one.
fn in_dev(mut names: Vec<String>, has_cm: bool) -> Vec<PathBuf> {
    if has_cm && !names.is_empty() {
        names.push("rdma_cm".to_owned());
    }
    names.sort();
    names.into_iter().map(|name| Path::new("/dev/infiniband").join(name)).collect()
}

impl Sysfs {
    /// The character devices of an RDMA device as they are called now, also where it is in another
    /// namespace: its own directory is not shown then, but its class devices are, which belong to no
    /// namespace (`uverbs_class` in `drivers/infiniband/core/uverbs_main.c` and `umad_class` in
    /// `user_mad.c`, Linux 6.12).
    ///
    /// Where the device is known to be on `function`, it is those there, else those of software, which
    /// are on none: after its driver was loaded anew, the name may be that of another function's.
    ///
    /// # Errors
    ///
    /// [`SysfsError`] where something of them is there and cannot be read.
    pub fn rdma_nodes(
        &self,
        device: &str,
        function: Option<PciAddress>,
    ) -> Result<Vec<PathBuf>, SysfsError> {
        let (mut near, mut of_software, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for class in NODE_CLASSES {
            let class = self.root.join("class").join(class);
            for name in entries(&class)? {
                let Some(path) = self.target(&class.join(&name))? else { continue };
                if text(&path.join("ibdev"))?.is_some_and(|owner| owner == device) {
                    match function_above(&path).and_then(pci_address) {
                        None => of_software.push(name.clone()),
                        at if at == function => near.push(name.clone()),
                        Some(_) => {}
                    }
                    all.push(name);
                }
            }
        }
        let names = match function {
            None => all,
            Some(_) if near.is_empty() => of_software,
            Some(_) => near,
        };
        Ok(in_dev(names, has_cm(self)))
    }
}

/// The misc device is called so (`ucma_misc` in `drivers/infiniband/core/ucma.c`, Linux 6.12), and is
/// there once its module is loaded.
pub(super) fn has_cm(sysfs: &Sysfs) -> bool {
    is_there(&sysfs.root.join("class/misc/rdma_cm"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sysfs::tree::SysfsTree;

    fn devices(tree: &SysfsTree) -> Vec<RdmaDevice> {
        let sysfs = tree.sysfs();
        let mut look = sysfs.look();
        let names = look.rdma_names().unwrap().into_iter();
        let mut found: Vec<_> = names.filter_map(|name| look.rdma_device(&name).unwrap()).collect();
        for device in &mut found {
            look.ask_first_port(device).unwrap();
        }
        found
    }

    fn nodes(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(|name| Path::new("/dev/infiniband").join(name)).collect()
    }

    #[test]
    fn the_software_device_names_its_interface_and_has_its_own_nodes_only() {
        let tree = SysfsTree::machine(
            "
            devices/virtual:
              infiniband/rxe0/node_type = 1: CA
              infiniband/rxe0/node_guid = 0200:00ff:fe00:0002
              infiniband/rxe0/parent = eth1
              infiniband/rxe0/ports/1/link_layer = Ethernet
              infiniband/rxe0/ports/1/state = 4: ACTIVE
              infiniband/rxe0/ports/1/rate = 2.5 Gb/sec (1X SDR)
              infiniband/rxe1/node_type = 1: CA
              infiniband/rxe1/ports/1/link_layer = Ethernet
              infiniband/rxe1/ports/1/gid_attrs/ndevs/0 = eth2
              infiniband_verbs/uverbs0/ibdev = rxe0
              infiniband_verbs/uverbs1/ibdev = rxe1
              infiniband_mad/umad1/ibdev = rxe1
              misc/rdma_cm/dev = 10:121
            ",
        );
        let [first, second] = &devices(&tree)[..] else { panic!() };
        assert_eq!((first.name.as_str(), &first.home), ("rxe0", &RdmaHome::Virtual));
        assert_eq!(first.facts.link_layer, RdmaLinkLayer::RoCE);
        assert_eq!(first.facts.node_guid.as_deref(), Some("0200:00ff:fe00:0002"));
        assert_eq!((first.is_active, first.speed_mbps), (true, Some(2500)));
        assert_eq!(first.interface.as_deref(), Some("eth1"));
        assert_eq!(first.nodes, nodes(&["rdma_cm", "uverbs0"]));
        assert_eq!(second.interface.as_deref(), Some("eth2"));
        assert_eq!(second.nodes, nodes(&["rdma_cm", "umad1", "uverbs1"]));
        for device in [first, second] {
            assert_eq!(tree.sysfs().rdma_nodes(&device.name, None).unwrap(), device.nodes);
        }
    }

    /// A RoCE device that has no port yet would look like one that is not on Ethernet.
    #[test]
    fn a_device_whose_ports_are_not_there_yet_is_not_known() {
        for ports in ["", "infiniband/mlx5_0/ports/1/state = 4: ACTIVE"] {
            let function = "devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0";
            let device = "infiniband/mlx5_0/node_type = 1: CA";
            let tree = SysfsTree::machine(&format!("{function}:\n  {device}\n  {ports}\n"));
            assert_eq!(devices(&tree), [], "{ports}");
        }
    }

    #[test]
    fn all_nodes_of_a_bus_device_are_its_rdma_devices() {
        let tree = SysfsTree::machine(
            "
            devices/pci0000:d7/0000:d7:05.5/pci10000:00/10000:00:02.0:
              infiniband/mlx5_bond_0/node_type = 1: CA
              infiniband/mlx5_bond_0/ports/1/link_layer = Ethernet
              infiniband_mad/issm0/ibdev = mlx5_bond_0
              infiniband_mad/umad0/ibdev = mlx5_bond_0
              infiniband_verbs/uverbs0/ibdev = mlx5_bond_0
              infiniband_cm/ucm0/ibdev = mlx5_bond_0
            ",
        );
        let [found] = &devices(&tree)[..] else { panic!() };
        assert_eq!(found.nodes, nodes(&["issm0", "ucm0", "umad0", "uverbs0"]), "without rdma_ucm");
        let RdmaHome::Bus { function: Some(function), .. } = &found.home else { panic!() };
        assert_eq!(function.pci.root, "pci0000:d7", "not the domain behind the bridge");
    }

    /// Drivers that were loaded in another order have given the names to each other's devices.
    #[test]
    fn nodes_of_another_function_are_never_those_of_the_name() {
        let tree = SysfsTree::machine(
            "
            devices/pci0000:3a/0000:3b:00.0/infiniband_verbs/uverbs0/ibdev = mlx5_0
            devices/pci0000:3a/0000:3b:00.1:
              infiniband_verbs/uverbs3/ibdev = mlx5_1
              infiniband_mad/umad2/ibdev = mlx5_1
            devices/virtual/infiniband_verbs/uverbs5/ibdev = rxe0
            ",
        );
        let found = |name, function: Option<&str>| {
            let function = function.map(|address| address.parse().unwrap());
            tree.sysfs().rdma_nodes(name, function).unwrap()
        };
        assert_eq!(found("mlx5_1", Some("0000:3b:00.1")), nodes(&["umad2", "uverbs3"]));
        assert_eq!(found("mlx5_0", Some("0000:3b:00.1")), nodes(&[]));
        assert_eq!(found("mlx5_1", Some("0000:3b:00.0")), nodes(&[]));
        assert_eq!(found("rxe0", Some("0000:3b:00.0")), nodes(&["uverbs5"]), "of software");
        assert_eq!(found("mlx5_1", None), nodes(&["umad2", "uverbs3"]), "a bond is on none");
        assert_eq!(found("mlx5_7", None), nodes(&[]));
    }

    #[test]
    fn a_port_of_either_layer_is_told() {
        for (layer, node, found) in [
            ("InfiniBand", "CA", RdmaLinkLayer::InfiniBand),
            ("Ethernet", "CA", RdmaLinkLayer::RoCE),
            ("Ethernet", "RNIC", RdmaLinkLayer::IWarp),
            ("Unknown", "unspecified", RdmaLinkLayer::Unspecified),
            ("Ethernet", "unspecified", RdmaLinkLayer::Unspecified),
        ] {
            assert_eq!(link_layer(layer, node), found);
        }
    }

    #[test]
    fn rates_are_read_in_megabits() {
        assert_eq!(rate("100 Gb/sec (4X EDR)"), Some(100_000));
        assert_eq!(rate("2.5 Gb/sec (1X SDR)"), Some(2500));
        assert_eq!(rate("0 Gb/sec (1X SDR)"), None);
        assert_eq!(rate("fast"), None);
    }
}
