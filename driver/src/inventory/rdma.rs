//! Which interface an RDMA device belongs to, and which devices have none. Pure.

use std::collections::BTreeMap;

use crate::model::{IfIndex, MacAddr};
use crate::sys::netlink::LinkFacts;
use crate::sys::sysfs::{FunctionFacts, RdmaDevice, RdmaHome, SysfsFacts};

type Places = BTreeMap<IfIndex, Result<SysfsFacts, &'static str>>;

/// Drivers of functions that never have an interface of their own, whatever they say of their ports:
/// AWS's EFA, which in versions outside the kernel says Ethernet, and Alibaba's eRDMA, which runs over
/// the interface of another function (`drivers/infiniband/hw/erdma/erdma_main.c`, Linux 6.12).
const NEVER_AN_INTERFACE: [&str; 2] = ["efa", "erdma"];

/// The interface of each RDMA device that has one here.
///
/// A device of several ports goes with its first port's interface: whoever has its character device can
/// use all of them, and two pods should not meet there.
pub(super) fn owners(
    devices: &[RdmaDevice],
    links: &[LinkFacts],
    places: &Places,
) -> BTreeMap<IfIndex, usize> {
    let owned = devices
        .iter()
        .enumerate()
        .filter_map(|(number, device)| Some((owner(device, links, places)?, number)));
    // Of several over one interface the first is taken, as `rdma link add` allows them.
    let mut owners = BTreeMap::new();
    for (index, number) in owned {
        owners.entry(index).or_insert(number);
    }
    owners
}

fn owner(device: &RdmaDevice, links: &[LinkFacts], places: &Places) -> Option<IfIndex> {
    let RdmaHome::Bus { path, .. } = &device.home else {
        return links.iter().find(|link| is_over(device, link)).map(|link| link.index);
    };
    let of_first_port: Vec<_> = links
        .iter()
        .filter(|link| {
            let place = places.get(&link.index).and_then(|place| place.as_ref().ok());
            place.is_some_and(|place| {
                place.bus_device.as_ref() == Some(path)
                    && place.dev_port == 0
                    && !place.port.is_representor()
                    && link.parent.is_none()
            })
        })
        .collect();
    let named = |link: &&&LinkFacts| device.interface.as_deref() == Some(link.name.as_str());
    let link = of_first_port.iter().find(named).or(of_first_port.first())?;
    // A bond of two ports has one RDMA device, on the function of the first of them
    // (`mlx5_lag_add_devices()` in `drivers/net/ethernet/mellanox/mlx5/core/lag/lag.c`, Linux 6.12).
    let bond = links.iter().find(|bond| Some(bond.index) == link.controller && bond.kind == "bond");
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
/// One that runs over Ethernet has an interface somewhere, in a pod if not here; so has nobody to ask
/// whether a claim holds it.
pub(super) fn function_of_alone<'a>(
    device: &'a RdmaDevice,
    places: &Places,
) -> Option<&'a FunctionFacts> {
    let RdmaHome::Bus { path, function } = &device.home else { return None };
    let function = function.as_deref()?;
    let has_interface =
        places.values().flatten().any(|place| place.bus_device.as_ref() == Some(path));
    let driver = function.driver.as_deref();
    let never = driver.is_some_and(|driver| NEVER_AN_INTERFACE.contains(&driver));
    (!has_interface && (never || !device.has_ethernet)).then_some(function)
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
