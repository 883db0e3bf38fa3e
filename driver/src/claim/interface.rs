//! How an interface shall look inside the pod: name, addresses, MTU, MAC address, and its routes.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::reader::{Leaf, Spot, quote};
use crate::model::{IfName, MacAddr, Problems, Route};

/// As low as IPv4 allows (RFC 791) and as high as an IPv4 packet can be.
pub(super) const MTU: RangeInclusive<u32> = 68..=65_535;
/// As many as the status of a claim can show (`status.devices[].networkData.ips`).
const MOST_ADDRESSES: usize = 16;

pub(super) fn name(spot: &Spot<'_>, problems: &mut Problems) -> Option<IfName> {
    let name: IfName = spot.parsed(problems)?;
    match name.as_str() {
        "lo" => spot.refuse("lo is the loopback interface of every pod", problems),
        // `dev_alloc_name()` (net/core/dev.c, Linux 6.12) takes such a name for a template.
        text if text.contains('%') => {
            spot.refuse("an interface name cannot contain '%': the kernel numbers it", problems)
        }
        _ => Some(name),
    }
}

pub(super) fn mac(spot: &Spot<'_>, problems: &mut Problems) -> Option<MacAddr> {
    let text = spot.text(problems)?;
    let Ok(mac) = text.parse::<MacAddr>() else {
        let message = format!("{} is no MAC address such as 02:00:5e:10:00:01", quote(text));
        return spot.refuse(message, problems);
    };
    if mac.is_assignable() {
        Some(mac)
    } else if mac.0 == [0; 6] {
        spot.refuse(format_args!("{mac} is no address of an interface"), problems)
    } else {
        spot.refuse(format_args!("{mac} is a group address"), problems)
    }
}

pub(super) fn addresses(spot: &Spot<'_>, problems: &mut Problems) -> Option<Vec<IpNet>> {
    let items = spot.list(problems)?;
    let (said, mut addresses) = (items.len(), Vec::with_capacity(items.len()));
    for item in items {
        if let Some(address) = address(&item, &addresses, problems) {
            addresses.push(address);
        }
    }
    if said > MOST_ADDRESSES {
        return spot
            .refuse(format_args!("{said} addresses are more than {MOST_ADDRESSES}"), problems);
    }
    (addresses.len() == said).then_some(addresses)
}

fn address(spot: &Spot<'_>, others: &[IpNet], problems: &mut Problems) -> Option<IpNet> {
    let net = cidr(spot, problems)?;
    let ip = net.addr();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let kind = match ip {
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_multicast() => "a multicast address",
        ip if ip.is_unspecified() => "the unspecified address",
        _ if is_broadcast => "the broadcast address",
        ip if others.iter().any(|other| other.addr() == ip) => "in the list already",
        _ => return Some(net),
    };
    spot.refuse(format_args!("{ip} is {kind}"), problems)
}

/// An address with a prefix length.
fn cidr(spot: &Spot<'_>, problems: &mut Problems) -> Option<IpNet> {
    let text = spot.text(problems)?;
    if let Ok(net) = text.parse() {
        return Some(net);
    }
    if let Some((longest, len)) = too_long_a_prefix(text) {
        let message = format!("{} has the prefix length {len}, above {longest}", quote(text));
        return spot.refuse(message, problems);
    }
    let message = format!("{} is no CIDR such as 192.0.2.0/24 or 2001:db8::/64", quote(text));
    spot.refuse(message, problems)
}

/// The longest prefix of an address, and the one that it has here; `None` where something else is
/// wrong.
fn too_long_a_prefix(text: &str) -> Option<(u32, u32)> {
    let (address, len) = text.split_once('/')?;
    let longest = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
    let len = len.bytes().all(|b| b.is_ascii_digit()).then(|| len.parse().ok()).flatten()?;
    (len > longest).then_some((longest, len))
}

/// A network: an address with a prefix length and no bits beyond it.
pub(super) fn network(spot: &Spot<'_>, problems: &mut Problems) -> Option<IpNet> {
    let net = cidr(spot, problems)?;
    if net.addr() == net.network() {
        return Some(net);
    }
    spot.refuse(format_args!("{net} has host bits, its network is {}", net.trunc()), problems)
}

pub(super) fn routes(spot: &Spot<'_>, problems: &mut Problems) -> Option<Vec<Route>> {
    let items = spot.list(problems)?;
    let (said, mut routes) = (items.len(), Vec::<Route>::with_capacity(items.len()));
    for item in items {
        let Some(route) = route(&item, problems) else {
            continue;
        };
        // Without a metric the kernel tells routes of one table apart by destination alone.
        if routes.iter().any(|other| other.destination == route.destination) {
            let message = format!("{} has a route already", route.destination);
            problems.add(format!("{}.destination", item.path), message);
        }
        routes.push(route);
    }
    (routes.len() == said).then_some(routes)
}

fn route(spot: &Spot<'_>, problems: &mut Problems) -> Option<Route> {
    let route = spot.object(&["destination", "gateway", "source"], problems)?;
    let destination =
        route.required("destination", problems).and_then(|spot| network(&spot, problems));
    let mut hop = |field| {
        Leaf::read(route.field(field), |spot| hop(spot, destination.as_ref(), problems).map(Some))
    };
    let (gateway, source) = (hop("gateway"), hop("source"));
    let (gateway, source) = (gateway.or(None)?, source.or(None)?);
    Some(Route { gateway, source, ..Route::to(destination?) })
}

/// A gateway or source address of a route to `destination`.
fn hop(spot: &Spot<'_>, destination: Option<&IpNet>, problems: &mut Problems) -> Option<IpAddr> {
    let text = spot.text(problems)?;
    let Ok(ip) = text.parse::<IpAddr>() else {
        return spot.refuse(format_args!("{} is no IP address", quote(text)), problems);
    };
    let family = |is_ipv4| if is_ipv4 { "IPv4" } else { "IPv6" };
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return spot.refuse(format_args!("{ip} is no address of a single host"), problems);
    }
    match destination {
        Some(net) if net.addr().is_ipv4() != ip.is_ipv4() => {
            let (ours, theirs) = (family(ip.is_ipv4()), family(!ip.is_ipv4()));
            let message = format!("{ip} is {ours} but the destination {net} is {theirs}");
            spot.refuse(message, problems)
        }
        _ => Some(ip),
    }
}
