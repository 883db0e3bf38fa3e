//! What to do with an attachment whose end the driver did not see: it was killed, or the sandbox
//! went without a word.

use super::{DatapathState, Step, Stray, detach, journey, prepare};
use crate::model::{At, BuildId, InterfaceState, Phase, Place, Record};

/// What was found of one attachment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// The interface on the host, under the name that it had there.
    pub on_host: Option<InterfaceState>,
    /// The interface in the namespace that the record names, if any.
    pub in_pod: Option<InterfaceState>,
    /// Interfaces on the host that may be it under another name: where the kernel leaves hardware
    /// when a namespace dies.
    pub strays: Vec<InterfaceState>,
    pub datapath: DatapathState,
    /// The namespace that the record names is still there.
    pub is_namespace_there: bool,
    /// The RDMA device that moves is on the host.
    pub is_rdma_home: bool,
}

/// What follows from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settlement {
    /// Do these, and the attachment stays in the phase that it has.
    Keep(Vec<Step>),
    /// Do these, and it is prepared: on the host, as it was.
    Free(Vec<Step>),
    /// Take away what prepare made, and forget it; kubelet will ask again if it still wants it.
    Forget { is_home: bool },
    /// The interface is nowhere. It may come back, so the record stays; nothing can be done now.
    Lost,
}

/// Decides how to go on with `record`, given what was `seen` and the `build` of this driver.
pub fn settle(record: &Record, seen: &Seen, build: &BuildId) -> Settlement {
    if !record.has_interface() {
        return settle_bare(record, seen);
    }
    let on_host = seen.on_host.as_ref().filter(|state| is_ours_on_host(record, state));
    // By its index an interface is the one that we gave; by its name it may be the pod's own.
    let is_known = record.phase.inside().is_some();
    let in_pod = seen.in_pod.as_ref().filter(|state| is_known || is_ours(record, state));
    match (&record.phase, in_pod, on_host) {
        (Phase::Preparing | Phase::Unpreparing, _, home) => {
            Settlement::Forget { is_home: home.is_some() }
        }
        (Phase::Prepared, _, Some(_)) => Settlement::Keep(adopt(record, seen, build)),
        (Phase::Prepared, ..) if record.subinterface.is_some() => {
            Settlement::Keep(prepare::remake(record))
        }
        (Phase::Attached { .. }, Some(inside), _) => {
            Settlement::Keep(refresh(record, Some(inside), seen, build))
        }
        (Phase::Attaching { netns } | Phase::Detaching { netns, .. }, Some(inside), _) => {
            Settlement::Free(detach(record, inside, netns))
        }
        (_, _, Some(_)) => Settlement::Free(journey::restore(record)),
        // It went with its namespace, as it had to. A new one is made when it is needed.
        _ if record.subinterface.is_some() => Settlement::Free(Vec::new()),
        _ => stray(record, seen),
    }
}

/// The same for what has no interface: an RDMA device that moves, or files that stay where they are.
fn settle_bare(record: &Record, seen: &Seen) -> Settlement {
    let is_inside = seen.is_namespace_there && !(record.rdma.is_some() && seen.is_rdma_home);
    match &record.phase {
        Phase::Preparing | Phase::Unpreparing => Settlement::Forget { is_home: true },
        Phase::Prepared => Settlement::Keep(Vec::new()),
        Phase::Attached { .. } if is_inside => Settlement::Keep(Vec::new()),
        // The kernel gives it back when the namespace dies, in the background
        // (`rdma_dev_exit_net()` in `drivers/infiniband/core/device.c`, Linux 6.12).
        _ if record.rdma.is_some() && !seen.is_namespace_there && !seen.is_rdma_home => {
            Settlement::Lost
        }
        _ => Settlement::Free(journey::restore(record)),
    }
}

/// By what the device of `record` can be found on the host under whichever name.
pub fn stray_of(record: &Record) -> Stray {
    let mut macs: Vec<_> =
        record.wishes.interface.mac.into_iter().chain(record.before.mac).collect();
    macs.dedup();
    Stray { pci: record.device.pci.as_ref().map(|pci| pci.address), macs }
}

