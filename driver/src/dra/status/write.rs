//! Writes one claim's status, if it does not say already what is to be said.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::resource::v1::{AllocatedDeviceStatus, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::time::{sleep, timeout};

use super::desk::Known;
use super::entry::{Facts, entry, is_of, status};
use crate::dra::API_TIMEOUT;
use crate::dra::error::{api_text, is_final};
use crate::model::{AttachmentId, Phase, Record, ShareId};
use crate::telemetry::Sighting;

/// How often one request is tried. What fails for longer is logged and given up: the status informs,
/// nothing depends on it.
const ATTEMPTS: u32 = 5;

/// The pause after the first attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// What became of a claim's status.
pub(super) enum Written {
    Said(Vec<AllocatedDeviceStatus>),
    /// It said so already.
    Same(Vec<AllocatedDeviceStatus>),
    /// The claim is gone, or nothing has happened that one would tell of.
    Nothing,
}

impl Written {
    pub(super) fn entries(self) -> Option<Vec<AllocatedDeviceStatus>> {
        match self {
            Self::Said(entries) | Self::Same(entries) => Some(entries),
            Self::Nothing => None,
        }
    }
}

pub(super) async fn write(
    client: &Client,
    driver: &str,
    known: Known,
    sightings: &BTreeMap<AttachmentId, Sighting>,
) -> Result<Written, String> {
    let api = Api::<ResourceClaim>::namespaced(client.clone(), &known.claim.namespace);
    let before = match known.said.clone().filter(|_| !known.is_gone) {
        Some(said) => said,
        None => match read(&api, driver, &known).await? {
            Some(said) => said,
            None => return Ok(Written::Nothing),
        },
    };
    let is_worth_saying = |record: &Record| {
        matches!(record.phase, Phase::Attached { .. }) || !record.residue.is_empty()
    };
    let is_news = known.failure.is_some() || known.records.iter().any(is_worth_saying);
    if known.records.is_empty() || before.is_empty() && !is_news {
        return Ok(Written::Nothing);
    }
    let entries = entries(&known, driver, &before, sightings);
    if normal(&entries) == normal(&before) {
        return Ok(Written::Same(entries));
    }
    let body = status(&known.claim, &entries);
    let (params, patch) = (PatchParams::apply(driver).force(), Patch::Apply(&body));
    attempts(|| api.patch_status(&known.claim.name, &params, &patch))
        .await
        .map_err(|error| error.to_string())?;
    Ok(Written::Said(entries))
}

/// Our entries in the claim's status; `None` where there is no such claim any more, or where it does
/// not have the devices any more, because then nothing can be said of them.
async fn read(
    api: &Api<ResourceClaim>,
    driver: &str,
    known: &Known,
) -> Result<Option<Vec<AllocatedDeviceStatus>>, String> {
    let claim = match attempts(|| api.get(&known.claim.name)).await {
        Ok(claim) => claim,
        Err(Failure::Final { code: 404, .. }) => return Ok(None),
        Err(failure) => return Err(failure.to_string()),
    };
    if claim.metadata.uid.as_deref() != Some(known.claim.uid.as_str()) {
        return Ok(None);
    }
    let status = claim.status.unwrap_or_default();
    let allocation = status.allocation.and_then(|allocation| allocation.devices);
    let results = allocation.and_then(|devices| devices.results).unwrap_or_default();
    let is_allocated = |record: &Record| {
        results.iter().any(|result| {
            let share = record.share.as_ref().map(ShareId::as_str);
            result.driver == driver
                && result.pool == record.pool
                && result.device == record.device.name.as_str()
                && result.share_id.as_deref() == share
        })
    };
    if !known.records.iter().all(is_allocated) {
        return Ok(None);
    }
    let mut said = status.devices.unwrap_or_default();
    said.retain(|entry| entry.driver == driver);
    Ok(Some(said))
}

fn entries(
    known: &Known,
    driver: &str,
    before: &[AllocatedDeviceStatus],
    sightings: &BTreeMap<AttachmentId, Sighting>,
) -> Vec<AllocatedDeviceStatus> {
    // As it goes over the wire, so that it can be compared with what comes back.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let facts = known.records.iter().map(|record| Facts {
        record,
        sighting: sightings.get(&record.id()),
        failure: known.failure.as_deref(),
        before: before.iter().find(|entry| is_of(entry, record)),
        now,
    });
    facts.map(|facts| entry(&facts, driver)).collect()
}

/// In an order that does not depend on who wrote when.
fn normal(entries: &[AllocatedDeviceStatus]) -> Vec<AllocatedDeviceStatus> {
    let mut entries = entries.to_vec();
    let key = |entry: &AllocatedDeviceStatus| {
        (entry.pool.clone(), entry.device.clone(), entry.share_id.clone())
    };
    entries.sort_by_key(key);
    for entry in &mut entries {
        let conditions = entry.conditions.get_or_insert_default();
        conditions.sort_by(|a: &Condition, b| a.type_.cmp(&b.type_));
        for condition in conditions {
            let time = condition.last_transition_time.0.as_second();
            condition.last_transition_time.0 = Timestamp::from_second(time).unwrap_or_default();
        }
    }
    entries
}

/// Why a request had no success.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Asking again would be answered the same.
    #[error("{message}")]
    Final { code: u16, message: String },
    #[error("{0}")]
    Passing(String),
}

async fn attempts<T, F>(request: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = kube::Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        let failure = match timeout(API_TIMEOUT, request()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => failure(&error),
            Err(_) => Failure::Passing("no answer from the API server".to_owned()),
        };
        if matches!(failure, Failure::Final { .. }) || attempt == ATTEMPTS {
            return Err(failure);
        }
        sleep(pause).await;
        pause *= 2;
        attempt += 1;
    }
}

fn failure(error: &kube::Error) -> Failure {
    let message = api_text(error);
    match error {
        kube::Error::Api(status) if is_final(error) => {
            Failure::Final { code: status.code, message }
        }
        _ => Failure::Passing(message),
    }
}
