//! The journey of an interface from the host into a sandbox, and back.

use super::Step;
use super::luggage;
use crate::model::{At, Dad, DatapathSpec, InterfaceState, NetnsRef, Place, Record};

/// From the host, where the interface is as `record.before` says, into the sandbox's namespace.
///
/// Addresses go and the link goes down by steps of their own, though moving does the same: so that
/// the way back puts them where they were.
pub fn attach(record: &Record, netns: &NetnsRef) -> Vec<Step> {
    if !record.has_interface() {
        return hand_over_rdma(record, netns).into_iter().collect();
    }
    let host = on_host(record);
    let pod = At { place: Place::Pod(netns.clone()), interface: record.pod_interface().clone() };

    let mut steps = Vec::new();
    // The last first: the first of a network takes the others of that network along, where
    // `promote_secondaries` is off (ip-sysctl), and then nobody would put those back.
    for &address in record.before.addresses.iter().rev() {
        steps.push(Step::RemoveAddress { at: host.clone(), address });
    }
    steps.push(Step::SetDown { at: host.clone() });
    steps.push(Step::Move { from: host, to: pod.clone() });
    // After its interface, and before that has addresses: GIDs are made of those that an interface
    // in the same namespace gets (`drivers/infiniband/core/roce_gid_mgmt.c`, Linux 6.12).
    steps.extend(hand_over_rdma(record, netns));
    // While it is down: no packet passes before its filters are there, nor while programs of others
    // are.
    steps.extend(attach_filters(record, &pod));
    if let Some(programs) = record.wishes.interface.disable_ebpf_programs.clone() {
        steps.push(Step::DetachPrograms { at: pod.clone(), programs, ours: record.id() });
    }
    steps.extend(looks(record, &pod));
    steps.extend(luggage::vrf(record, &pod));
    let dad = record.wishes.interface.dad;
    for address in luggage::addresses(record) {
        steps.push(Step::AddAddress { at: pod.clone(), address, dad });
    }
    steps.push(Step::SetUp { at: pod.clone() });
    steps.extend(luggage::unpack(record, &pod));
    steps
}

/// What the interface is like in itself, as the claim wishes it.
fn looks(record: &Record, pod: &At) -> Vec<Step> {
    let wishes = &record.wishes.interface;
    let mut steps = Vec::new();
    if let Some(mtu) = wishes.mtu {
        steps.push(Step::SetMtu { at: pod.clone(), mtu });
    }
    if let Some(mac) = wishes.mac {
        steps.push(Step::SetMac { at: pod.clone(), mac });
    }
    if !wishes.segments.is_empty() {
        steps.push(Step::SetSegments { at: pod.clone(), segments: wishes.segments });
    }
    steps.extend(luggage::sysctls(&wishes.sysctls, pod));
    steps
}

/// Puts the datapath's programs, with its filter as it is recorded now, in the place of those that
/// run. `inside` is the interface in its sandbox, if it is in one.
pub fn replace(record: &Record, inside: Option<&InterfaceState>) -> Vec<Step> {
    let replace = |spec: &DatapathSpec| Step::ReplaceDatapath { spec: spec.clone() };
    let mut steps: Vec<_> = record.datapath.iter().map(replace).collect();
    steps.extend(put_filters(record, inside));
    steps
}

/// Sees to it that the filters of an interface in a sandbox are there, whatever became of them.
pub(super) fn put_filters(record: &Record, inside: Option<&InterfaceState>) -> Option<Step> {
    let (netns, inside) = record.phase.netns().zip(inside)?;
    let pod = At { place: Place::Pod(netns.clone()), interface: inside.name.clone() };
    attach_filters(record, &pod)
}

fn attach_filters(record: &Record, at: &At) -> Option<Step> {
    let spec = record.datapath.as_ref().filter(|spec| spec.is_degraded())?;
    Some(Step::AttachFilters { spec: spec.clone(), at: at.clone() })
}

fn hand_over_rdma(record: &Record, netns: &NetnsRef) -> Option<Step> {
    let device = record.rdma.clone()?;
    Some(Step::MoveRdma { device, from: Place::Host, to: Place::Pod(netns.clone()) })
}

/// From the namespace that the record names, if it names one.
pub(super) fn take_back_rdma(record: &Record) -> Option<Step> {
    let (device, netns) = (record.rdma.clone()?, record.phase.netns()?.clone());
    Some(Step::MoveRdma { device, from: Place::Pod(netns), to: Place::Host })
}

