//! Routes through the interface.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::Value;

use super::address::{family, host, network_of};
use super::dranet::{Dialect, Fields};
use super::reader::{Leaf, Object, Spot};
use super::vrf;
use crate::model::{Problems, Route, RouteScope, TableId};

pub(super) const FIELDS: Fields = Fields {
    ours: &["destination", "gateway", "source", "scope", "table", "metric", "onlink"],
    dranet: &["destination", "gateway", "source", "scope", "table"],
};
pub(super) const SCOPES: [(&str, RouteScope); 2] =
    [("global", RouteScope::UNIVERSE), ("link", RouteScope::LINK)];
pub(super) const METRIC: RangeInclusive<u32> = 0..=u32::MAX;
pub(super) const MOST_ROUTES: usize = 256;

/// A route as it was written: whether it names a table matters to a VRF.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct WrittenRoute {
    pub(super) route: Route,
    pub(super) table: Option<TableId>,
}

pub(super) fn list(
    spot: &Spot<'_>,
    dialect: Dialect,
    problems: &mut Problems,
) -> Option<Vec<WrittenRoute>> {
    let items = spot.list_up_to(MOST_ROUTES, "routes", problems)?;
    let (said, mut routes) = (items.len(), Vec::<WrittenRoute>::with_capacity(items.len()));
    for item in items {
        let Some(written) = read(&item, dialect, problems) else {
            continue;
        };
        if let Some(message) = is_taken(&written.route, routes.iter().map(|it| &it.route)) {
            problems.add(format!("{}.destination", item.path), message);
        }
        routes.push(written);
    }
    (routes.len() == said).then_some(routes)
}

/// Says that there is a route to the same destination, where the kernel cannot tell the two apart.
pub(super) fn is_taken<'a>(
    route: &Route,
    mut others: impl Iterator<Item = &'a Route>,
) -> Option<String> {
    let same = |other: &Route| {
        (other.destination, other.table, other.metric)
            == (route.destination, route.table, route.metric)
    };
    let metric = route.metric.map(|metric| format!(" with metric {metric}")).unwrap_or_default();
    let table = match route.table {
        TableId::MAIN => String::new(),
        TableId(table) => format!(" in table {table}"),
    };
    others.any(same).then(|| format!("{} has a route{metric}{table} already", route.destination))
}

fn read(spot: &Spot<'_>, dialect: Dialect, problems: &mut Problems) -> Option<WrittenRoute> {
    let fields = dialect.object(spot, FIELDS, problems)?;
    let destination = fields
        .required("destination", problems)
        .and_then(|spot| network_of(&spot, dialect, problems));
    let mut hop = |field| {
        Leaf::read(fields.field(field), |spot| hop(spot, destination.as_ref(), problems).map(Some))
    };
    let (gateway, source) = (hop("gateway"), hop("source"));
    let scope = Leaf::read(fields.field("scope"), |spot| scope(spot, problems).map(Some));
    // To DraNet, 0 is as if there were none.
    let is_said = |spot: &Spot<'_>| dialect == Dialect::Ours || *spot.value != 0;
    let table = Leaf::read(fields.field("table").filter(is_said), |spot| {
        writable_table(spot, problems).map(Some)
    });
    let metric =
        Leaf::read(fields.field("metric"), |spot| spot.integer(METRIC, problems).map(Some));
    let onlink = Leaf::read(fields.field("onlink"), |spot| spot.flag(problems));
    check_gateway(&fields, gateway, scope, onlink, problems)?;
    let (gateway, source, scope) = (gateway.or(None)?, source.or(None)?, scope.or(None)?);
    let (table, metric, onlink) = (table.or(None)?, metric.or(None)?, onlink.or(false)?);
    let destination = destination?;
    let route = Route {
        gateway,
        source,
        scope: scope_of(&destination, gateway, scope),
        table: table.unwrap_or_default(),
        metric: metric.filter(|metric| !is_default_metric(&destination, *metric)),
        onlink,
        ..Route::to(destination)
    };
    Some(WrittenRoute { route, table })
}

/// What there is only with a gateway, and only without.
fn check_gateway(
    route: &Object<'_>,
    gateway: Leaf<Option<IpAddr>>,
    scope: Leaf<Option<RouteScope>>,
    onlink: Leaf<bool>,
    problems: &mut Problems,
) -> Option<()> {
    let mut fits = Some(());
    if onlink == Leaf::Said(true) && gateway.is_unsaid() {
        problems
            .add(route.path_of("onlink"), "needs a gateway, without one everything is on the link");
        fits = None;
    }
    if scope == Leaf::Said(Some(RouteScope::LINK)) && !gateway.is_unsaid() {
        problems.add(
            route.path_of("scope"),
            "is link, but what leads through a gateway is not on the link",
        );
        fits = None;
    }
    fits
}

/// Where none was said: with a gateway anywhere, without one on the link. A gateway is looked up
/// among routes of narrower scope (`fib_check_nh_v4_gw()` in `net/ipv4/fib_semantics.c`, Linux
/// 6.18), so that a route on the link has to have that one to lead to it. IPv6 has no scopes.
fn scope_of(destination: &IpNet, gateway: Option<IpAddr>, said: Option<RouteScope>) -> RouteScope {
    match (destination, gateway) {
        (IpNet::V4(_), None) => said.unwrap_or(RouteScope::LINK),
        (IpNet::V4(_), Some(_)) | (IpNet::V6(_), _) => RouteScope::UNIVERSE,
    }
}

/// Whether the kernel takes that metric, too, where none is given. For IPv6, 0 is none
/// (`IP6_RT_PRIO_USER` in `linux/ipv6_route.h`).
fn is_default_metric(destination: &IpNet, metric: u32) -> bool {
    match destination {
        IpNet::V4(_) => metric == 0,
        IpNet::V6(_) => matches!(metric, 0 | 1024),
    }
}

fn scope(spot: &Spot<'_>, problems: &mut Problems) -> Option<RouteScope> {
    match spot.value {
        Value::Number(number) => {
            let scopes = SCOPES.map(|(_, scope)| scope);
            let found = scopes.into_iter().find(|scope| number.as_u64() == Some(scope.0.into()));
            match found {
                Some(scope) => Some(scope),
                None => spot.refuse(format_args!("{number} is not one of 0, 253"), problems),
            }
        }
        Value::String(_) => spot.word(&SCOPES, problems),
        _ => spot.refuse_type("global, link or their number", problems),
    }
}

/// A table that one can write to.
pub(super) fn writable_table(spot: &Spot<'_>, problems: &mut Problems) -> Option<TableId> {
    let table = TableId(spot.integer(vrf::TABLE, problems)?);
    if table == TableId::LOCAL {
        return spot.refuse("255 is the local table, which only the kernel writes", problems);
    }
    Some(table)
}

/// A gateway or source address of a route to `destination`.
fn hop(spot: &Spot<'_>, destination: Option<&IpNet>, problems: &mut Problems) -> Option<IpAddr> {
    let ip = host(spot, problems)?;
    match destination {
        Some(net) if net.addr().is_ipv4() != ip.is_ipv4() => {
            let (ours, theirs) = (family(ip), family(net.addr()));
            let message = format!("{ip} is {ours} but the destination {net} is {theirs}");
            spot.refuse(message, problems)
        }
        _ => Some(ip),
    }
}