/// The interface is neither in its pod nor at its place on the host. Perhaps the kernel has put it
/// there under its name from the pod, or as `dev%d` where that was taken (`default_device_exit_net()`
/// in net/core/dev.c, Linux 6.12).
fn stray(record: &Record, seen: &Seen) -> Settlement {
    // One that is another's by its index in a pod cannot be here; several ports of one function may.
    let ours: Vec<_> = seen.strays.iter().filter(|state| is_ours(record, state)).collect();
    let found = match (ours.as_slice(), seen.strays.as_slice()) {
        ([one, ..], _) => *one,
        // The pod gave it an address of its own; nothing else is on that function.
        ([], [one]) if record.device.pci.is_some() => one,
        _ => return Settlement::Lost,
    };
    let from = At { place: Place::Host, interface: found.name.clone() };
    let to = journey::on_host(record);
    let mut steps = vec![Step::SetDown { at: from.clone() }, Step::Move { from, to }];
    steps.extend(journey::restore(record));
    Settlement::Free(steps)
}

/// Whether an interface that was found by name is the one that the record is about: the name alone
/// proves nothing, since anybody may use it.
fn is_ours(record: &Record, state: &InterfaceState) -> bool {
    let given = record.wishes.interface.mac.or(record.before.mac);
    state.mac.is_some() && (state.mac == given || state.mac == record.before.mac)
}

/// The same for one that has its old name on the host: there its index tells as well, as long as it
/// has not been away. Names of sub-interfaces are of our own making.
fn is_ours_on_host(record: &Record, state: &InterfaceState) -> bool {
    record.subinterface.is_some() || state.index == record.before.index || is_ours(record, state)
}

/// Brings the datapath of an interface that is on the host to this build, whole.
fn adopt(record: &Record, seen: &Seen, build: &BuildId) -> Vec<Step> {
    let Some(spec) = &record.datapath else {
        return Vec::new();
    };
    match seen.datapath {
        DatapathState::Attached => refresh(record, None, seen, build),
        DatapathState::Absent | DatapathState::Broken => vec![
            Step::RemoveDatapath { id: spec.id.clone() },
            Step::InstallDatapath { spec: spec.clone(), interface: record.before.name.clone() },
        ],
    }
}

