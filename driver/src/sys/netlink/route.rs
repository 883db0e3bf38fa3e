//! Routes of all tables.

mod message;

use std::cmp::Reverse;
use std::fmt;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

pub(super) use self::message::read;
use self::message::{table, write};
use super::{Netlink, NetlinkError};
use crate::model::{Family, IfIndex, Route, TableId};

impl Netlink {
    /// Routes through the interface that somebody made and that a [`Route`] can say, in an order in
    /// which they can be added. Of all tables but the local one, which the kernel writes.
    ///
    /// What the kernel makes by itself, for an address, a redirect or a router's advertisement, is not
    /// among them; nor is what has several next hops, or an end.
    pub fn routes(&self, index: IfIndex) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            for message in self.list_routes(family, Some(index), None)? {
                if is_made_by_itself(&message) || table(&message) == TableId::LOCAL {
                    continue;
                }
                if let Some(route) = read(&message) {
                    routes.push(route);
                } else {
                    tracing::debug!(%index, ?message, "left out a route of another kind");
                }
            }
        }
        routes.sort_unstable_by_key(order);
        Ok(routes)
    }

    /// The interfaces that default routes of the main table lead through: IPv4 and IPv6, whatever
    /// their metrics, every next hop. Halves of everything, as VPNs have them, are as good as a default
    /// route, and so is all that is global in IPv6. Sorted.
    pub fn default_route_interfaces(&self) -> Result<Vec<IfIndex>, NetlinkError> {
        let mut found = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            let routes = self.list_routes(family, None, Some(TableId::MAIN))?;
            let defaults =
                routes.iter().filter(|route| is_default(family, route) && is_unicast(route));
            found.extend(defaults.flat_map(interfaces));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Whether packets take this route already: one to the same destination, by the same way, with
    /// the same metric. Who made it does not matter, nor which source address it prefers where the
    /// wish has none.
    pub fn has_like(&self, index: IfIndex, wish: &Route) -> Result<bool, NetlinkError> {
        let is_like = |there: &Route| {
            let source = wish.source.and(there.source);
            Route { protocol: wish.protocol, source, ..there.clone() } == trimmed(wish)
        };
        Ok(self.routes_of_table(index, wish)?.iter().any(is_like))
    }

    /// Whether there is exactly this route.
    pub fn has_route(&self, index: IfIndex, route: &Route) -> Result<bool, NetlinkError> {
        Ok(self.routes_of_table(index, route)?.contains(&trimmed(route)))
    }

    /// Adds a route through the interface, which must be up.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::is_exists`] where the table has a route to the same destination with the same
    /// metric, whichever way it leads.
    pub fn add_route(&self, index: IfIndex, route: &Route) -> Result<(), NetlinkError> {
        let request = format_args!("add {} on interface {index}", Shown(route));
        let message = RouteNetlinkMessage::NewRoute(write(index, route));
        self.socket.ask(&request, message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Removes a route that is there. An IPv4 route without a gateway or a metric stands for those
    /// with one, too (`fib_nh_match()` in `net/ipv4/fib_semantics.c`, Linux 6.12): ask
    /// [`has_route`](Self::has_route) before.
    pub fn remove_route(&self, index: IfIndex, route: &Route) -> Result<(), NetlinkError> {
        let request = format_args!("remove {} from interface {index}", Shown(route));
        let message = RouteNetlinkMessage::DelRoute(write(index, route));
        self.socket.ask(&request, message, 0).map(drop)
    }

    /// What is in the table of `like`, of its family, through the interface.
    fn routes_of_table(&self, index: IfIndex, like: &Route) -> Result<Vec<Route>, NetlinkError> {
        let family = Family::of(like.destination.addr());
        let messages = self.list_routes(family, Some(index), Some(like.table))?;
        Ok(messages.iter().filter_map(read).collect())
    }

    /// The kernel filters (`ip_valid_fib_dump_req()` in `net/ipv4/fib_frontend.c`, Linux 6.12): only
    /// what leads through the interface is copied to us, however long a table is.
    fn list_routes(
        &self,
        family: Family,
        index: Option<IfIndex>,
        table: Option<TableId>,
    ) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.attributes.extend(index.map(|index| RouteAttribute::Oif(index.0)));
        message.attributes.extend(table.map(|table| RouteAttribute::Table(table.0)));
        let request = RouteNetlinkMessage::GetRoute(message);
        let answers = match self.socket.list(&"list routes", &request) {
            Ok(answers) => answers,
            // There is no such table: nobody has put anything into it.
            Err(error) if table.is_some() && error.is_absent() => Vec::new(),
            Err(error) => return Err(error),
        };
        let routes = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        Ok(routes.collect())
    }
}

pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

/// A gateway has to be on the link by a route that is there before; the wider the scope, the later.
fn order(route: &Route) -> (bool, Reverse<u8>, Route) {
    (route.gateway.is_some(), Reverse(route.scope.0), route.clone())
}

/// As the kernel has it: without bits of the destination below its prefix.
fn trimmed(route: &Route) -> Route {
    Route { destination: route.destination.trunc(), ..route.clone() }
}

fn is_unicast(message: &RouteMessage) -> bool {
    message.header.kind == RouteType::Unicast
}

/// Whether the route is for so much that there is no other way out: everything, one of its halves, or
/// `2000::/3`.
fn is_default(family: Family, route: &RouteMessage) -> bool {
    let most = match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 3,
    };
    route.header.destination_prefix_length <= most
}

fn is_made_by_itself(message: &RouteMessage) -> bool {
    matches!(
        message.header.protocol,
        RouteProtocol::Kernel | RouteProtocol::IcmpRedirect | RouteProtocol::Ra
    ) || !is_unicast(message)
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

/// A route as a request names it.
struct Shown<'a>(&'a Route);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {}", self.0.destination)?;
        if let Some(gateway) = self.0.gateway {
            write!(f, " by {gateway}")?;
        }
        if self.0.table == TableId::MAIN {
            Ok(())
        } else {
            write!(f, " in table {}", self.0.table.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RouteScope;

    #[test]
    fn what_is_on_the_link_is_added_before_what_needs_a_gateway() {
        let route = |destination: &str, gateway: Option<&str>, scope| Route {
            gateway: gateway.map(|text| text.parse().unwrap()),
            scope,
            ..Route::to(destination.parse().unwrap())
        };
        let default = route("0.0.0.0/0", Some("169.254.1.1"), RouteScope::UNIVERSE);
        let wide = route("10.0.0.0/8", None, RouteScope::UNIVERSE);
        let link = route("169.254.1.1/32", None, RouteScope::LINK);
        let mut routes = [default.clone(), wide.clone(), link.clone()];
        routes.sort_unstable_by_key(order);
        assert_eq!(routes, [link, wide, default]);
    }
}
