//! Tells kubelet how the devices of the pool are, so that a pod's status can.

mod judge;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::Stream;
use futures::stream::unfold;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub(super) use self::judge::{Defect, DeviceHealth, Health, judge};
use super::Pool;
use super::proto::health::v1::{
    DeviceHealth as Wire, DeviceIdentifier, HealthStatus, NodeWatchResourcesRequest,
    NodeWatchResourcesResponse, dra_resource_health_server as v1,
};
use super::proto::health::v1alpha1::dra_resource_health_server as v1alpha1;
use crate::attach::Worker;
use crate::inventory::{IdleFunction, Inventory};
use crate::model::{Device, Record};
use crate::telemetry::{AllVitals, Sightings};

/// For how long kubelet believes what it was told.
const TIMEOUT: Duration = Duration::from_secs(90);

/// How often it is told the same. Two messages may be lost before it stops believing.
const PERIOD: Duration = Duration::from_secs(25);

/// How long to wait for more after something changed: what comes home is in no list for about a
/// second, because the inventory rests as long between two looks.
const SETTLE: Duration = Duration::from_millis(1500);

/// Where it can be seen how the devices are.
#[derive(Clone)]
pub struct HealthSources {
    pub devices: watch::Receiver<Arc<Vec<Device>>>,
    /// PCI functions from which nothing can be had.
    pub idle: watch::Receiver<Arc<Vec<IdleFunction>>>,
    pub records: watch::Receiver<Arc<Vec<Record>>>,
    pub vitals: watch::Receiver<AllVitals>,
    pub sightings: watch::Receiver<Sightings>,
}

impl HealthSources {
    pub fn new(
        inventory: &Inventory,
        worker: &Worker,
        vitals: watch::Receiver<AllVitals>,
        sightings: watch::Receiver<Sightings>,
    ) -> Self {
        Self {
            devices: inventory.watch(),
            idle: inventory.idle(),
            records: worker.watch(),
            vitals,
            sightings,
        }
    }

    /// How every device is now. What changes afterwards is seen by [`Self::changed`].
    pub(super) fn judge(&mut self) -> Vec<DeviceHealth> {
        let devices = Arc::clone(&self.devices.borrow_and_update());
        let idle = Arc::clone(&self.idle.borrow_and_update());
        let records = Arc::clone(&self.records.borrow_and_update());
        let vitals = Arc::clone(&self.vitals.borrow_and_update());
        let sightings = Arc::clone(&self.sightings.borrow_and_update());
        judge(&devices, &idle, &records, &vitals, &sightings)
    }

    /// Returns when something may be otherwise; never, once nobody is left who could tell.
    pub(super) async fn changed(&mut self) {
        let is_news = tokio::select! {
            news = self.devices.changed() => news.is_ok(),
            news = self.idle.changed() => news.is_ok(),
            news = self.records.changed() => news.is_ok(),
            news = self.vitals.changed() => news.is_ok(),
            news = self.sightings.changed() => news.is_ok(),
        };
        if !is_news {
            std::future::pending::<()>().await;
        }
    }
}

/// The health service. Clones share nothing that changes.
#[derive(Clone)]
pub(super) struct HealthService {
    pub(super) pool: Pool,
    pub(super) sources: HealthSources,
    /// Ends the streams, which would otherwise hold up the socket's end.
    pub(super) stop: CancellationToken,
}

type Updates = Pin<Box<dyn Stream<Item = Result<NodeWatchResourcesResponse, Status>> + Send>>;

/// What one stream has told.
struct Watcher {
    service: HealthService,
    /// What was told last, and when it has to be told again.
    told: Option<(Vec<DeviceHealth>, Instant)>,
    period: Duration,
}

impl Watcher {
    /// The next message: at first at once, then when something has changed or it is time.
    async fn next(&mut self) -> NodeWatchResourcesResponse {
        let HealthService { pool, sources, .. } = &mut self.service;
        let period = self.period;
        let Some((told, due)) = &mut self.told else {
            let now = sources.judge();
            let message = message(pool, &now);
            self.told = Some((now, Instant::now() + period));
            return message;
        };
        loop {
            let is_due = tokio::select! {
                () = sources.changed() => {
                    sleep(SETTLE).await;
                    false
                }
                () = sleep_until(*due) => true,
            };
            let now = sources.judge();
            if is_due || now != *told {
                let message = message(pool, &now);
                *told = now;
                *due = Instant::now() + period;
                return message;
            }
        }
    }
}

impl HealthService {
    fn updates(&self) -> Updates {
        let watcher = Watcher { service: self.clone(), told: None, period: PERIOD };
        Box::pin(unfold(watcher, async |mut watcher| {
            let stop = watcher.service.stop.clone();
            let message = stop.run_until_cancelled(watcher.next()).await?;
            Some((Ok(message), watcher))
        }))
    }
}

fn message(pool: &Pool, devices: &[DeviceHealth]) -> NodeWatchResourcesResponse {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let devices = devices.iter().map(|DeviceHealth { device, health, message, .. }| {
        let health = match health {
            Health::Healthy => HealthStatus::Healthy,
            Health::Unknown => HealthStatus::Unknown,
            Health::Unhealthy => HealthStatus::Unhealthy,
        };
        Wire {
            device: Some(DeviceIdentifier {
                pool_name: pool.node.clone(),
                device_name: device.to_string(),
            }),
            health: health.into(),
            last_updated_time: seconds(since_1970),
            health_check_timeout_seconds: seconds(TIMEOUT),
            message: message.clone(),
        }
    });
    NodeWatchResourcesResponse { devices: devices.collect() }
}

#[tonic::async_trait]
impl v1::DraResourceHealth for HealthService {
    type NodeWatchResourcesStream = Updates;

    async fn node_watch_resources(
        &self,
        _request: Request<NodeWatchResourcesRequest>,
    ) -> Result<Response<Updates>, Status> {
        Ok(Response::new(self.updates()))
    }
}

#[tonic::async_trait]
impl v1alpha1::DraResourceHealth for HealthService {
    type NodeWatchResourcesStream = Updates;

    async fn node_watch_resources(
        &self,
        _request: Request<NodeWatchResourcesRequest>,
    ) -> Result<Response<Updates>, Status> {
        Ok(Response::new(self.updates()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, pool};

    #[test]
    fn two_messages_can_be_lost_before_kubelet_stops_believing() {
        assert!(PERIOD * 3 < TIMEOUT);
    }

    #[tokio::test]
    async fn the_whole_list_comes_again_and_again() {
        let (_devices, devices) = watch::channel(Arc::new(vec![device("eth1"), device("eth2")]));
        let (_idle, idle) = watch::channel(Arc::default());
        let (_records, records) = watch::channel(Arc::default());
        let (_vitals, vitals) = watch::channel(AllVitals::default());
        let (_sightings, sightings) = watch::channel(Sightings::default());
        let sources = HealthSources { devices, idle, records, vitals, sightings };
        let service = HealthService { pool: pool(), sources, stop: CancellationToken::new() };
        let mut watcher = Watcher { service, told: None, period: Duration::from_millis(1) };
        for _ in 0..3 {
            assert_eq!(watcher.next().await.devices.len(), 2);
        }
    }
}
