//! Looks for what nobody will end any more: claims that are gone from the API server without an
//! unprepare, and devices whose pod never came for them.
//!
//! Kubelet normally unprepares what it prepared. It does not where its own checkpoint was lost, or
//! where a node came back after its pods had been deleted by force.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::{Api, Client};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::API_TIMEOUT;
use super::error::api_text;
use crate::attach::{Notice, NoticeKind, Notices, Worker};
use crate::model::{AttachmentId, ClaimRef, ClaimUid, Phase, Record};

/// How long things may be as they should not before anything is done about them.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// The time between two looks.
    pub period: Duration,
    /// How long a claim is gone before its devices are given back.
    pub gone: Duration,
    /// How long a device is prepared and no sandbox started, before that is told. The runtime starts
    /// the sandbox right after kubelet has prepared the claim.
    pub waiting: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self {
            period: Duration::from_mins(1),
            gone: Duration::from_mins(10),
            waiting: Duration::from_mins(2),
        }
    }
}

/// Sweeps one node.
pub struct Sweeper {
    client: Client,
    worker: Worker,
    notices: Notices,
    grace: Grace,
    /// Since when a claim is gone, as far as was seen.
    gone: BTreeMap<ClaimUid, Instant>,
    /// Since when a device waits for its pod, and whether that was told.
    waiting: BTreeMap<AttachmentId, (Instant, bool)>,
}

impl Sweeper {
    pub fn new(client: Client, worker: Worker, notices: Notices, grace: Grace) -> Self {
        let (gone, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self { client, worker, notices, grace, gone, waiting }
    }

    /// Sweeps until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(self.grace.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let records = self.worker.records();
            self.look_for_pods(&records);
            self.look_for_claims(&records).await;
        }
    }

    fn look_for_pods(&mut self, records: &[Record]) {
        let waits = |record: &&Record| record.phase == Phase::Prepared;
        let present: BTreeSet<_> = records.iter().filter(waits).map(Record::id).collect();
        self.waiting.retain(|id, _| present.contains(id));
        for record in records.iter().filter(waits) {
            let since = self.waiting.entry(record.id()).or_insert((Instant::now(), false));
            if !since.1 && since.0.elapsed() >= self.grace.waiting {
                since.1 = true;
                self.notices.leave(Notice {
                    claim: record.claim.clone(),
                    pod: Some(record.pod.clone()),
                    device: Some(record.device.name.clone()),
                    kind: NoticeKind::RunningWithout,
                    message: format!(
                        "prepared for {} s, and the runtime has not told of a sandbox for it",
                        since.0.elapsed().as_secs()
                    ),
                });
            }
        }
    }

    /// A claim whose device is in a running sandbox is left to that sandbox's end.
    async fn look_for_claims(&mut self, records: &[Record]) {
        let claims: BTreeMap<_, _> =
            records.iter().map(|record| (record.claim.uid.clone(), &record.claim)).collect();
        self.gone.retain(|uid, _| claims.contains_key(uid));
        for (uid, claim) in claims {
            match self.is_there(claim).await {
                Some(true) => drop(self.gone.remove(&uid)),
                // Nobody can tell.
                None => {}
                Some(false) => {
                    let since = *self.gone.entry(uid.clone()).or_insert_with(Instant::now);
                    let is_attached = |record: &Record| {
                        record.claim.uid == uid && matches!(record.phase, Phase::Attached { .. })
                    };
                    if since.elapsed() < self.grace.gone || records.iter().any(is_attached) {
                        continue;
                    }
                    tracing::warn!(%claim, %uid, "the claim is gone; its devices are given back");
                    if let Err(error) = self.worker.unprepare(uid.clone()).await {
                        tracing::error!(%claim, %error, "a claim that is gone cannot be given back");
                    }
                }
            }
        }
    }

    /// Whether the API server has this very claim; `None` where it does not say.
    async fn is_there(&self, claim: &ClaimRef) -> Option<bool> {
        let api = Api::<ResourceClaim>::namespaced(self.client.clone(), &claim.namespace);
        match timeout(API_TIMEOUT, api.get_opt(&claim.name)).await {
            Ok(Ok(found)) => {
                let uid = found.and_then(|found| found.metadata.uid);
                Some(uid.as_deref() == Some(claim.uid.as_str()))
            }
            Ok(Err(error)) => {
                tracing::debug!(%claim, error = api_text(&error), "cannot look for the claim");
                None
            }
            Err(_) => None,
        }
    }
}
