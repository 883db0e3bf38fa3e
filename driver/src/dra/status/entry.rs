//! From what is recorded and was seen of a claim's devices to their entries in its status.

use k8s_openapi::api::resource::v1::{AllocatedDeviceStatus, NetworkDeviceData};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::model::{ClaimRef, DatapathSpec, Origin, Phase, Record, ShareId};
use crate::telemetry::Sighting;

/// Addresses in one entry at most (`api/resource/v1`, Kubernetes 1.36).
const MAX_ADDRESSES: usize = 16;

/// Conditions take 32 KiB of text; what is longer than this helps nobody.
const LONGEST_MESSAGE: usize = 1024;

/// Everything that one device's entry is made from.
pub(super) struct Facts<'a> {
    pub(super) record: &'a Record,
    /// `None` where nobody has looked yet.
    pub(super) sighting: Option<&'a Sighting>,
    /// Why it is not in its pod, where that was tried.
    pub(super) failure: Option<&'a str>,
    /// What the claim's status says of it now.
    pub(super) before: Option<&'a AllocatedDeviceStatus>,
    pub(super) now: Timestamp,
}

/// What is applied to the claim's status. Names the UID, so that a later claim of the same name is
/// refused rather than told of devices that are not its own.
pub(super) fn status(claim: &ClaimRef, devices: &[AllocatedDeviceStatus]) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": claim.name, "namespace": claim.namespace, "uid": claim.uid},
        "status": {"devices": devices},
    })
}

/// Whether `entry` is about the device, or the share, that `record` is of.
pub(super) fn is_of(entry: &AllocatedDeviceStatus, record: &Record) -> bool {
    let share = record.share.as_ref().map(ShareId::as_str);
    entry.pool == record.pool
        && entry.device == record.device.name.as_str()
        && entry.share_id.as_deref() == share
}

/// A condition that stays what it was keeps the time at which it became so.
pub(super) fn entry(facts: &Facts<'_>, driver: &str) -> AllocatedDeviceStatus {
    let record = facts.record;
    let ready = ready(facts);
    let is_inside = ready.is == Some(true);
    let restored = restored(record, ready.reason);
    let mut findings = vec![ready];
    findings.extend(restored);
    if let Some(spec) = record.datapath.as_ref().filter(|_| is_inside) {
        findings.extend([degraded(spec), tampered(spec, facts.sighting)]);
    }
    let conditions = findings.into_iter().map(|finding| finding.into_condition(facts));
    AllocatedDeviceStatus {
        driver: driver.to_owned(),
        pool: record.pool.clone(),
        device: record.device.name.to_string(),
        conditions: Some(conditions.collect()),
        network_data: (is_inside && record.has_interface()).then(|| network_data(record)),
        data: record.datapath.as_ref().map(|spec| RawExtension(datapath(spec))),
        share_id: record.share.as_ref().map(ToString::to_string),
    }
}

fn network_data(record: &Record) -> NetworkDeviceData {
    let interface = &record.wishes.interface;
    let addresses = match &interface.addresses {
        Some(addresses) => addresses.as_slice(),
        None if interface.inherit.has_addresses() => &record.before.addresses,
        None => &[],
    };
    let lent = record.lease.iter().map(|lease| lease.address.to_string());
    let mut ips: Vec<_> = lent.chain(addresses.iter().map(ToString::to_string)).collect();
    ips.sort();
    ips.dedup();
    ips.truncate(MAX_ADDRESSES);
    NetworkDeviceData {
        interface_name: Some(record.pod_interface().to_string()),
        hardware_address: record.pod_mac().map(|mac| mac.to_string()),
        ips: (!ips.is_empty()).then_some(ips),
    }
}

/// One condition of a device.
struct Finding {
    what: &'static str,
    /// `None` where nobody can tell.
    is: Option<bool>,
    reason: &'static str,
    message: String,
    /// When it became so, where that is known.
    since: Option<Timestamp>,
}

