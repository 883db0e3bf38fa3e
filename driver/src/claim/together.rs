//! What does not go together, wherever its parts are from.

use std::net::IpAddr;

use ipnet::IpNet;

use super::combine::Said;
use super::fields::{
    ADDRESSES, CHANNELS, COALESCE, DHCP, FEATURES, HOOK, INHERIT, LINK_STATE, MAC, MAX_RATE,
    MIN_RATE, MTU, NAME, NEIGHBORS, PRIVATE_FLAGS, RINGS, ROUTES, RULES, SPOOF_CHECK, SUBINTERFACE,
    TRUST, VF_VLAN, VRF,
};
use super::merge::{Entries, Field, Merge};
use crate::model::{
    Family, HookWish, Inherit, InterfaceWishes, MacvlanMode, SubinterfaceKind, SysctlName,
    VfSettings, Wishes,
};

pub(super) fn check(merge: &mut Merge<'_>, wishes: &Wishes, settings: &Said<'_>) {
    check_mtu(merge, &wishes.interface);
    check_dhcp(merge, &wishes.interface);
    check_inherit(merge, &wishes.interface);
    check_own_addresses(merge, wishes);
    check_vrf(merge, wishes);
    check_rates(merge, &wishes.sriov);
    if let Some(kind) = wishes.subinterface {
        check_subinterface(merge, wishes, kind);
    }
    check_ipv6(merge, wishes, settings);
}

/// Linux takes IPv6 away from an interface whose MTU is below 1280 (`addrconf_notify()` in
/// `net/ipv6/addrconf.c`, Linux 6.12), so that its addresses could not be added.
fn check_mtu(merge: &mut Merge<'_>, interface: &InterfaceWishes) {
    const LEAST_IPV6_MTU: u32 = 1280;
    let is_ipv6 = |address: &&IpNet| address.addr().is_ipv6();
    let ipv6 = interface.addresses.iter().flatten().find(is_ipv6);
    if let (Some(mtu), Some(address)) = (interface.mtu, ipv6)
        && mtu < LEAST_IPV6_MTU
    {
        let message = format!("{mtu} is below {LEAST_IPV6_MTU}, as IPv6 ({address}) needs it");
        merge.clash(&MTU, &ADDRESSES, message);
    }
}

fn check_dhcp(merge: &mut Merge<'_>, interface: &InterfaceWishes) {
    if !interface.dhcp {
        return;
    }
    for (nth, address) in addresses(interface) {
        if address.is_ipv4() {
            let path = format!("interface.addresses[{nth}]");
            merge.clash_at(&ADDRESSES, &path, &DHCP, "is IPv4, which is dhcp's to give");
        }
    }
    if interface.addresses.is_none() && interface.inherit.has_addresses() {
        let message = "takes addresses along, but dhcp gives one: say routes or none";
        merge.clash(&INHERIT, &DHCP, message);
    }
}

fn check_inherit(merge: &mut Merge<'_>, interface: &InterfaceWishes) {
    if interface.addresses.is_some() && interface.inherit == Inherit::Addresses {
        let message = "takes addresses along, but they are given: say all, routes or none";
        merge.clash(&INHERIT, &ADDRESSES, message);
    }
}

/// The kernel refuses a gateway that is an address of its own (`fib_check_nh_v4_gw()` in
/// `net/ipv4/fib_semantics.c` and `ip6_validate_gw()` in `net/ipv6/route.c`, Linux 6.18).
fn check_own_addresses(merge: &mut Merge<'_>, wishes: &Wishes) {
    let is_own = |ip: IpAddr| addresses(&wishes.interface).any(|(_, own)| own == ip);
    for (nth, route) in wishes.routes.iter().enumerate() {
        if let Some(gateway) = route.gateway.filter(|gateway| is_own(*gateway)) {
            let path = format!("routes[{nth}].gateway");
            let message = format!("{gateway} is an address of the interface itself");
            merge.clash_at(&ROUTES, &path, &ADDRESSES, message);
        }
    }
    for (nth, neighbor) in wishes.neighbors.iter().enumerate() {
        if is_own(neighbor.destination) {
            let path = format!("neighbors[{nth}].destination");
            let message = format!("{} is an address of the interface itself", neighbor.destination);
            merge.clash_at(&NEIGHBORS, &path, &ADDRESSES, message);
        }
    }
}

fn check_vrf(merge: &mut Merge<'_>, wishes: &Wishes) {
    let Some(vrf) = &wishes.interface.vrf else { return };
    if !wishes.rules.is_empty() {
        let message = "do not go with a VRF, which has a rule of its own";
        merge.clash(&RULES, &VRF, message);
    }
    if wishes.interface.name.as_ref() == Some(&vrf.name) {
        let message = format!("{} is the name of the interface in it", vrf.name);
        merge.clash_at(&VRF, "interface.vrf.name", &NAME, message);
    }
}

