//! What an interface takes along or finds in its sandbox: addresses, routes, rules, neighbours, a
//! VRF, settings of the network stack.

use ipnet::IpNet;

use super::Step;
use crate::model::{At, Family, Neighbor, Record, Route, Rule, SysctlName};

/// The addresses inside: the one that a DHCP server lent, and those of the claim, or else the host's
/// if they are inherited.
pub(super) fn addresses(record: &Record) -> Vec<IpNet> {
    let wishes = &record.wishes.interface;
    let lent = record.lease.iter().map(|lease| IpNet::V4(lease.address));
    let others = match &wishes.addresses {
        Some(addresses) => addresses.as_slice(),
        None if wishes.inherit.has_addresses() => &record.before.addresses,
        None => &[],
    };
    lent.chain(others.iter().copied()).collect()
}

/// Routes inside, in an order in which they can be added: a gateway can be reached only once the
/// route to it is there. All of them are in the VRF's table where there is one. Of several
/// that the kernel would take for one, the claim's comes before the DHCP server's, and that before the
/// host's.
fn routes(record: &Record) -> Vec<Route> {
    let is_same = |one: &Route, other: &Route| {
        (other.destination, other.table, other.metric) == (one.destination, one.table, one.metric)
    };
    let wished = record.wishes.routes.as_slice();
    let lent = record.lease.as_ref().map_or(&[][..], |lease| &lease.routes);
    let lent: Vec<_> =
        lent.iter().filter(|route| !wished.iter().any(|other| is_same(route, other))).collect();
    let inherited = record.belongings.routes.iter().filter(|route| {
        let mut said = wished.iter().chain(lent.iter().copied());
        record.wishes.interface.inherit.has_routes() && !said.any(|other| is_same(route, other))
    });
    let table = record.wishes.interface.vrf.as_ref().map(|vrf| vrf.table);
    let all = inherited
        .chain(lent.iter().copied())
        .chain(wished)
        .map(|route| Route { table: table.unwrap_or(route.table), ..route.clone() });
    let (direct, by_gateway): (Vec<_>, Vec<_>) = all.partition(|route| route.gateway.is_none());
    direct.into_iter().chain(by_gateway).collect()
}

fn rules(record: &Record) -> Vec<Rule> {
    let wishes = &record.wishes;
    // A VRF has a rule of its own for all its members.
    let is_inherited = wishes.interface.inherit.has_routes() && wishes.interface.vrf.is_none();
    let inherited = if is_inherited { record.belongings.rules.as_slice() } else { &[] };
    let mut rules: Vec<_> = inherited.iter().chain(&wishes.rules).cloned().collect();
    rules.sort();
    rules.dedup();
    rules
}

fn neighbors(record: &Record) -> Vec<Neighbor> {
    let wished = &record.wishes.neighbors;
    let is_said =
        |neighbor: &Neighbor| wished.iter().any(|other| other.destination == neighbor.destination);
    let is_inherited = record.wishes.interface.inherit.has_neighbors();
    let inherited = record.belongings.neighbors.iter().filter(|n| is_inherited && !is_said(n));
    inherited.chain(wished).copied().collect()
}

/// What needs the interface to be up and to have its addresses.
pub(super) fn unpack(record: &Record, pod: &At) -> Vec<Step> {
    let mut steps = Vec::new();
    for neighbor in neighbors(record) {
        steps.push(Step::AddNeighbor { at: pod.clone(), neighbor });
    }
    for route in routes(record) {
        steps.push(Step::AddRoute { at: pod.clone(), route });
    }
    for rule in rules(record) {
        steps.push(Step::AddRule { place: pod.place.clone(), rule });
    }
    steps
}

/// Makes of the addresses and routes in `before` those in `after`, which is the same attachment with
/// another lease.
///
/// The old address goes first, or it would take a new one of its network along. With its last IPv4
/// address an interface loses all IPv4 routes and neighbours (`fib_disable_ip()` in
/// `net/ipv4/fib_frontend.c`, Linux 6.12), so they are all added again; what is there stays as it is.
pub fn relet(before: &Record, after: &Record, pod: &At) -> Vec<Step> {
    let ([old_routes, new_routes], [old, new]) =
        ([before, after].map(routes), [before, after].map(addresses));
    let at = || pod.clone();
    let mut steps = Vec::new();
    for route in old_routes.iter().rev().filter(|route| !new_routes.contains(route)) {
        steps.push(Step::RemoveRoute { at: at(), route: route.clone() });
    }
    for &address in old.iter().filter(|address| !new.contains(address)) {
        steps.push(Step::RemoveAddress { at: at(), address });
    }
    let dad = after.wishes.interface.dad;
    for &address in new.iter().filter(|address| !old.contains(address)) {
        steps.push(Step::AddAddress { at: at(), address, dad });
    }
    let is_other = !steps.is_empty() || old_routes != new_routes;
    if is_other && after.lease.is_some() {
        steps.extend(unpack(after, pod));
    }
    steps
}

/// Takes back what does not go with the interface.
pub(super) fn leave(record: &Record, pod: &At) -> Vec<Step> {
    let remove = |rule| Step::RemoveRule { place: pod.place.clone(), rule };
    rules(record).into_iter().map(remove).collect()
}

/// Makes the interface, which is down, a member of its VRF.
///
/// Sockets that are bound to no VRF have to see what comes in through one (`tcp_l3mdev_accept`,
/// Documentation/networking/vrf.rst), or no server of the pod would be reached.
pub(super) fn vrf(record: &Record, pod: &At) -> Vec<Step> {
    let Some(vrf) = &record.wishes.interface.vrf else {
        return Vec::new();
    };
    let place = &pod.place;
    let mut steps = vec![Step::AddVrf { place: place.clone(), vrf: vrf.clone() }];
    for name in ["ipv4/tcp_l3mdev_accept", "ipv4/udp_l3mdev_accept"] {
        let (name, value) = (name.to_owned(), "1".to_owned());
        steps.push(Step::SetSysctl { place: place.clone(), name, value });
    }
    steps.push(Step::SetController { at: pod.clone(), controller: Some(vrf.name.clone()) });
    steps
}

pub(super) fn leave_vrf(record: &Record, pod: &At) -> Vec<Step> {
    let Some(vrf) = &record.wishes.interface.vrf else {
        return Vec::new();
    };
    let leave = Step::SetController { at: pod.clone(), controller: None };
    vec![leave, Step::RemoveVrf { place: pod.place.clone(), vrf: vrf.clone() }]
}

/// Sets what the network stack does on this one interface.
pub(super) fn sysctls(settings: &[(SysctlName, String)], at: &At) -> Vec<Step> {
    let step = |(sysctl, value): &(SysctlName, String)| {
        let family = match sysctl.family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        let name = format!("{family}/conf/{}/{}", at.interface, sysctl.name);
        Step::SetSysctl { place: at.place.clone(), name, value: value.clone() }
    };
    settings.iter().map(step).collect()
}
