//! Routes of the main table.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};
use crate::model::{IfIndex, Route};

impl Netlink {
    /// Routes through the interface in the main table, sorted. Without those that the kernel made
    /// for the interface's addresses, and without those of several next hops.
    pub fn routes(&self, index: IfIndex) -> Result<Vec<Route>, NetlinkError> {
        let mut routes: Vec<_> = self
            .main_table()?
            .iter()
            .filter(|route| route.header.protocol != RouteProtocol::Kernel)
            .filter(|route| sole_interface(route) == Some(index))
            .filter_map(read)
            .collect();
        routes.sort_unstable();
        Ok(routes)
    }

    /// The interfaces that default routes of the main table lead through: IPv4 and IPv6, whatever
    /// their metrics, every next hop. Sorted.
    pub fn default_route_interfaces(&self) -> Result<Vec<IfIndex>, NetlinkError> {
        let mut interfaces: Vec<_> = self
            .main_table()?
            .iter()
            .filter(|route| route.header.destination_prefix_length == 0)
            .flat_map(interfaces)
            .collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        Ok(interfaces)
    }

    /// Adds a route through the interface, which must be up.
    pub fn add_route(&self, index: IfIndex, route: &Route) -> Result<(), NetlinkError> {
        let request = format_args!("add {} on interface {index}", Shown(route));
        let message = RouteNetlinkMessage::NewRoute(write(index, route));
        self.socket.ask(&request, message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    pub fn remove_route(&self, index: IfIndex, route: &Route) -> Result<(), NetlinkError> {
        let request = format_args!("remove {} from interface {index}", Shown(route));
        let message = RouteNetlinkMessage::DelRoute(write(index, route));
        self.socket.ask(&request, message, 0).map(drop)
    }

    /// Everything that leads somewhere: without blackholes and their like.
    fn main_table(&self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let request = RouteNetlinkMessage::GetRoute(message);
            for answer in self.socket.list(&"list routes", &request)? {
                if let RouteNetlinkMessage::NewRoute(route) = answer
                    && route.header.kind == RouteType::Unicast
                    && table(&route) == u32::from(RouteHeader::RT_TABLE_MAIN)
                {
                    routes.push(route);
                }
            }
        }
        Ok(routes)
    }
}

/// The table's number; one above 255 does not fit the header.
fn table(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| route.header.table.into())
}

fn interfaces(route: &RouteMessage) -> Vec<IfIndex> {
    let mut interfaces = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interfaces.push(IfIndex(*index)),
            RouteAttribute::MultiPath(hops) => {
                interfaces.extend(hops.iter().map(|hop| IfIndex(hop.interface_index)));
            }
            _ => {}
        }
    }
    interfaces
}

fn sole_interface(route: &RouteMessage) -> Option<IfIndex> {
    let many = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::MultiPath(_));
    if route.attributes.iter().any(many) {
        return None;
    }
    interfaces(route).first().copied()
}

fn read(message: &RouteMessage) -> Option<Route> {
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut gateway = None;
    let mut source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some(Route { gateway, source, ..Route::to(destination) })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn write(index: IfIndex, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.destination.trunc();
    message.header.address_family = match destination {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    // IPv4 looks a gateway up among narrower scopes; IPv6 knows none.
    message.header.scope = match (destination, route.gateway) {
        (IpNet::V4(_), None) => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.addr().into()));
    }
    message.attributes.push(RouteAttribute::Oif(index.0));
    match (destination, route.gateway) {
        (_, None) => {}
        (IpNet::V4(_), Some(IpAddr::V6(gateway))) => {
            message.attributes.push(RouteAttribute::Via(RouteVia::Inet6(gateway)));
        }
        (_, Some(gateway)) => message.attributes.push(RouteAttribute::Gateway(gateway.into())),
    }
    message.attributes.extend(route.source.map(|s| RouteAttribute::PrefSource(s.into())));
    message
}

/// A route as a request names it.
struct Shown<'a>(&'a Route);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {}", self.0.destination)?;
        self.0.gateway.map_or(Ok(()), |gateway| write!(f, " by {gateway}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: Option<&str>, source: Option<&str>) -> Route {
        Route {
            gateway: gateway.map(|text| text.parse().unwrap()),
            source: source.map(|text| text.parse().unwrap()),
            ..Route::to(destination.parse().unwrap())
        }
    }

    #[test]
    fn a_route_reads_back_as_written() {
        for route in [
            route("0.0.0.0/0", Some("10.0.0.1"), None),
            route("10.1.0.0/16", None, Some("10.0.0.2")),
            route("10.2.0.0/16", Some("fe80::1"), None),
            route("::/0", Some("fd00::1"), None),
            route("fd01::/64", None, None),
        ] {
            let message = write(IfIndex(5), &route);
            assert_eq!(read(&message), Some(route));
            assert_eq!(sole_interface(&message), Some(IfIndex(5)));
            assert_eq!(table(&message), 254);
        }
    }

    #[test]
    fn a_destination_loses_the_bits_that_the_kernel_would_refuse() {
        let message = write(IfIndex(5), &route("10.1.2.3/16", None, None));
        assert_eq!(read(&message), Some(route("10.1.0.0/16", None, None)));
    }
}
