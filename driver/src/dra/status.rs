//! Tells in the claims' status what became of their devices.
//!
//! Each of our entries is applied under the driver's name as field manager, so other drivers' entries
//! for the same claim stay untouched. An apply that names all our entries of a claim replaces what
//! we said before; the API server drops entries itself when a claim is deallocated.

use std::time::Duration;

use k8s_openapi::api::resource::v1::{AllocatedDeviceStatus, NetworkDeviceData, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::API_TIMEOUT;
use super::error::api_text;
use crate::model::{ClaimRef, Record};

/// How often one claim's status is tried. What fails for longer is logged and given up: the status
/// informs, nothing depends on it.
const ATTEMPTS: u32 = 5;

/// The pause after the first attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long what is still queued may take when the driver stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Addresses in one entry at most (`api/resource/v1`, Kubernetes 1.36).
const MAX_ADDRESSES: usize = 16;

/// Writes the status of claims whose devices were attached.
pub struct StatusWriter {
    driver: String,
    client: Client,
    attached: UnboundedReceiver<Vec<Record>>,
}

impl StatusWriter {
    /// `attached` brings all records of one pod at a time, so a claim's records come together.
    pub fn new(driver: &str, client: Client, attached: UnboundedReceiver<Vec<Record>>) -> Self {
        Self { driver: driver.to_owned(), client, attached }
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

    async fn report(&self, records: &[Record]) {
        let now = Timestamp::now();
        for (claim, records) in by_claim(records) {
            let body = status(claim, &records, &self.driver, now);
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
fn status(claim: &ClaimRef, records: &[&Record], driver: &str, now: Timestamp) -> Value {
    let devices: Vec<_> = records.iter().map(|record| entry(record, driver, now)).collect();
    json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": claim.name, "namespace": claim.namespace, "uid": claim.uid},
        "status": {"devices": devices},
    })
}

fn entry(record: &Record, driver: &str, now: Timestamp) -> AllocatedDeviceStatus {
    let interface = &record.wishes.interface;
    let addresses = interface.addresses.as_ref().unwrap_or(&record.before.addresses);
    let mut ips: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    ips.sort();
    ips.dedup();
    ips.truncate(MAX_ADDRESSES);
    let name = record.pod_interface();
    AllocatedDeviceStatus {
        driver: driver.to_owned(),
        pool: record.pool.clone(),
        device: record.device.name.to_string(),
        conditions: Some(vec![Condition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: "NetworkDeviceReady".to_owned(),
            message: format!("{name} is in pod {}", record.pod),
            last_transition_time: Time(now),
            observed_generation: None,
        }]),
        network_data: Some(NetworkDeviceData {
            interface_name: Some(name.to_string()),
            hardware_address: interface.mac.or(record.before.mac).map(|mac| mac.to_string()),
            ips: (!ips.is_empty()).then_some(ips),
        }),
        data: record.datapath.as_ref().map(|datapath| {
            let (ingress, telemetry) = (datapath.ingress.name(), datapath.telemetry);
            RawExtension(json!({"datapath": {
                "ingress": ingress,
                "telemetry": telemetry,
                "filter": datapath.filter.is_some(),
            }}))
        }),
        share_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, record};
    use crate::model::{DatapathSpec, IngressHook, Telemetry};

    fn epoch() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    #[test]
    fn an_entry_tells_what_the_pod_got() {
        let mut attached = record(device("eth1"));
        attached.wishes.interface.name = Some("net1".parse().unwrap());
        attached.wishes.interface.addresses = Some(vec!["10.0.0.2/24".parse().unwrap()]);
        attached.datapath = Some(crate::testing::spec(attached.id(), IngressHook::Xdp));

        let body = status(&attached.claim, &[&attached], "weir.dev", epoch());

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
                        "message": "net1 is in pod default/pod-a",
                        "lastTransitionTime": "1970-01-01T00:00:00Z",
                    }],
                    "networkData": {
                        "interfaceName": "net1",
                        "hardwareAddress": "02:00:00:00:00:07",
                        "ips": ["10.0.0.2/24"],
                    },
                    "data": {"datapath": {
                        "ingress": "xdp", "telemetry": "counters", "filter": false,
                    }},
                }]},
            })
        );
    }

    #[test]
    fn what_nobody_wished_is_as_it_was_on_the_host() {
        let mut attached = record(device("eth1"));
        attached.before.addresses =
            (0..20).map(|n| format!("10.0.{n}.1/24").parse().unwrap()).collect();

        let entry = entry(&attached, "weir.dev", epoch());

        let data = entry.network_data.unwrap();
        assert_eq!(data.interface_name.as_deref(), Some("eth1"));
        assert_eq!(data.ips.unwrap().len(), MAX_ADDRESSES);
        assert_eq!(entry.data, None, "no datapath, nothing to tell of one");
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
