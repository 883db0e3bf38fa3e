//! Which interface an RDMA device belongs to, and which devices have none. Pure.

pub(super) mod look;

use std::collections::BTreeMap;
use std::ffi::OsStr;

use crate::model::{IfIndex, MacAddr};
use crate::sys::netlink::LinkFacts;
use crate::sys::sysfs::{FunctionFacts, RdmaDevice, RdmaHome, SysfsFacts};

type Places = BTreeMap<IfIndex, Result<SysfsFacts, &'static str>>;

/// Drivers of functions that never have an interface of their own, whatever they say of their ports:
/// AWS's EFA, which in versions outside the kernel says Ethernet, and Alibaba's eRDMA, which runs over
/// the interface of another function (`drivers/infiniband/hw/erdma/erdma_main.c`, Linux 6.12).
const NEVER_AN_INTERFACE: [&str; 2] = ["efa", "erdma"];

/// The RDMA device of each interface that has one.
///
/// A device of several ports goes with its first port's interface: whoever has its character device can
/// use all of them, and two pods should not meet there.
pub(super) fn owners<'a>(
    devices: &'a [RdmaDevice],
    links: &[LinkFacts],
    places: &Places,
) -> BTreeMap<IfIndex, &'a RdmaDevice> {
    let mut owners = BTreeMap::new();
    if devices.is_empty() {
        return owners;
    }
    let first_ports = first_ports(links, places);
    for device in devices {
        // Of several over one interface the first is taken, as `rdma link add` allows them.
        if let Some(index) = owner(device, links, &first_ports) {
            owners.entry(index).or_insert(device);
        }
    }
    owners
}

/// By the path of its bus device, which interfaces its first port has.
type FirstPorts<'a> = BTreeMap<&'a OsStr, Vec<&'a LinkFacts>>;

fn first_ports<'a>(links: &'a [LinkFacts], places: &'a Places) -> FirstPorts<'a> {
    let mut first_ports = FirstPorts::new();
    for link in links {
        let place = places.get(&link.index).and_then(|place| place.as_ref().ok());
        let is_first = |place: &&SysfsFacts| {
            place.dev_port == 0 && !link.port.is_representor() && link.parent.is_none()
        };
        if let Some(path) = place.filter(is_first).and_then(|place| place.bus_device.as_ref()) {
            first_ports.entry(path.as_os_str()).or_default().push(link);
        }
    }
    first_ports
}

fn owner(
    device: &RdmaDevice,
    links: &[LinkFacts],
    first_ports: &FirstPorts<'_>,
) -> Option<IfIndex> {
    let RdmaHome::Bus { path, .. } = &device.home else {
        return links.iter().find(|link| is_over(device, link)).map(|link| link.index);
    };
    let of_first_port = first_ports.get(path.as_os_str())?;
    let named = |link: &&&LinkFacts| device.interface.as_deref() == Some(link.name.as_str());
    let link = of_first_port.iter().find(named).or(of_first_port.first())?;
    // A bond of two ports has one RDMA device, on the function of the first of them
    // (`mlx5_lag_add_devices()` in `drivers/net/ethernet/mellanox/mlx5/core/lag/lag.c`, Linux 6.12).
    let controller = link.controller.and_then(|of| links.iter().find(|it| it.index == of));
    let bond = controller.filter(|controller| controller.kind == "bond");
    let is_bonds = |bond: &&LinkFacts| {
        device.interface.as_deref() == Some(bond.name.as_str()) || device.name.contains("_bond_")
    };
    Some(bond.filter(is_bonds).map_or(link.index, |bond| bond.index))
}

/// Whether a device of software is over this interface. Its name alone tells nothing: it may be one in
/// a pod. So the address has to fit, which the GID follows, and the node's GUID is made of at first.
fn is_over(device: &RdmaDevice, link: &LinkFacts) -> bool {
    let fits = |mac: MacAddr| {
        let end = eui_64(mac);
        let is_of = |text: &Option<String>| text.as_ref().is_some_and(|text| text.ends_with(&end));
        is_of(&device.first_gid) || is_of(&device.facts.node_guid)
    };
    device.interface.as_deref() == Some(link.name.as_str()) && link.mac.is_some_and(fits)
}

/// As `addrconf_addr_eui48()` in `include/net/addrconf.h` (Linux 6.12) makes it, in four groups.
fn eui_64(MacAddr(mac): MacAddr) -> String {
    let group = |at: usize| u16::from_be_bytes([mac[at], mac[at + 1]]);
    let (first, last) = (group(0) ^ 0x0200, group(4));
    format!("{first:04x}:{:02x}ff:fe{:02x}:{last:04x}", mac[2], mac[3])
}

/// The function of an RDMA device that has no interface, neither here nor anywhere.
///
/// One that runs over Ethernet has an interface somewhere, in a pod if not here; so has one of InfiniBand
/// while there is a directory for interfaces of its bus device. Nobody has to be asked whether a claim
/// holds it.
pub(super) fn function_of_alone(device: &RdmaDevice) -> Option<&FunctionFacts> {
    let RdmaHome::Bus { function, .. } = &device.home else { return None };
    let function = function.as_deref()?;
    let driver = function.driver.as_deref();
    let never = driver.is_some_and(|driver| NEVER_AN_INTERFACE.contains(&driver));
    (!device.has_interface && (never || !device.has_ethernet)).then_some(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_the_end_of_a_gid() {
        assert_eq!(eui_64(MacAddr([2, 0, 0, 0, 0, 7])), "0000:00ff:fe00:0007");
        assert_eq!(eui_64(MacAddr([0xb8, 0x3f, 0xd2, 1, 2, 3])), "ba3f:d2ff:fe01:0203");
    }
}
