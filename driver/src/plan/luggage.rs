//! What an interface takes along or finds in its sandbox: addresses, routes, rules, neighbours, a
//! VRF, settings of the network stack.

use ipnet::IpNet;

use super::Step;
use crate::model::{At, Family, Neighbor, Record, Route, Rule, SysctlName};

/// The addresses inside: those of the claim, or else the host's if they are inherited.
pub(super) fn addresses(record: &Record) -> Vec<IpNet> {
    let wishes = &record.wishes.interface;
    match &wishes.addresses {
        Some(addresses) => addresses.clone(),
        None if wishes.inherit.has_addresses() => record.before.addresses.clone(),
        None => Vec::new(),
    }
}

/// Routes inside, in an order in which they can be added: a gateway can be reached only once the
/// route to it is there. All of them are in the VRF's table where there is one.
fn routes(record: &Record) -> Vec<Route> {
    let wished = &record.wishes.routes;
    let inherited = record.belongings.routes.iter().filter(|route| {
        let is_said = |other: &Route| {
            (other.destination, other.table) == (route.destination, route.table)
                && other.metric == route.metric
        };
        record.wishes.interface.inherit.has_routes() && !wished.iter().any(is_said)
    });
    let table = record.wishes.interface.vrf.as_ref().map(|vrf| vrf.table);
    let all = inherited
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
