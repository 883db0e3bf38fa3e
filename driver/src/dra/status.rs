//! Tells in the claims' status what became of their devices.
//!
//! Each of our entries is applied under the driver's name as field manager, so other drivers' entries
//! for the same claim stay untouched. An apply that names all our entries of a claim replaces what
//! we said before; the API server drops entries itself when a claim is deallocated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::resource::v1::{AllocatedDeviceStatus, NetworkDeviceData, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::API_TIMEOUT;
use super::error::api_text;
use crate::model::{AttachmentId, ClaimRef, DatapathSpec, Origin, Record};
use crate::telemetry::{Sighting, Sightings};

/// How often one claim's status is tried. What fails for longer is logged and given up: the status
/// informs, nothing depends on it.
const ATTEMPTS: u32 = 5;

/// The pause after the first attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long what is still queued may take when the driver stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Addresses in one entry at most (`api/resource/v1`, Kubernetes 1.36).
const MAX_ADDRESSES: usize = 16;

/// Writes the status of claims whose devices were attached, or are not as they were.
pub struct StatusWriter {
    driver: String,
    client: Client,
    attached: UnboundedReceiver<Vec<Record>>,
    sightings: watch::Receiver<Sightings>,
    present: watch::Receiver<Arc<Vec<Record>>>,
    /// When each attachment was first told of: its readiness is as old, as far as this driver knows.
    told: BTreeMap<AttachmentId, Timestamp>,
}

impl StatusWriter {
    /// `attached` brings all records of one pod, or of one claim, at a time, so a claim's records
    /// come together. `present` is all that is recorded.
    pub fn new(
        driver: &str,
        client: Client,
        attached: UnboundedReceiver<Vec<Record>>,
        sightings: watch::Receiver<Sightings>,
        present: watch::Receiver<Arc<Vec<Record>>>,
    ) -> Self {
        let (driver, told) = (driver.to_owned(), BTreeMap::new());
        Self { driver, client, attached, sightings, present, told }
    }

    /// Writes until the queue's other end is gone or `shutdown`; then it writes what is queued, as far
    /// as that goes within seconds.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut unfinished = Vec::new();
        while let Some(Some(records)) = shutdown.run_until_cancelled(self.attached.recv()).await {
            if shutdown.run_until_cancelled(self.report(&records)).await.is_none() {
                unfinished = records;
            }
        }
        self.attached.close();
        let rest = async {
            self.report(&unfinished).await;
            while let Some(records) = self.attached.recv().await {
                self.report(&records).await;
            }
        };
        if timeout(LAST_WORDS, rest).await.is_err() {
            tracing::warn!("claim statuses were left unwritten at the end");
        }
    }

    async fn report(&mut self, records: &[Record]) {
        let now = Timestamp::now();
        let sightings = self.sightings.borrow().clone();
        let present = Arc::clone(&self.present.borrow());
        self.told.retain(|id, _| present.iter().any(|record| record.id() == *id));
        for (claim, records) in by_claim(records) {
            let entries = records.iter().map(|record| {
                let id = record.id();
                let sighting = sightings.get(&id);
                let ready = *self.told.entry(id).or_insert(now);
                entry(record, &self.driver, &Since { ready, now, sighting })
            });
            let body = status(claim, &entries.collect::<Vec<_>>());
            match self.apply(claim, &body).await {
                Ok(()) => tracing::debug!(%claim, "claim status written"),
                Err(error) => tracing::warn!(%claim, error, "claim status not written"),
            }
        }
    }

    async fn apply(&self, claim: &ClaimRef, body: &Value) -> Result<(), String> {
        let api = Api::<ResourceClaim>::namespaced(self.client.clone(), &claim.namespace);
        let params = PatchParams::apply(&self.driver).force();
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let patch = Patch::Apply(body);
            let request = api.patch_status(&claim.name, &params, &patch);
            let message = match timeout(API_TIMEOUT, request).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if is_final(&error) => return Err(api_text(&error)),
                Ok(Err(error)) => api_text(&error),
                Err(_) => "no answer from the API server".to_owned(),
            };
            if attempt == ATTEMPTS {
                return Err(message);
            }
            sleep(pause).await;
            pause *= 2;
        }
        Ok(())
    }
}

/// Whether asking again would be answered the same. A conflict is: forced apply knows only one, the
/// claim of that UID is gone.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// The records of each claim, in the order in which the claims first appear.
fn by_claim(records: &[Record]) -> Vec<(&ClaimRef, Vec<&Record>)> {
    let mut claims: Vec<(&ClaimRef, Vec<&Record>)> = Vec::new();
    for record in records {
        match claims.iter_mut().find(|(claim, _)| **claim == record.claim) {
            Some((_, of_claim)) => of_claim.push(record),
            None => claims.push((&record.claim, vec![record])),
        }
    }
    claims
}

/// What is applied to the claim's status. Names the UID, so that a later claim of the same name is
/// refused rather than told of devices that are not its own.
fn status(claim: &ClaimRef, devices: &[AllocatedDeviceStatus]) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": claim.name, "namespace": claim.namespace, "uid": claim.uid},
        "status": {"devices": devices},
    })
}

/// When things became as they are.
struct Since<'a> {
    ready: Timestamp,
    now: Timestamp,
    /// `None` where nobody has looked yet.
    sighting: Option<&'a Sighting>,
}