/// From the sandbox, where the interface is as `inside`, back to the host as it was. Its filters end
/// with the move.
pub fn detach(record: &Record, inside: &InterfaceState, netns: &NetnsRef) -> Vec<Step> {
    let pod = At { place: Place::Pod(netns.clone()), interface: inside.name.clone() };
    let mut steps: Vec<_> = take_back_rdma(record).into_iter().collect();
    steps.extend(luggage::leave(record, &pod));
    steps.push(Step::SetDown { at: pod.clone() });
    steps.extend(luggage::leave_vrf(record, &pod));
    steps.push(Step::Move { from: pod, to: on_host(record) });
    steps.extend(settle_in(record));
    steps
}

/// Takes back what an attach that failed may have left in the sandbox, beside the interface.
pub fn leave(record: &Record, netns: &NetnsRef) -> Vec<Step> {
    let pod = At { place: Place::Pod(netns.clone()), interface: record.pod_interface().clone() };
    let mut steps = luggage::leave(record, &pod);
    if let Some(vrf) = record.wishes.interface.vrf.clone() {
        steps.push(Step::RemoveVrf { place: pod.place, vrf });
    }
    steps
}

/// Gives an interface that is on the host, under its old name, its old looks and belongings. What is
/// as it was already stays untouched, since every step can be applied twice. Its RDMA device comes
/// home as well.
pub fn restore(record: &Record) -> Vec<Step> {
    let mut steps: Vec<_> = take_back_rdma(record).into_iter().collect();
    if record.has_interface() {
        steps.extend(settle_in(record));
    }
    steps
}

fn settle_in(record: &Record) -> Vec<Step> {
    let (host, before) = (on_host(record), &record.before);
    let mut steps = vec![Step::SetMtu { at: host.clone(), mtu: before.mtu }];
    if let Some(mac) = before.mac {
        steps.push(Step::SetMac { at: host.clone(), mac });
    }
    if !before.segments.is_empty() {
        steps.push(Step::SetSegments { at: host.clone(), segments: before.segments });
    }
    steps.extend(luggage::sysctls(&record.belongings.sysctls, &host));
    // First up, then addresses: going up from down loses IPv6 ones.
    if before.up {
        steps.push(Step::SetUp { at: host.clone() });
    }
    for &address in &before.addresses {
        steps.push(Step::AddAddress { at: host.clone(), address, dad: Dad::Skip });
    }
    for &neighbor in &record.belongings.neighbors {
        steps.push(Step::AddNeighbor { at: host.clone(), neighbor });
    }
    for route in &record.belongings.routes {
        steps.push(Step::AddRoute { at: host.clone(), route: route.clone() });
    }
    steps
}

/// Where the interface is at home.
pub(super) fn on_host(record: &Record) -> At {
    At { place: Place::Host, interface: record.before.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IngressHook, Phase};
    use crate::testing::{netns, record};

    fn prepared(ingress: Option<IngressHook>) -> Record {
        record("eth1", ingress, Phase::Prepared)
    }

    #[test]
    fn filters_are_attached_between_the_move_and_the_first_packet() {
        let record = prepared(Some(IngressHook::Clsact));
        let kinds: Vec<_> = attach(&record, &netns(100)).iter().map(Step::kind).collect();
        let at = |kind| kinds.iter().position(|other| *other == kind).unwrap();
        assert_eq!(at("attach_filters"), at("move") + 1);
        assert!(at("attach_filters") < at("set_up"));
    }

    #[test]
    fn links_travel_by_themselves() {
        for ingress in [None, Some(IngressHook::Xdp), Some(IngressHook::Tcx)] {
            let record = prepared(ingress);
            let steps = attach(&record, &netns(100));
            assert!(!steps.iter().any(|step| step.kind() == "attach_filters"), "{ingress:?}");
        }
    }

    #[test]
    fn filters_are_replaced_where_the_interface_is() {
        let mut record = prepared(Some(IngressHook::Clsact));
        let kinds = |record: &Record, inside: Option<&InterfaceState>| -> Vec<_> {
            replace(record, inside).iter().map(Step::kind).collect()
        };
        assert_eq!(kinds(&record, None), ["replace_datapath"], "it has none on the host");

        let inside = InterfaceState { name: "net7".parse().unwrap(), ..record.before.clone() };
        record.phase = Phase::Attached { netns: netns(100), inside: inside.index };
        assert_eq!(kinds(&record, Some(&inside)), ["replace_datapath", "attach_filters"]);
        let Step::AttachFilters { at, .. } = &replace(&record, Some(&inside))[1] else { panic!() };
        assert_eq!(at.interface, inside.name, "the pod may have renamed it");
        assert_eq!(at.place, Place::Pod(netns(100)));

        record.datapath = None;
        assert_eq!(kinds(&record, Some(&inside)), [""; 0]);
    }
}