impl Finding {
    fn into_condition(self, facts: &Facts<'_>) -> Condition {
        let status = match self.is {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let same = condition(facts.before, self.what).filter(|before| before.status == status);
        let since = self.since.unwrap_or(facts.now);
        let mut message = self.message;
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        Condition {
            type_: self.what.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message,
            last_transition_time: same
                .map_or(Time(since), |before| before.last_transition_time.clone()),
            observed_generation: None,
        }
    }
}

fn condition<'a>(entry: Option<&'a AllocatedDeviceStatus>, what: &str) -> Option<&'a Condition> {
    entry?.conditions.iter().flatten().find(|condition| condition.type_ == what)
}

const READY: &str = "Ready";
const DETACHED: &str = "Detached";

/// Whether the device is where its claim wants it.
fn ready(facts: &Facts<'_>) -> Finding {
    let Record { phase, pod, device, .. } = facts.record;
    let name = facts.record.called();
    let before = condition(facts.before, READY);
    let was_inside = before.is_some_and(|it| it.status == "True" || it.reason == DETACHED);
    let (is, reason, message) = match (phase, facts.failure) {
        (Phase::Attached { .. }, _) => {
            (true, "NetworkDeviceReady", format!("{name} is in pod {pod}"))
        }
        (_, Some(failure)) => (false, "AttachFailed", failure.to_owned()),
        (Phase::Attaching { .. }, _) => {
            (false, "Attaching", format!("{name} is on its way into pod {pod}"))
        }
        (Phase::Detaching { .. }, _) => {
            (false, "Detaching", format!("{name} has not come back from pod {pod} yet"))
        }
        (Phase::Prepared | Phase::Unpreparing, _) if was_inside => {
            (false, DETACHED, format!("{} is no longer in pod {pod}", device.called()))
        }
        (Phase::Preparing | Phase::Prepared | Phase::Unpreparing, _) => {
            (false, "Prepared", format!("{} waits for pod {pod}", device.called()))
        }
    };
    Finding { what: READY, is: Some(is), reason, message, since: None }
}

/// Whether the host has back what it had; only of a device that came back.
fn restored(record: &Record, ready: &str) -> Option<Finding> {
    let (is, reason, message) = if !record.residue.is_empty() {
        (false, "Residue", format!("could not be put back: {}", record.residue.join("; ")))
    } else if ready == DETACHED {
        (true, "Restored", "everything is on the host as it was".to_owned())
    } else {
        return None;
    };
    Some(Finding { what: "HostRestored", is: Some(is), reason, message, since: None })
}

/// Whether the programs sit where the pod could remove them.
fn degraded(spec: &DatapathSpec) -> Finding {
    let is = spec.is_degraded();
    Finding {
        what: "DatapathDegraded",
        is: Some(is),
        reason: if is { "KernelWithoutTCX" } else { "AttachedByLinks" },
        message: spec.explanation(),
        since: None,
    }
}

/// Whether programs of others run before ours.
fn tampered(spec: &DatapathSpec, sighting: Option<&Sighting>) -> Finding {
    let ahead = sighting.map(|sighting| &sighting.ahead);
    let (is, reason, message) = match ahead {
        Some(ahead) if ahead.is_any() => {
            (Some(true), "ProgramsAhead", format!("programs of others run before ours: {ahead}"))
        }
        _ if spec.is_degraded() => {
            (None, "NotWatched", "the order of filters at clsact is not watched".to_owned())
        }
        Some(ahead) if ahead.is_watched() => {
            (Some(false), "NoProgramsAhead", "no program runs before ours".to_owned())
        }
        _ => (None, "NotWatched", "nobody has been able to look yet".to_owned()),
    };
    let since = sighting.and_then(|sighting| Timestamp::try_from(sighting.since).ok());
    Finding { what: "Tampered", is, reason, message, since }
}

