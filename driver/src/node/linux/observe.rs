//! What is there now.

use ipnet::IpNet;

use super::places::Places;
use crate::model::{
    At, Belongings, By, Family, IfIndex, IfName, InterfaceState, NetnsRef, Place,
    SUBINTERFACE_PREFIX, SYSCTLS, SysctlName, TableId,
};
use crate::node::StepError;
use crate::plan::Stray;
use crate::sys::netlink::{LinkFacts, Made, Netlink};
use crate::sys::netns::{Netns, NetnsError};
use crate::sys::sysctl::Sysctls;

pub(super) fn interface(
    places: &mut Places,
    place: &Place,
    by: &By,
) -> Result<Option<InterfaceState>, StepError> {
    if let Place::Pod(netns) = place
        && is_gone(netns)?
    {
        // A namespace dies with its pod; then there is nothing in it, which is no error.
        return Ok(None);
    }
    let netlink = places.netlink(place)?;
    let Some(link) = netlink.link(by)? else { return Ok(None) };
    let addresses = netlink.addresses(link.index)?;
    Ok(Some(state(link, addresses)))
}

/// Whether the namespace is not at its path any more. What we keep open of it says nothing: it lives
/// on for us alone.
pub(super) fn is_gone(netns: &NetnsRef) -> Result<bool, NetnsError> {
    match Netns::open_ref(netns) {
        Ok(_) => Ok(false),
        Err(error) if error.is_gone() => Ok(true),
        Err(error) => Err(error),
    }
}

fn state(link: LinkFacts, addresses: Vec<IpNet>) -> InterfaceState {
    InterfaceState {
        name: link.name,
        index: link.index,
        mac: link.mac,
        mtu: link.mtu,
        up: link.up,
        addresses,
        controller: link.controller,
        segments: link.segments,
    }
}

/// What an interface of the host has.
pub(super) fn belongings(places: &mut Places, index: IfIndex) -> Result<Belongings, StepError> {
    let host = places.at(&Place::Host)?;
    let netlink = &host.netlink;
    let Some(link) = netlink.link(&By::Index(index))? else {
        return Err(StepError { message: format!("there is no interface {index} on the host") });
    };
    let routes = netlink.routes(index)?;
    let tables: Vec<_> =
        routes.iter().map(|route| route.table).filter(|table| *table != TableId::MAIN).collect();
    let rules = if tables.is_empty() {
        Vec::new()
    } else {
        netlink.rules()?.into_iter().filter(|rule| tables.contains(&rule.table)).collect()
    };
    let neighbors = netlink.neighbors(index)?;
    let sysctls = changed_sysctls(host.sysctls()?, &link.name)?;
    Ok(Belongings { routes, rules, neighbors, sysctls })
}

/// Settings that are not as a new interface gets them.
fn changed_sysctls(
    sysctls: &Sysctls,
    interface: &IfName,
) -> Result<Vec<(SysctlName, String)>, StepError> {
    let mut changed = Vec::new();
    for (family, name) in SYSCTLS {
        let at = |whose: &str| match family {
            Family::Ipv4 => format!("ipv4/conf/{whose}/{name}"),
            Family::Ipv6 => format!("ipv6/conf/{whose}/{name}"),
        };
        let value = match sysctls.read(&at(interface.as_str())) {
            Ok(value) => value,
            // Not in this kernel, or IPv6 is not for this interface: its MTU is too small.
            Err(error) if error.is_absent() => continue,
            Err(error) => return Err(error.into()),
        };
        if value != sysctls.read(&at("default"))? {
            changed.push((SysctlName { family, name: name.to_owned() }, value));
        }
    }
    Ok(changed)
}

/// The host's interfaces that a device may have come back as.
pub(super) fn strays(netlink: &Netlink, stray: &Stray) -> Result<Vec<InterfaceState>, StepError> {
    let mut addresses = netlink.all_addresses()?;
    let strays = pick(netlink.links()?, stray).into_iter().map(|link| {
        let addresses = addresses.remove(&link.index).unwrap_or_default();
        state(link, addresses)
    });
    Ok(strays.collect())
}

/// By the bus, and where nothing is found by it, by the link-layer address.
fn pick(links: Vec<LinkFacts>, stray: &Stray) -> Vec<LinkFacts> {
    let pci = stray.pci.map(|address| address.to_string());
    let (there, others): (Vec<_>, Vec<_>) =
        links.into_iter().partition(|link| pci.is_some() && link.bus_device == pci);
    if !there.is_empty() {
        return there;
    }
    let is_stray = |link: &LinkFacts| {
        let is_hardware = link.kind == HARDWARE && !link.is_loopback;
        is_hardware && link.mac.is_some_and(|mac| stray.macs.contains(&mac))
    };
    others.into_iter().filter(is_stray).collect()
}

/// The kind of what no software made.
const HARDWARE: &str = "device";

/// The host's interfaces that we have made upon others.
pub(super) fn subinterfaces(netlink: &Netlink) -> Result<Vec<IfName>, StepError> {
    let is_ours = |link: &LinkFacts| {
        matches!(link.made, Some(Made::Subinterface(_))) && is_name_of_ours(link.name.as_str())
    };
    Ok(netlink.links()?.into_iter().filter(is_ours).map(|link| link.name).collect())
}

fn is_name_of_ours(name: &str) -> bool {
    name.strip_prefix(SUBINTERFACE_PREFIX).is_some_and(|digits| {
        digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    })
}

/// The cookie of a pod's namespace.
pub(super) fn cookie(places: &mut Places, netns: &NetnsRef) -> Result<u64, StepError> {
    Ok(places.netlink(&Place::Pod(netns.clone()))?.namespace_cookie()?)
}

pub(super) fn on_host(interface: &IfName) -> At {
    At { place: Place::Host, interface: interface.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MacAddr;

    fn link(name: &str, kind: &str, mac: MacAddr, bus_device: Option<&str>) -> LinkFacts {
        LinkFacts {
            mac: Some(mac),
            kind: kind.to_owned(),
            bus_device: bus_device.map(str::to_owned),
            ..LinkFacts::named(IfIndex(1), name.parse().unwrap())
        }
    }

    #[test]
    fn a_stray_is_known_by_its_bus_and_else_by_its_address() {
        let (a, b) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let links = || {
            vec![
                link("dev0", "device", b, Some("0000:3b:00.1")),
                link("dev1", "device", a, Some("virtio0")),
                link("macvlan", "macvlan", a, None),
            ]
        };
        let names = |pci: Option<&str>, macs: &[MacAddr]| {
            let pci = pci.map(|text| text.parse().unwrap());
            let found = pick(links(), &Stray { pci, macs: macs.to_vec() });
            found.into_iter().map(|link| link.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(Some("0000:3b:00.1"), &[a]), ["dev0"]);
        assert_eq!(names(Some("0000:3b:00.2"), &[a]), ["dev1"]);
        assert_eq!(names(None, &[a]), ["dev1"], "what software made never falls back to the host");
        assert_eq!(names(None, &[]), [""; 0]);
    }

    #[test]
    fn names_of_sub_interfaces_are_told_from_others() {
        assert!(is_name_of_ours("weir-0123abcd"));
        for other in ["weir-0123abc", "weir-0123ABCD", "weird-0123abc", "weir-0123abcg", "eth0"] {
            assert!(!is_name_of_ours(other), "{other}");
        }
    }
}
