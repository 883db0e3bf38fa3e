//! The DRA plugin service: one answer for each claim, whatever happens to the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use kube::Client;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::profiles::Below;
use super::proto::{v1, v1beta1};
use super::{ClaimError, Pool, claims, profiles};
use crate::attach::{Notice, NoticeKind, Notices, PrepareClaim, Worker};
use crate::dhcp::Leases;
use crate::inventory::Inventory;
use crate::model::{ClaimRef, Record};
use crate::provider::{Granting, Providers};
use crate::telemetry::{Metrics, Outcome, Part};

/// What kubelet calls to have claims prepared and given back. Clones share everything.
///
/// Kubelet gives up on a call after 45 s and asks again later. Whatever of a call is then under way
/// is dropped here, which is harmless: fetching changes nothing, and what was sent to the worker
/// runs to its end without us.
#[derive(Clone)]
pub struct Plugin(Arc<Parts>);

struct Parts {
    pool: Pool,
    client: Client,
    worker: Worker,
    inventory: Inventory,
    providers: Providers,
    /// Whether the container runtime would tell us of a sandbox that starts now.
    runtime: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    notices: Notices,
    leases: Leases,
}

impl Plugin {
    /// `runtime` is true while the NRI plugin is registered and synchronized; prepare refuses while
    /// it is not. Failures are left with `notices`.
    pub fn new(
        pool: Pool,
        client: Client,
        worker: Worker,
        (inventory, providers): (Inventory, Providers),
        runtime: watch::Receiver<bool>,
        metrics: Arc<Metrics>,
        notices: Notices,
    ) -> Self {
        let leases = Leases::new(worker.clone());
        Self(Arc::new(Parts {
            pool,
            client,
            worker,
            inventory,
            providers,
            runtime,
            metrics,
            notices,
            leases,
        }))
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    async fn prepare(
        &self,
        request: v1::NodePrepareResourcesRequest,
    ) -> v1::NodePrepareResourcesResponse {
        let begun = Instant::now();
        let looked_up = join_all(request.claims.iter().map(|claim| self.look_up(claim))).await;
        // At once, because each may have to wait for DHCP servers; the worker takes them in order.
        let handed_over = looked_up.into_iter().map(|found| async {
            match found {
                // Until the worker has it, nothing that providers granted is given back.
                Ok(Some((wanted, _granting))) => self.hand_over(wanted).await,
                Ok(None) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        });

        let mut outcome = Outcome::NotOurs;
        let mut answers = HashMap::with_capacity(request.claims.len());
        for (claim, prepared) in request.claims.into_iter().zip(join_all(handed_over).await) {
            outcome = match (outcome, &prepared) {
                (Outcome::Failed, _) | (_, Err(_)) => Outcome::Failed,
                (so_far, Ok(records)) if records.is_empty() => so_far,
                (_, Ok(_)) => Outcome::Success,
            };
            if let Err(error) = &prepared {
                self.tell(&claim, NoticeKind::PrepareFailed, error);
            }
            answers.insert(claim.uid, prepare_answer(prepared, &self.0.pool.driver));
        }
        self.0.metrics.dra_request("NodePrepareResources", outcome, begun.elapsed());
        v1::NodePrepareResourcesResponse { claims: answers }
    }

    /// What is to be prepared for a claim; `None` where none of its devices is ours.
    async fn look_up(
        &self,
        claim: &v1::Claim,
    ) -> Result<Option<(PrepareClaim, Option<Granting>)>, ClaimError> {
        let Parts { pool, client, inventory, providers, runtime, metrics, .. } = &*self.0;
        if !*runtime.borrow() {
            return Err(ClaimError::RuntimeAway);
        }
        let claim = claim_ref(claim)?;
        let begun = Instant::now();
        let object = claims::fetch(client, &claim).await?;
        let timings = metrics.timings();
        timings.took(Part::Fetch, begun.elapsed());
        let mut devices = inventory.devices().to_vec();
        providers.fill(&mut devices);
        let mut below = profiles::known(providers, &object, &pool.driver);
        let read = |claim, below: &Below| {
            timings.of(Part::Parse, || claims::wanted(claim, &object, pool, &devices, below))
        };
        let Some(wanted) = read(claim.clone(), &below)? else { return Ok(None) };
        if wanted.devices.iter().all(|device| device.wishes.profile.is_none()) {
            return Ok(Some((wanted, None)));
        }
        // Before the records are looked at, so that what they have is not given back meanwhile.
        let granting = providers.granting(&claim.uid);
        let (driver, records) = (pool.driver.as_str(), self.0.worker.records());
        let place = (driver, &records[..]);
        profiles::resolve(providers, &object, &wanted, place, &mut below).await?;
        let Some(mut wanted) = read(claim, &below)? else { return Ok(None) };
        profiles::keep(&mut wanted, &records);
        Ok(Some((wanted, Some(granting))))
    }

    async fn hand_over(&self, wanted: PrepareClaim) -> Result<Vec<Record>, ClaimError> {
        let (claim, pod) = (wanted.claim.clone(), wanted.pod.clone());
        let records = match self.0.worker.prepare(wanted).await {
            Ok(records) => records,
            Err(source) => {
                self.0.metrics.attach_error(source.reason());
                return Err(ClaimError::Attach { claim, source: Box::new(source) });
            }
        };
        match self.0.leases.acquire(records).await {
            Ok(records) => {
                let devices = records.len();
                tracing::info!(%claim, uid = %claim.uid, %pod, devices, "prepared");
                Ok(records)
            }
            Err(failures) => {
                self.0.metrics.attach_error("no_lease");
                Err(ClaimError::Leases { claim, failures })
            }
        }
    }

    async fn unprepare(
        &self,
        request: v1::NodeUnprepareResourcesRequest,
    ) -> v1::NodeUnprepareResourcesResponse {
        let begun = Instant::now();
        let mut outcome = Outcome::Success;
        let mut answers = HashMap::with_capacity(request.claims.len());
        for claim in request.claims {
            let error = match self.give_back(&claim).await {
                Ok(()) => String::new(),
                Err(error) => {
                    tracing::warn!(%error, "claim not unprepared");
                    self.tell(&claim, NoticeKind::UnprepareFailed, &error);
                    outcome = Outcome::Failed;
                    error.to_string()
                }
            };
            answers.insert(claim.uid, v1::NodeUnprepareResourceResponse { error });
        }
        // Programs come and go without an event on the interface.
        self.0.inventory.rescan();
        self.0.metrics.dra_request("NodeUnprepareResources", outcome, begun.elapsed());
        v1::NodeUnprepareResourcesResponse { claims: answers }
    }

    /// Has the claim told what failed. That the driver stops is nobody's failure.
    fn tell(&self, claim: &v1::Claim, kind: NoticeKind, error: &ClaimError) {
        if error.is_end() {
            return;
        }
        if let Ok(claim) = claim_ref(claim) {
            let message = error.to_string();
            self.0.notices.leave(Notice { claim, pod: None, device: None, kind, message });
        }
    }

    /// The claim itself may be gone by now, so its UID is all that is looked at.
    async fn give_back(&self, claim: &v1::Claim) -> Result<(), ClaimError> {
        let claim = claim_ref(claim)?;
        match self.0.worker.unprepare(claim.uid.clone()).await {
            Ok(()) => {
                tracing::info!(%claim, uid = %claim.uid, "unprepared");
                Ok(())
            }
            Err(source) => {
                self.0.metrics.attach_error(source.reason());
                Err(ClaimError::Attach { claim, source: Box::new(source) })
            }
        }
    }
}

fn claim_ref(claim: &v1::Claim) -> Result<ClaimRef, ClaimError> {
    let v1::Claim { namespace, uid, name } = claim.clone();
    match uid.parse() {
        Ok(uid) => Ok(ClaimRef { namespace, name, uid }),
        Err(source) => Err(ClaimError::Uid { namespace, name, source }),
    }
}

fn prepare_answer(
    prepared: Result<Vec<Record>, ClaimError>,
    driver: &str,
) -> v1::NodePrepareResourceResponse {
    match prepared {
        Ok(records) => v1::NodePrepareResourceResponse {
            devices: records.into_iter().map(|record| device(record, driver)).collect(),
            error: String::new(),
        },
        Err(error) => {
            tracing::warn!(%error, "claim not prepared");
            v1::NodePrepareResourceResponse { devices: Vec::new(), error: error.to_string() }
        }
    }
}

/// The device itself reaches the pod through its namespace. Its CDI id is what keeps containers out
/// that come without it: the runtime knows the id only while the device is attached.
fn device(record: Record, driver: &str) -> v1::Device {
    let cdi_id = record.id().cdi_id(driver);
    v1::Device {
        request_names: record.requests,
        pool_name: record.pool,
        device_name: record.device.name.into(),
        cdi_device_ids: vec![cdi_id],
        share_id: record.share.map(Into::into),
    }
}

#[tonic::async_trait]
impl v1::dra_plugin_server::DraPlugin for Plugin {
    async fn node_prepare_resources(
        &self,
        request: Request<v1::NodePrepareResourcesRequest>,
    ) -> Result<Response<v1::NodePrepareResourcesResponse>, Status> {
        Ok(Response::new(self.prepare(request.into_inner()).await))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<v1::NodeUnprepareResourcesRequest>,
    ) -> Result<Response<v1::NodeUnprepareResourcesResponse>, Status> {
        Ok(Response::new(self.unprepare(request.into_inner()).await))
    }
}

#[tonic::async_trait]
impl v1beta1::dra_plugin_server::DraPlugin for Plugin {
    async fn node_prepare_resources(
        &self,
        request: Request<v1::NodePrepareResourcesRequest>,
    ) -> Result<Response<v1::NodePrepareResourcesResponse>, Status> {
        Ok(Response::new(self.prepare(request.into_inner()).await))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<v1::NodeUnprepareResourcesRequest>,
    ) -> Result<Response<v1::NodeUnprepareResourcesResponse>, Status> {
        Ok(Response::new(self.unprepare(request.into_inner()).await))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures;

    #[test]
    fn a_share_is_named_in_the_answer() {
        let whole = fixtures::record(fixtures::device("eth1"));
        assert_eq!(device(whole.clone(), "weir.dev").share_id, None);
        let share = Record { share: Some("s1".parse().unwrap()), ..whole };
        assert_eq!(device(share, "weir.dev").share_id.as_deref(), Some("s1"));
    }
}
