//! Asks sysfs for RDMA devices: for all of them, or again for those that a change may be about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::super::scan::told;
use super::function_of_alone;
use crate::sys::netlink::LinkFacts;
use crate::sys::sysfs::{Look, RdmaDevice, RdmaHome};

/// What of the interfaces that have changed an RDMA device knows.
#[derive(Debug, Default)]
pub(in crate::inventory) struct Changed {
    /// What they were called, and are.
    pub(in crate::inventory) names: BTreeSet<String>,
    /// Bus devices that they are on.
    pub(in crate::inventory) bus_devices: BTreeSet<PathBuf>,
}

/// How many devices of software are asked for again, of those whose interface is not here: it may have
/// come back under another name. What is beyond is seen by the next look at everything.
const STRAYS: usize = 4;

/// All of them.
pub(in crate::inventory) fn all(look: &mut Look<'_>) -> Vec<RdmaDevice> {
    let names = told("list RDMA devices", look.rdma_names()).unwrap_or_default();
    names.iter().filter_map(|name| one(look, name)).collect()
}

/// Brings `known` up to date with those that came or went, and with those of changed interfaces. The
/// kernel tells of a device that comes or goes, but not that its interface has another name or address:
/// that is how a device of software is known to be over it.
pub(in crate::inventory) fn again(
    look: &mut Look<'_>,
    known: &mut Vec<RdmaDevice>,
    links: &[LinkFacts],
    changed: &Changed,
) {
    let Some(names) = told("list RDMA devices", look.rdma_names()) else { return };
    let here: BTreeSet<_> = links.iter().map(|link| link.name.as_str()).collect();
    let mut strays = 0;
    let mut is_concerned = |device: &RdmaDevice| match (&device.home, &device.interface) {
        (RdmaHome::Bus { path, .. }, _) => changed.bus_devices.contains(path),
        (RdmaHome::Virtual, Some(interface)) if changed.names.contains(interface) => true,
        (RdmaHome::Virtual, Some(interface)) if here.contains(interface.as_str()) => false,
        (RdmaHome::Virtual, _) => {
            strays += 1;
            strays <= STRAYS
        }
    };
    let before = std::mem::take(known).into_iter();
    let mut before: BTreeMap<_, _> = before.map(|device| (device.name.clone(), device)).collect();
    for name in names {
        match before.remove(&name) {
            Some(device) if !is_concerned(&device) => known.push(device),
            _ => known.extend(one(look, &name)),
        }
    }
}