fn entry(record: &Record, driver: &str, since: &Since<'_>) -> AllocatedDeviceStatus {
    let interface = &record.wishes.interface;
    let addresses = interface.addresses.as_ref().unwrap_or(&record.before.addresses);
    let mut ips: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    ips.sort();
    ips.dedup();
    ips.truncate(MAX_ADDRESSES);
    let name = record.pod_interface();
    let ready = Finding {
        what: "Ready",
        is: Some(true),
        reason: "NetworkDeviceReady",
        message: format!("{name} is in pod {}", record.pod),
        since: since.ready,
    };
    let mut findings = vec![ready];
    if let Some(spec) = &record.datapath {
        findings.extend([degraded(spec, since), tampered(spec, since)]);
    }
    AllocatedDeviceStatus {
        driver: driver.to_owned(),
        pool: record.pool.clone(),
        device: record.device.name.to_string(),
        conditions: Some(findings.into_iter().map(Finding::into_condition).collect()),
        network_data: Some(NetworkDeviceData {
            interface_name: Some(name.to_string()),
            hardware_address: interface.mac.or(record.before.mac).map(|mac| mac.to_string()),
            ips: (!ips.is_empty()).then_some(ips),
        }),
        data: record.datapath.as_ref().map(|spec| RawExtension(datapath(spec))),
        share_id: None,
    }
}

/// One condition of a device.
struct Finding {
    what: &'static str,
    /// `None` where nobody can tell.
    is: Option<bool>,
    reason: &'static str,
    message: String,
    since: Timestamp,
}

impl Finding {
    fn into_condition(self) -> Condition {
        let status = match self.is {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        Condition {
            type_: self.what.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            last_transition_time: Time(self.since),
            observed_generation: None,
        }
    }
}

/// Whether the programs sit where the pod could remove them.
fn degraded(spec: &DatapathSpec, since: &Since<'_>) -> Finding {
    let is = spec.is_degraded();
    Finding {
        what: "DatapathDegraded",
        is: Some(is),
        reason: if is { "KernelWithoutTCX" } else { "AttachedByLinks" },
        message: spec.explanation(),
        since: since.ready,
    }
}

/// Whether programs of others run before ours.
fn tampered(spec: &DatapathSpec, since: &Since<'_>) -> Finding {
    let ahead = since.sighting.map(|sighting| &sighting.ahead);
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
    let at = |sighting: &Sighting| Timestamp::try_from(sighting.since).unwrap_or(since.now);
    let since = since.sighting.map_or(since.ready, at);
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
    use std::time::SystemTime;

    use crate::model::{Ahead, HookReason, IngressHook};

    fn at_epoch(sighting: Option<&Sighting>) -> Since<'_> {
        Since { ready: Timestamp::UNIX_EPOCH, now: Timestamp::UNIX_EPOCH, sighting }
    }

    fn condition(record: &Record, sighting: Option<&Sighting>, what: &str) -> Condition {
        let conditions = entry(record, "weir.dev", &at_epoch(sighting)).conditions.unwrap();
        conditions.into_iter().find(|condition| condition.type_ == what).unwrap()
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

        let entry = entry(&attached, "weir.dev", &at_epoch(None));
        let body = status(&attached.claim, &[entry]);

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

        let tampered = condition(&with_datapath(IngressHook::Tcx), Some(&sighting), "Tampered");

        assert_eq!((tampered.status.as_str(), tampered.reason.as_str()), ("True", "ProgramsAhead"));
        assert_eq!(tampered.message, "programs of others run before ours: ingress: spy");
        assert_eq!(tampered.last_transition_time.0.as_second(), 60);
    }

    #[test]
    fn nothing_is_said_to_be_as_it_should_before_somebody_has_looked() {
        let record = with_datapath(IngressHook::Tcx);
        let said = |sighting| {
            let Condition { status, reason, .. } = condition(&record, sighting, "Tampered");
            format!("{status} {reason}")
        };
        let nothing = Sighting { ahead: Ahead::NOTHING, since: SystemTime::UNIX_EPOCH };
        assert_eq!(said(None), "Unknown NotWatched");
        assert_eq!(said(Some(&nothing)), "False NoProgramsAhead");
        let one_way =
            Sighting { ahead: Ahead { egress: None, ..Ahead::NOTHING }, ..nothing.clone() };
        assert_eq!(said(Some(&one_way)), "Unknown NotWatched");
    }

    #[test]
    fn clsact_is_degraded_and_nobody_knows_whether_it_is_tampered_with() {
        let record = with_datapath(IngressHook::Clsact);
        let degraded = condition(&record, None, "DatapathDegraded");
        assert_eq!(
            (degraded.status.as_str(), degraded.reason.as_str()),
            ("True", "KernelWithoutTCX")
        );
        assert_eq!(condition(&record, None, "Tampered").status, "Unknown");
    }

    #[test]
    fn what_nobody_wished_is_as_it_was_on_the_host() {
        let mut attached = record(device("eth1"));
        attached.before.addresses =
            (0..20).map(|n| format!("10.0.{n}.1/24").parse().unwrap()).collect();

        let entry = entry(&attached, "weir.dev", &at_epoch(None));

        let data = entry.network_data.unwrap();
        assert_eq!(data.interface_name.as_deref(), Some("eth1"));
        assert_eq!(data.ips.unwrap().len(), MAX_ADDRESSES);
        assert_eq!(entry.data, None, "no datapath, nothing to tell of one");
        assert_eq!(entry.conditions.unwrap().len(), 1);
    }

    #[test]
    fn each_claim_is_told_of_all_its_devices_at_once() {
        let mut other = record(device("eth2"));
        other.claim.name = "more".to_owned();
        let records = [record(device("eth1")), other, record(device("eth3"))];
        let sizes: Vec<_> = by_claim(&records).iter().map(|(_, records)| records.len()).collect();
        assert_eq!(sizes, [2, 1]);
    }
}
