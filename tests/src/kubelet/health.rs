//! How kubelet follows the health of a driver's devices: one stream, whose last message counts until
//! it is too old, or until the stream ends.

use std::collections::BTreeMap;
use std::time::Duration;

use driver::dra::proto::health::v1::dra_resource_health_client::DraResourceHealthClient as V1Client;
use driver::dra::proto::health::v1::{
    HealthStatus, NodeWatchResourcesRequest, NodeWatchResourcesResponse,
};
use driver::dra::proto::health::v1alpha1::dra_resource_health_client::DraResourceHealthClient as V1Alpha1Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// The versions of the health service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HealthVersion {
    V1,
    V1Alpha1,
}

impl HealthVersion {
    /// The service's name in a registration.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1.DRAResourceHealth",
            Self::V1Alpha1 => "v1alpha1.DRAResourceHealth",
        }
    }
}

/// What a pod's status would say of a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceState {
    /// `Healthy`, `Unhealthy` or `Unknown`.
    pub health: &'static str,
    pub message: String,
}

/// What kubelet believes, by pool and device.
pub type Believed = BTreeMap<(String, String), DeviceState>;

/// A stream that kubelet reads. It ends when this is dropped.
#[derive(Debug)]
pub struct HealthWatch {
    believed: watch::Receiver<Believed>,
    task: JoinHandle<()>,
}

impl HealthWatch {
    pub(super) async fn open(channel: Channel, version: HealthVersion) -> Result<Self, Status> {
        let request = NodeWatchResourcesRequest {};
        let stream = match version {
            HealthVersion::V1 => V1Client::new(channel).node_watch_resources(request).await?,
            HealthVersion::V1Alpha1 => {
                V1Alpha1Client::new(channel).node_watch_resources(request).await?
            }
        };
        let (sender, believed) = watch::channel(Believed::new());
        let task = tokio::spawn(read(stream.into_inner(), sender));
        Ok(Self { believed, task })
    }

    /// What is believed now; nothing after the stream's end.
    pub fn believed(&self) -> Believed {
        self.believed.borrow().clone()
    }

    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(
    mut stream: Streaming<NodeWatchResourcesResponse>,
    believed: watch::Sender<Believed>,
) {
    let mut patience = Duration::MAX;
    loop {
        match timeout(patience, stream.message()).await {
            Ok(Ok(Some(message))) => {
                patience = patience_of(&message);
                believed.send_replace(read_message(message));
            }
            // Nothing was heard for too long; the stream itself may go on.
            Err(_) => {
                believed.send_modify(|believed| {
                    for state in believed.values_mut() {
                        *state = DeviceState { health: "Unknown", message: String::new() };
                    }
                });
                patience = Duration::MAX;
            }
            Ok(Ok(None) | Err(_)) => {
                believed.send_replace(Believed::new());
                return;
            }
        }
    }
}

/// 30 s where the driver names no time (`pkg/kubelet/cm/dra`, Kubernetes 1.36).
fn patience_of(message: &NodeWatchResourcesResponse) -> Duration {
    let times = message.devices.iter().map(|device| device.health_check_timeout_seconds);
    match times.min().unwrap_or_default() {
        0 => Duration::from_secs(30),
        seconds => Duration::from_secs(seconds.try_into().unwrap_or_default()),
    }
}

fn read_message(message: NodeWatchResourcesResponse) -> Believed {
    let read = message.devices.into_iter().filter_map(|device| {
        let health = match device.health() {
            HealthStatus::Healthy => "Healthy",
            HealthStatus::Unhealthy => "Unhealthy",
            HealthStatus::Unknown => "Unknown",
        };
        let id = device.device?;
        let state = DeviceState { health, message: device.message };
        Some(((id.pool_name, id.device_name), state))
    });
    read.collect()
}