/// What conditions do not say.
fn datapath(spec: &DatapathSpec) -> Value {
    let filter = spec.filter.iter();
    let directions = filter.flat_map(|it| it.ingress.iter().chain(&it.egress));
    let of_operator = directions
        .flat_map(|direction| &direction.rules)
        .filter(|rule| rule.origin == Origin::Operator);
    json!({"datapath": {
        "ingress": spec.ingress.name(),
        "egress": spec.egress.name(),
        "reason": spec.why.name(),
        "degraded": spec.is_degraded(),
        "telemetry": spec.telemetry,
        "filter": spec.filter.is_some(),
        "generation": spec.generation,
        "operatorRules": of_operator.count(),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, record};
    use std::time::{Duration, SystemTime};

    use crate::model::{Ahead, HookReason, IngressHook};

    fn facts(record: &Record) -> Facts<'_> {
        let now = Timestamp::UNIX_EPOCH;
        Facts { record, sighting: None, failure: None, before: None, now }
    }

    fn told(facts: &Facts<'_>) -> AllocatedDeviceStatus {
        entry(facts, "weir.dev")
    }

    fn found(facts: &Facts<'_>, what: &str) -> Condition {
        condition(Some(&told(facts)), what).unwrap().clone()
    }

    fn said(facts: &Facts<'_>, what: &str) -> String {
        let Condition { status, reason, .. } = found(facts, what);
        format!("{status} {reason}")
    }

    fn prepared() -> Record {
        Record { phase: Phase::Prepared, ..with_datapath(IngressHook::Tcx) }
    }

    fn with_datapath(ingress: IngressHook) -> Record {
        let mut attached = record(device("eth1"));
        let spec = crate::testing::spec(attached.id(), ingress);
        attached.datapath = Some(DatapathSpec { why: HookReason::Wished, ..spec });
        attached
    }

    #[test]
    fn an_entry_tells_what_the_pod_got() {
        let mut attached = with_datapath(IngressHook::Xdp);
        attached.wishes.interface.name = Some("net1".parse().unwrap());
        attached.wishes.interface.addresses = Some(vec!["10.0.0.2/24".parse().unwrap()]);

        let body = status(&attached.claim, &[told(&facts(&attached))]);

        let time = "1970-01-01T00:00:00Z";
        assert_eq!(
            body,
            json!({
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaim",
                "metadata": {"name": "nics", "namespace": "default", "uid": "c1"},
                "status": {"devices": [{
                    "driver": "weir.dev", "pool": "node-a", "device": "eth1",
                    "conditions": [{
                        "type": "Ready", "status": "True", "reason": "NetworkDeviceReady",
                        "message": "net1 is in pod default/pod-a", "lastTransitionTime": time,
                    }, {
                        "type": "DatapathDegraded", "status": "False", "reason": "AttachedByLinks",
                        "message": "ingress by xdp, because the claim asks for it; egress by tcx",
                        "lastTransitionTime": time,
                    }, {
                        "type": "Tampered", "status": "Unknown", "reason": "NotWatched",
                        "message": "nobody has been able to look yet", "lastTransitionTime": time,
                    }],
                    "networkData": {
                        "interfaceName": "net1",
                        "hardwareAddress": "02:00:00:00:00:07",
                        "ips": ["10.0.0.2/24"],
                    },
                    "data": {"datapath": {
                        "ingress": "xdp", "egress": "tcx", "reason": "wished", "degraded": false,
                        "telemetry": "counters", "filter": false, "generation": 1,
                        "operatorRules": 0,
                    }},
                }]},
            })
        );
    }

    #[test]
    fn who_runs_before_us_is_named_with_the_time() {
        let ahead = Ahead { ingress: Some(vec!["spy".to_owned()]), ..Ahead::NOTHING };
        let since = SystemTime::UNIX_EPOCH + Duration::from_mins(1);
        let sighting = Sighting { ahead, since };
        let record = with_datapath(IngressHook::Tcx);

        let tampered = found(&Facts { sighting: Some(&sighting), ..facts(&record) }, "Tampered");

        assert_eq!((tampered.status.as_str(), tampered.reason.as_str()), ("True", "ProgramsAhead"));
        assert_eq!(tampered.message, "programs of others run before ours: ingress: spy");
        assert_eq!(tampered.last_transition_time.0.as_second(), 60);
    }

    #[test]
    fn nothing_is_said_to_be_as_it_should_before_somebody_has_looked() {
        let record = with_datapath(IngressHook::Tcx);
        let seen = |sighting| said(&Facts { sighting, ..facts(&record) }, "Tampered");
        let nothing = Sighting { ahead: Ahead::NOTHING, since: SystemTime::UNIX_EPOCH };
        assert_eq!(seen(None), "Unknown NotWatched");
        assert_eq!(seen(Some(&nothing)), "False NoProgramsAhead");
        let one_way =
            Sighting { ahead: Ahead { egress: None, ..Ahead::NOTHING }, ..nothing.clone() };
        assert_eq!(seen(Some(&one_way)), "Unknown NotWatched");
    }

    #[test]
    fn clsact_is_degraded_and_nobody_knows_whether_it_is_tampered_with() {
        let record = with_datapath(IngressHook::Clsact);
        assert_eq!(said(&facts(&record), "DatapathDegraded"), "True KernelWithoutTCX");
        assert_eq!(said(&facts(&record), "Tampered"), "Unknown NotWatched");
    }

    #[test]
    fn a_failed_attach_says_why() {
        let record = prepared();
        let failed = Facts { failure: Some("eth1: out of time"), ..facts(&record) };
        let ready = found(&failed, "Ready");
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "AttachFailed"));
        assert_eq!(ready.message, "eth1: out of time");
        assert_eq!(told(&failed).network_data, None, "nothing is in the pod");
        assert_eq!(condition(Some(&told(&failed)), "Tampered"), None);
    }

    #[test]
    fn after_the_pods_end_a_device_is_detached_and_tells_what_was_not_put_back() {
        let attached = with_datapath(IngressHook::Tcx);
        let before = told(&facts(&attached));
        let mut back = prepared();
        let ended = Facts { before: Some(&before), ..facts(&back) };
        assert_eq!(said(&ended, "Ready"), "False Detached");
        assert_eq!(said(&ended, "HostRestored"), "True Restored");
        let detached = told(&ended);

        back.residue = vec!["mtu 1500".to_owned(), "address 10.0.0.7/24".to_owned()];
        let again = Facts { before: Some(&detached), ..facts(&back) };
        assert_eq!(said(&again, "Ready"), "False Detached");
        let restored = found(&again, "HostRestored");
        assert_eq!((restored.status.as_str(), restored.reason.as_str()), ("False", "Residue"));
        assert_eq!(restored.message, "could not be put back: mtu 1500; address 10.0.0.7/24");
    }

    #[test]
    fn what_was_never_in_a_pod_is_not_said_to_have_left_one() {
        let record = prepared();
        assert_eq!(said(&facts(&record), "Ready"), "False Prepared");
        assert_eq!(condition(Some(&told(&facts(&record))), "HostRestored"), None);
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let attached = with_datapath(IngressHook::Tcx);
        let before = told(&facts(&attached));
        let now = Timestamp::from_second(3600).unwrap();
        let time = |record: &Record| {
            let later = Facts { before: Some(&before), now, ..facts(record) };
            found(&later, "Ready").last_transition_time.0.as_second()
        };
        assert_eq!(time(&attached), 0);
        assert_eq!(time(&prepared()), 3600);
    }

    #[test]
    fn a_share_is_an_entry_of_its_own() {
        let mut shared = with_datapath(IngressHook::Tcx);
        let whole = told(&facts(&shared));
        shared.share = Some("s1".parse().unwrap());
        let entry = told(&facts(&shared));
        assert_eq!(entry.share_id.as_deref(), Some("s1"));
        assert!(is_of(&entry, &shared) && !is_of(&whole, &shared));
    }

    #[test]
    fn what_nobody_wished_is_as_it_was_on_the_host() {
        let mut attached = record(device("eth1"));
        attached.before.addresses =
            (0..20).map(|n| format!("10.0.{n}.1/24").parse().unwrap()).collect();

        let entry = told(&facts(&attached));

        let data = entry.network_data.unwrap();
        assert_eq!(data.interface_name.as_deref(), Some("eth1"));
        assert_eq!(data.ips.unwrap().len(), MAX_ADDRESSES);
        assert_eq!(entry.data, None, "no datapath, nothing to tell of one");
        assert_eq!(entry.conditions.unwrap().len(), 1);
    }
}