/// How its port is doing is asked only where no interface tells.
fn one(look: &mut Look<'_>, name: &str) -> Option<RdmaDevice> {
    let mut device = told("tell what an RDMA device is", look.rdma_device(name)).flatten()?;
    if function_of_alone(&device).is_some() {
        told("tell how a port is doing", look.ask_first_port(&mut device));
    }
    Some(device)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::model::IfIndex;
    use crate::sys::asked;
    use crate::sys::sysfs::tree::SysfsTree;

    /// One device of software over an interface of that name, and some of hardware.
    fn machine(parent: &str, gid: &str, hardware: u32) -> SysfsTree {
        let mut text = format!(
            "
            devices/virtual/infiniband/rxe0:
              node_type = 1: CA
              node_guid = 0200:00ff:fe00:0002
              parent = {parent}
              ports/1/link_layer = Ethernet
              ports/1/gids/0 = {gid}
            "
        );
        for nth in 0..hardware {
            let place = format!("devices/pci0000:3a/0000:3a:02.0/0000:3b:00.{nth}");
            let _ = write!(
                text,
                "
            {place}:
              class = 0x020000
              infiniband/mlx5_{nth}/node_type = 1: CA
              infiniband/mlx5_{nth}/ports/1/link_layer = Ethernet
              infiniband/mlx5_{nth}/ports/1/gid_attrs/ndevs/0 = {parent}
            "
            );
        }
        SysfsTree::machine(&text)
    }

    fn link(name: &str) -> LinkFacts {
        LinkFacts::named(IfIndex(2), name.parse().unwrap())
    }

    fn looked(tree: &SysfsTree) -> Vec<RdmaDevice> {
        let sysfs = tree.sysfs();
        all(&mut sysfs.look())
    }

    /// What is known after a change of interfaces, and how much was read for it.
    fn after(
        now: &SysfsTree,
        mut known: Vec<RdmaDevice>,
        links: &[LinkFacts],
        changed: &Changed,
    ) -> (Vec<RdmaDevice>, u64) {
        let sysfs = now.sysfs();
        let before = asked::read();
        again(&mut sysfs.look(), &mut known, links, changed);
        (known, asked::read() - before)
    }

    fn changed(names: &[&str]) -> Changed {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Changed { names, ..Changed::default() }
    }

    #[test]
    fn a_device_of_software_is_asked_for_again_with_its_interface() {
        let before = looked(&machine("eth1", "fe80::2", 0));
        let renamed = machine("nic9", "fe80::2", 0);
        let (now, _) =
            after(&renamed, before.clone(), &[link("nic9")], &changed(&["eth1", "nic9"]));
        assert_eq!(now[0].interface.as_deref(), Some("nic9"));
        let addressed = machine("eth1", "fe80::7", 0);
        let (now, _) = after(&addressed, before.clone(), &[link("eth1")], &changed(&["eth1"]));
        assert_eq!(now[0].first_gid.as_deref(), Some("fe80::7"));
        let (now, read) = after(&addressed, before.clone(), &[link("eth1")], &changed(&["eth2"]));
        assert_eq!((&now, read), (&before, 1), "another interface is none of its business");
    }

    #[test]
    fn a_device_of_software_whose_interface_came_back_under_another_name_is_found() {
        let away = looked(&machine("eth0", "fe80::2", 0));
        let (now, _) = after(&machine("nic9", "fe80::2", 0), away, &[], &changed(&["nic9"]));
        assert_eq!(now[0].interface.as_deref(), Some("nic9"));
    }

    #[test]
    fn what_came_or_went_is_seen_and_what_stayed_is_not_read_again() {
        let before = looked(&machine("eth1", "fe80::2", 3));
        assert_eq!(before.len(), 4);
        let (links, nothing) = ([link("eth1")], changed(&[]));
        let (now, read) = after(&machine("eth1", "fe80::2", 4), before.clone(), &links, &nothing);
        assert_eq!(now.len(), 5);
        assert!(read <= 24, "{read} reads for one device");
        let (now, read) = after(&machine("eth1", "fe80::2", 1), before.clone(), &links, &nothing);
        assert_eq!((now.len(), read), (2, 1));

        let RdmaHome::Bus { path, .. } = &before[1].home else { panic!() };
        let of_one = path.file_name().unwrap().to_owned();
        let other = machine("nic9", "fe80::2", 3);
        let sysfs = other.sysfs();
        let place = looked(&other).into_iter().find_map(|device| match device.home {
            RdmaHome::Bus { path, .. } => (path.file_name() == Some(&of_one)).then_some(path),
            RdmaHome::Virtual => None,
        });
        let mut known = looked(&machine("eth1", "fe80::2", 3));
        for device in &mut known {
            // The trees are in different places.
            if let RdmaHome::Bus { path, .. } = &mut device.home
                && path.file_name() == Some(&of_one)
            {
                path.clone_from(place.as_ref().unwrap());
            }
        }
        let bus_devices = place.into_iter().collect();
        let changed = Changed { bus_devices, ..Changed::default() };
        again(&mut sysfs.look(), &mut known, &links, &changed);
        let interfaces: Vec<_> = known.iter().filter_map(|it| it.interface.as_deref()).collect();
        assert_eq!(interfaces, ["eth1", "nic9", "eth1", "eth1"]);
    }
}
