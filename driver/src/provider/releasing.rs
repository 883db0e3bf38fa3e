//! Gives back what was granted to claims that are no longer prepared, until it is given back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;

use super::grants::Grant;
use super::{ProviderError, Providers};
use crate::attach::Worker;
use crate::model::ClaimUid;
use crate::sys::disk::on_disk;

const RELEASE: &str = "/ReleaseProfileConfig";

/// How often it is looked whether there is something to give back, beside each change of the records.
const PERIOD: Duration = Duration::from_secs(5);
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What could not be given back, when to try again, and the pause after that.
type Later = BTreeMap<(ClaimUid, String), (Instant, Duration)>;

pub(super) async fn run(providers: &Providers, worker: &Worker) -> Infallible {
    let mut records = worker.watch();
    let mut later = Later::new();
    // Before that nobody knows who is there to take anything back.
    providers.employed().await;
    loop {
        let now = Instant::now();
        let present = records.borrow_and_update().clone();
        for grant in providers.grants().due(&present, now) {
            let key = (grant.claim.clone(), grant.device.name.clone());
            if later.get(&key).is_some_and(|(when, _)| *when > now) {
                continue;
            }
            match release(providers, &grant).await {
                Ok(()) => {
                    tracing::info!(claim = %grant.claim, device = grant.device.name, profile = grant.profile, "profile given back");
                    later.remove(&key);
                }
                Err(error) => {
                    tracing::warn!(%error, claim = %grant.claim, profile = grant.profile, "profile not given back yet");
                    let pause = later.get(&key).map_or(FIRST_PAUSE, |(_, pause)| *pause);
                    let next = (pause * 2).min(LONGEST_PAUSE);
                    later.insert(key, (Instant::now() + pause, next));
                }
            }
        }
        providers.grants().released();
        let _ = timeout(PERIOD, records.changed()).await;
    }
}

async fn release(providers: &Providers, grant: &Grant) -> Result<(), ProviderError> {
    let caller = providers.caller(&grant.provider).await?;
    let (grants, going) = (providers.grants().clone(), grant.clone());
    on_disk(move || grants.void(&going)).await?;
    let question = json!({
        "device": grant.device, "claim_uid": grant.claim, "config": grant.config,
    });
    match caller.post(RELEASE, &question).await {
        // An answer that cannot be read is still one.
        Ok(_) | Err(ProviderError::Nonsense { .. }) => {}
        // What nobody there knows any more is given back.
        Err(error) if error.is_unknown_there() => {}
        Err(error) => return Err(error),
    }
    let (grants, grant) = (providers.grants().clone(), grant.clone());
    on_disk(move || grants.forget(&grant)).await
}
