//! Addresses and networks, of the link layer and above.

use std::net::IpAddr;

use ipnet::IpNet;

use super::dranet::Dialect;
use super::reader::{Spot, quote};
use crate::model::{MacAddr, Problems};

/// The name of the family that an address is of.
pub(super) fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

pub(super) fn mac(spot: &Spot<'_>, dialect: Dialect, problems: &mut Problems) -> Option<MacAddr> {
    let text = spot.text(problems)?;
    let Some(mac) = dialect.mac(text) else {
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

/// An address with a prefix length.
pub(super) fn cidr(spot: &Spot<'_>, problems: &mut Problems) -> Option<IpNet> {
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
    network_of(spot, Dialect::Ours, problems)
}

/// The same; what DraNet reads, it masks.
pub(super) fn network_of(
    spot: &Spot<'_>,
    dialect: Dialect,
    problems: &mut Problems,
) -> Option<IpNet> {
    let net = cidr(spot, problems)?;
    if net.addr() == net.network() || dialect == Dialect::Dranet {
        return Some(net.trunc());
    }
    spot.refuse(format_args!("{net} has host bits, its network is {}", net.trunc()), problems)
}

/// The address of one host.
pub(super) fn host(spot: &Spot<'_>, problems: &mut Problems) -> Option<IpAddr> {
    let text = spot.text(problems)?;
    let Ok(ip) = text.parse::<IpAddr>() else {
        return spot.refuse(format_args!("{} is no IP address", quote(text)), problems);
    };
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || is_broadcast {
        return spot.refuse(format_args!("{ip} is no address of a single host"), problems);
    }
    Some(ip)
}