/// A sub-interface is on a device that others use, too: nothing may change for them.
fn check_subinterface(merge: &mut Merge<'_>, wishes: &Wishes, kind: SubinterfaceKind) {
    let type_name = kind.name();
    let is_ipvlan = matches!(kind, SubinterfaceKind::Ipvlan { .. });
    let is_passthru = kind == SubinterfaceKind::Macvlan { mode: MacvlanMode::Passthru };
    if wishes.interface.mac.is_some() && (is_ipvlan || is_passthru) {
        let passthru = if is_passthru { " in mode passthru" } else { "" };
        let message = format!("cannot be set: {type_name}{passthru} has the address of its parent");
        merge.clash(&MAC, &SUBINTERFACE, message);
    }
    if wishes.interface.dhcp && is_ipvlan {
        let message = "does not go with ipvlan: to the server all on one parent are the same";
        merge.clash(&DHCP, &SUBINTERFACE, message);
    }
    if wishes.interface.inherit != Inherit::None {
        let message = "is for the device itself, a sub-interface is new and has only none";
        merge.clash(&INHERIT, &SUBINTERFACE, message);
    }
    if merge.value(&HOOK) == Some(HookWish::Xdp) {
        let message = format!("xdp is for the device itself, {type_name} has no native XDP");
        merge.clash(&HOOK, &SUBINTERFACE, message);
    }
    refuse_ethtool(merge, &FEATURES);
    refuse_ethtool(merge, &PRIVATE_FLAGS);
    refuse_ethtool(merge, &RINGS);
    refuse_ethtool(merge, &CHANNELS);
    refuse_ethtool(merge, &COALESCE);
    refuse_sriov(merge, &VF_VLAN);
    refuse_sriov(merge, &TRUST);
    refuse_sriov(merge, &SPOOF_CHECK);
    refuse_sriov(merge, &MIN_RATE);
    refuse_sriov(merge, &MAX_RATE);
    refuse_sriov(merge, &LINK_STATE);
}

fn refuse_ethtool<V: Clone + 'static>(merge: &mut Merge<'_>, group: &Field<Entries<String, V>>) {
    if merge.value(group).is_some_and(|entries| !entries.is_empty()) {
        merge.clash(group, &SUBINTERFACE, CHANGES_PARENT);
    }
}

fn refuse_sriov<V: Clone + 'static>(merge: &mut Merge<'_>, field: &Field<V>) {
    if merge.value(field).is_some() {
        merge.clash(field, &SUBINTERFACE, CHANGES_PARENT);
    }
}

const CHANGES_PARENT: &str =
    "would change the parent for all that use it, so not with a subinterface";

/// The kernel refuses it as well (`rtnl_set_vf_rate()` in `net/core/rtnetlink.c`, Linux 6.12): a limit
/// below what is warranted. A limit of 0 is none.
fn check_rates(merge: &mut Merge<'_>, sriov: &VfSettings) {
    if let (Some(min), Some(max)) = (sriov.min_tx_rate_mbps, sriov.max_tx_rate_mbps)
        && max != 0
        && min > max
    {
        merge.clash(&MIN_RATE, &MAX_RATE, format!("{min} is above maxTxRateMbps, {max}"));
    }
}

/// Where IPv6 is off, nothing of it can be had.
fn check_ipv6(merge: &mut Merge<'_>, wishes: &Wishes, settings: &Said<'_>) {
    let name = SysctlName { family: Family::Ipv6, name: "disable_ipv6".to_owned() };
    let Some((by, entry)) = settings.get(&name).filter(|(_, entry)| entry.value == "1") else {
        return;
    };
    let there = Some((*by, entry.path.as_str()));
    let message = "is IPv6, which disable_ipv6 switches off";
    let is_ipv6 = |(_, ip): &(usize, IpAddr)| ip.is_ipv6();
    for (nth, _) in addresses(&wishes.interface).filter(is_ipv6) {
        let Some((source, _)) = merge.last(&ADDRESSES) else { return };
        merge.clash_of(source, &format!("interface.addresses[{nth}]"), there, message);
    }
    let routes = wishes.routes.iter().map(|route| route.destination.addr()).enumerate();
    for (nth, _) in routes.filter(is_ipv6) {
        let Some((source, _)) = merge.last(&ROUTES) else { return };
        merge.clash_of(source, &format!("routes[{nth}].destination"), there, message);
    }
    let neighbors = wishes.neighbors.iter().map(|neighbor| neighbor.destination).enumerate();
    for (nth, _) in neighbors.filter(is_ipv6) {
        let Some((source, _)) = merge.last(&NEIGHBORS) else { return };
        merge.clash_of(source, &format!("neighbors[{nth}].destination"), there, message);
    }
}

fn addresses(interface: &InterfaceWishes) -> impl Iterator<Item = (usize, IpAddr)> {
    interface.addresses.iter().flatten().map(IpNet::addr).enumerate()
}
