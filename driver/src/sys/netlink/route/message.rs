//! A route between our noun and the kernel's message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};

use super::address_family;
use crate::model::{self, Family, IfIndex, Route, TableId};

/// What the kernel takes for an IPv6 route without a metric (`IP6_RT_PRIO_USER`,
/// `include/uapi/linux/ipv6_route.h`).
const IPV6_METRIC: u32 = 1024;

/// The table's number; one above 255 does not fit the header.
pub(super) fn table(route: &RouteMessage) -> TableId {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    TableId(attribute.unwrap_or_else(|| route.header.table.into()))
}

/// `None` for what a [`Route`] cannot say: several next hops, a tunnel, a type of service, source
/// prefixes, an end in time, or anything but unicast.
pub(in crate::sys::netlink) fn read(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.tos != 0 || header.source_prefix_length != 0 {
        return None;
    }
    let (mut destination, no_metric) = match header.address_family {
        AddressFamily::Inet => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        _ => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IPV6_METRIC),
    };
    let mut gateway = None;
    let mut source = None;
    let mut metric = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            RouteAttribute::Via(via) => gateway = Some(via_ip(via)?),
            RouteAttribute::PrefSource(address) => source = Some(ip(address)?),
            RouteAttribute::Priority(priority) => {
                metric = Some(*priority).filter(|metric| *metric != no_metric);
            }
            RouteAttribute::MultiPath(_)
            | RouteAttribute::EncapType(_)
            | RouteAttribute::Encap(_) => return None,
            RouteAttribute::CacheInfo(cache) if cache.expires != 0 => return None,
            _ => {}
        }
    }
    Some(Route {
        destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
        gateway,
        source,
        scope: model::RouteScope(header.scope.into()),
        table: table(message),
        metric,
        onlink: header.flags.contains(RouteFlags::Onlink),
        protocol: model::RouteProtocol(header.protocol.into()),
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(v4) => Some((*v4).into()),
        RouteVia::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

pub(super) fn write(index: IfIndex, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.destination.trunc();
    let family = Family::of(destination.addr());
    message.header.address_family = address_family(family);
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.protocol = RouteProtocol::from(route.protocol.0);
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::from(route.scope.0);
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    if let Ok(table) = u8::try_from(route.table.0) {
        message.header.table = table;
    } else {
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.attributes.push(RouteAttribute::Table(route.table.0));
    }
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.addr().into()));
    }
    message.attributes.push(RouteAttribute::Oif(index.0));
    match (family, route.gateway) {
        (_, None) => {}
        (Family::Ipv4, Some(IpAddr::V6(gateway))) => {
            message.attributes.push(RouteAttribute::Via(RouteVia::Inet6(gateway)));
        }
        (_, Some(gateway)) => message.attributes.push(RouteAttribute::Gateway(gateway.into())),
    }
    // A request without one means any to the kernel when it removes.
    let metric = route.metric.or((family == Family::Ipv6).then_some(IPV6_METRIC));
    message.attributes.extend(metric.map(RouteAttribute::Priority));
    message.attributes.extend(route.source.map(|s| RouteAttribute::PrefSource(s.into())));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: Option<&str>) -> Route {
        Route {
            gateway: gateway.map(|text| text.parse().unwrap()),
            ..Route::to(destination.parse().unwrap())
        }
    }

    #[test]
    fn a_route_reads_back_as_written() {
        for route in [
            route("0.0.0.0/0", Some("10.0.0.1")),
            Route { scope: model::RouteScope::LINK, ..route("10.1.0.0/16", None) },
            Route { source: "10.0.0.2".parse().ok(), ..route("10.1.0.0/16", None) },
            route("10.2.0.0/16", Some("fe80::1")),
            Route { table: TableId(1000), metric: Some(7), ..route("::/0", Some("fd00::1")) },
            Route { onlink: true, ..route("10.3.0.0/16", Some("192.0.2.1")) },
            Route { protocol: model::RouteProtocol(186), ..route("fd01::/64", None) },
        ] {
            assert_eq!(read(&write(IfIndex(5), &route)), Some(route));
        }
    }

    #[test]
    fn what_no_route_of_ours_can_say_is_left_out() {
        let plain = write(IfIndex(5), &route("10.0.0.0/8", Some("10.0.0.1")));
        assert!(read(&plain).is_some());
        let with = |change: &dyn Fn(&mut RouteMessage)| {
            let mut message = plain.clone();
            change(&mut message);
            read(&message)
        };
        assert_eq!(with(&|message| message.header.tos = 8), None);
        assert_eq!(with(&|message| message.header.kind = RouteType::BlackHole), None);
        assert_eq!(with(&|message| message.header.source_prefix_length = 8), None);
        let hops = RouteAttribute::MultiPath(Vec::new());
        assert_eq!(with(&|message| message.attributes.push(hops.clone())), None);
    }

    #[test]
    fn a_destination_loses_the_bits_that_the_kernel_would_refuse() {
        let message = write(IfIndex(5), &route("10.1.2.3/16", None));
        assert_eq!(read(&message), Some(route("10.1.0.0/16", None)));
    }
}
