//! The journey of an interface from the host into a sandbox, and back.

use super::Step;
use crate::model::{At, InterfaceState, NetnsRef, Place, Record};

/// From the host, where the interface is as `before`, into the sandbox's namespace.
///
/// Addresses go and the link goes down by steps of their own, though moving does the same: so that
/// the way back puts them where they were.
pub fn attach(record: &Record, before: &InterfaceState, netns: &NetnsRef) -> Vec<Step> {
    let host = on_host(before);
    let pod = At { place: Place::Pod(netns.clone()), interface: record.pod_interface().clone() };
    let wishes = &record.wishes.interface;

    let mut steps = Vec::new();
    // The last first: the first of a network takes the others of that network along, where
    // `promote_secondaries` is off (ip-sysctl), and then nobody would put those back.
    for &address in before.addresses.iter().rev() {
        steps.push(Step::RemoveAddress { at: host.clone(), address });
    }
    steps.push(Step::SetDown { at: host.clone() });
    steps.push(Step::Move { from: host, to: pod.clone() });
    if let Some(mtu) = wishes.mtu {
        steps.push(Step::SetMtu { at: pod.clone(), mtu });
    }
    if let Some(mac) = wishes.mac {
        steps.push(Step::SetMac { at: pod.clone(), mac });
    }
    for &address in wishes.addresses.as_ref().unwrap_or(&before.addresses) {
        steps.push(Step::AddAddress { at: pod.clone(), address });
    }
    steps.push(Step::SetUp { at: pod.clone() });

    // A gateway is only reachable once the route to it is there.
    let (direct, by_gateway): (Vec<_>, Vec<_>) =
        record.wishes.routes.iter().cloned().partition(|route| route.gateway.is_none());
    for route in direct.into_iter().chain(by_gateway) {
        steps.push(Step::AddRoute { at: pod.clone(), route });
    }
    steps
}

/// From the sandbox, where the interface is as `inside`, back to the host as it was.
pub fn detach(record: &Record, inside: &InterfaceState, netns: &NetnsRef) -> Vec<Step> {
    let pod = At { place: Place::Pod(netns.clone()), interface: inside.name.clone() };
    let mut steps = vec![
        Step::SetDown { at: pod.clone() },
        Step::Move { from: pod, to: on_host(&record.before) },
    ];
    steps.extend(restore(&record.before));
    steps
}

/// Gives an interface that is on the host, under its old name, its old looks. What is as it was
/// already stays untouched, since every step can be applied twice.
pub fn restore(before: &InterfaceState) -> Vec<Step> {
    let host = on_host(before);
    let mut steps = vec![Step::SetMtu { at: host.clone(), mtu: before.mtu }];
    if let Some(mac) = before.mac {
        steps.push(Step::SetMac { at: host.clone(), mac });
    }
    // First up, then addresses: going up from down loses IPv6 ones.
    if before.up {
        steps.push(Step::SetUp { at: host.clone() });
    }
    for &address in &before.addresses {
        steps.push(Step::AddAddress { at: host.clone(), address });
    }
    steps
}

fn on_host(before: &InterfaceState) -> At {
    At { place: Place::Host, interface: before.name.clone() }
}