/// Brings the programs of a datapath that works to this build. One that is broken cannot be mended
/// while its interface is in a pod; `observe` tells so and the driver reports it. Filters are put
/// again in any case: the pod may have removed them.
fn refresh(
    record: &Record,
    inside: Option<&InterfaceState>,
    seen: &Seen,
    build: &BuildId,
) -> Vec<Step> {
    if seen.datapath != DatapathState::Attached {
        return Vec::new();
    }
    if record.build != *build {
        return journey::replace(record, inside);
    }
    journey::put_filters(record, inside).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IfIndex, IngressHook, MacAddr};
    use crate::testing::netns;

    const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
    const POD_MAC: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

    fn interface(name: &str, mac: MacAddr) -> InterfaceState {
        let before = attached().before;
        InterfaceState { name: name.parse().unwrap(), mac: Some(mac), ..before }
    }

    fn attached() -> Record {
        let phase = Phase::Attached { netns: netns(100), inside: IfIndex(7) };
        let mut record = crate::testing::record("eth1", Some(IngressHook::Tcx), phase);
        record.wishes.interface.name = Some("net1".parse().unwrap());
        record.wishes.interface.mac = Some(POD_MAC);
        record
    }

    fn nothing_seen() -> Seen {
        Seen {
            on_host: None,
            in_pod: None,
            strays: Vec::new(),
            datapath: DatapathState::Attached,
            is_namespace_there: true,
            is_rdma_home: false,
        }
    }

    fn settled(record: &Record, seen: &Seen) -> Settlement {
        settle(record, seen, &BuildId("new".to_owned()))
    }

    #[test]
    fn what_is_in_its_pod_stays_there_with_new_programs() {
        let seen = Seen { in_pod: Some(interface("net1", POD_MAC)), ..nothing_seen() };
        let Settlement::Keep(steps) = settled(&attached(), &seen) else { panic!() };
        assert!(matches!(steps[..], [Step::ReplaceDatapath { .. }]));
    }

    #[test]
    fn filters_are_put_again_at_every_start() {
        let record = attached();
        let spec = crate::testing::spec(record.id(), IngressHook::Clsact);
        let record = Record { datapath: Some(spec), ..record };
        let seen = Seen { in_pod: Some(interface("net1", POD_MAC)), ..nothing_seen() };
        let kinds = |build: &str, seen: &Seen| -> Vec<_> {
            let build = BuildId(build.to_owned());
            let Settlement::Keep(steps) = settle(&record, seen, &build) else { panic!() };
            steps.iter().map(Step::kind).collect()
        };
        assert_eq!(kinds("old", &seen), ["attach_filters"]);
        assert_eq!(kinds("new", &seen), ["replace_datapath", "attach_filters"]);
        // What is broken has no programs to put there.
        let broken = Seen { datapath: DatapathState::Broken, ..seen };
        assert_eq!(kinds("new", &broken), [""; 0]);
    }

    #[test]
    fn hardware_that_fell_back_under_its_pod_name_gets_its_own_name_again() {
        for mac in [POD_MAC, HOST_MAC] {
            let seen = Seen { strays: vec![interface("net1", mac)], ..nothing_seen() };
            let Settlement::Free(steps) = settled(&attached(), &seen) else { panic!() };
            let Step::Move { from, to } = &steps[1] else { panic!("{steps:?}") };
            assert_eq!((from.interface.as_str(), to.interface.as_str()), ("net1", "eth1"));
        }
    }

    #[test]
    fn an_interface_of_the_pods_own_is_not_taken_for_ours() {
        let phase = Phase::Attaching { netns: netns(100) };
        let record = Record { phase, ..attached() };
        let other = interface("net1", MacAddr([2, 0, 0, 0, 5, 5]));
        let home = interface("eth1", HOST_MAC);
        let seen = Seen { in_pod: Some(other), on_host: Some(home), ..nothing_seen() };
        assert_eq!(settled(&record, &seen), Settlement::Free(journey::restore(&record)));
    }

    #[test]
    fn a_new_interface_of_the_old_name_on_the_host_is_not_taken_for_ours() {
        let mut other = interface("eth1", MacAddr([2, 0, 0, 0, 5, 5]));
        other.index = IfIndex(70);
        let seen = Seen { on_host: Some(other), ..nothing_seen() };
        assert_eq!(settled(&attached(), &seen), Settlement::Lost);
    }

    #[test]
    fn somebody_elses_interface_of_the_pod_name_is_left_alone() {
        let other = MacAddr([2, 0, 0, 0, 5, 5]);
        let seen = Seen { strays: vec![interface("net1", other)], ..nothing_seen() };
        assert_eq!(settled(&attached(), &seen), Settlement::Lost);
    }

    #[test]
    fn a_prepared_device_with_a_broken_datapath_gets_a_whole_one() {
        let record = Record { phase: Phase::Prepared, ..attached() };
        let seen = Seen {
            on_host: Some(interface("eth1", HOST_MAC)),
            datapath: DatapathState::Broken,
            ..nothing_seen()
        };
        let Settlement::Keep(steps) = settled(&record, &seen) else { panic!() };
        assert!(matches!(steps[..], [Step::RemoveDatapath { .. }, Step::InstallDatapath { .. }]));
    }

    #[test]
    fn hardware_is_found_again_under_any_name_by_its_place_on_the_bus() {
        let mut record = attached();
        let other = MacAddr([2, 0, 0, 0, 5, 5]);
        let seen = Seen { strays: vec![interface("dev3", other)], ..nothing_seen() };
        assert_eq!(settled(&record, &seen), Settlement::Lost, "nobody knows what it is");

        record.device.pci = Some(crate::model::PciFacts {
            address: "0000:3b:00.0".parse().unwrap(),
            root: "pci0000:3a".to_owned(),
            vendor: None,
            device: None,
            subsystem: None,
        });
        let Settlement::Free(steps) = settled(&record, &seen) else { panic!() };
        assert!(matches!(&steps[1], Step::Move { from, .. } if from.interface.as_str() == "dev3"));

        let two = vec![interface("dev3", other), interface("dev4", HOST_MAC)];
        let Settlement::Free(steps) = settled(&record, &Seen { strays: two, ..seen }) else {
            panic!()
        };
        assert!(matches!(&steps[1], Step::Move { from, .. } if from.interface.as_str() == "dev4"));
    }
}
