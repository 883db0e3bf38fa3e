//! One registered driver: the handshake that registers it, and the calls that kubelet makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use driver::dra::proto::registration::registration_client::RegistrationClient;
use driver::dra::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use driver::dra::proto::v1::dra_plugin_client::DraPluginClient as V1Client;
use driver::dra::proto::v1::{
    Claim, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use driver::dra::proto::v1beta1::dra_plugin_client::DraPluginClient as V1Beta1Client;
use driver::model::ClaimRef;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::health::{HealthVersion, HealthWatch};

/// How long a driver may take to say who it is (`pkg/kubelet/pluginmanager`, Kubernetes 1.36).
const INFO_DEADLINE: Duration = Duration::from_secs(1);

/// How long a driver may take for a call (`pkg/kubelet/cm/dra`, Kubernetes 1.36).
const CALL_DEADLINE: Duration = Duration::from_secs(45);

/// The versions of the DRA plugin service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    V1,
    V1Beta1,
}

impl Service {
    /// The service's name in a registration.
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1.DRAPlugin",
            Self::V1Beta1 => "v1beta1.DRAPlugin",
        }
    }
}

/// Why a driver could not be registered or called.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("driver {name} is not registered, these are: {registered:?}")]
    NotRegistered { name: String, registered: Vec<String> },

    #[error("{} is no path that a URI can hold", .path.display())]
    Path { path: PathBuf },

    #[error("connect to {}", .path.display())]
    Connect { path: PathBuf, source: tonic::transport::Error },

    #[error("{call}: {source}")]
    Call { call: &'static str, source: Box<Status> },

    #[error("{name} is of type {kind} and serves {versions:?}, which is no DRA plugin we know")]
    Unknown { name: String, kind: String, versions: Vec<String> },

    #[error("the answer has entries for {found:?}, asked for were {asked:?}")]
    Entries { asked: Vec<String>, found: Vec<String> },
}

/// A device as the driver prepared it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PreparedDevice {
    pub requests: Vec<String>,
    pub pool: String,
    pub device: String,
    pub cdi_device_ids: Vec<String>,
    pub share_id: Option<String>,
}

/// What each claim of a call came to, by UID: its value, or the error that the pod would show.
pub type Answers<T> = BTreeMap<String, Result<T, String>>;

/// A registered driver and the connection to its service.
#[derive(Clone, Debug)]
pub struct Driver {
    name: String,
    service: Service,
    /// Everything that it said it serves.
    versions: Vec<String>,
    channel: Channel,
}

impl Driver {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The service that is called.
    pub fn service(&self) -> Service {
        self.service
    }

    /// Whether it registered this service.
    pub fn serves(&self, service: &str) -> bool {
        self.versions.iter().any(|version| version == service)
    }

    /// Follows the health of its devices.
    ///
    /// # Errors
    ///
    /// When the stream cannot be opened.
    pub async fn watch_health(&self, version: HealthVersion) -> Result<HealthWatch, DriverError> {
        let watch = HealthWatch::open(self.channel.clone(), version).await;
        watch.map_err(|status| failed("NodeWatchResources", status))
    }

    /// Asks to prepare claims, all in one call.
    ///
    /// # Errors
    ///
    /// When the call as a whole fails, or does not answer each claim and only those.
    pub async fn prepare(
        &self,
        claims: &[ClaimRef],
    ) -> Result<Answers<Vec<PreparedDevice>>, DriverError> {
        let message = NodePrepareResourcesRequest { claims: wire_claims(claims) };
        let channel = self.channel.clone();
        let answer: Result<Response<NodePrepareResourcesResponse>, _> = match self.service {
            Service::V1 => V1Client::new(channel).node_prepare_resources(call(message)).await,
            Service::V1Beta1 => {
                V1Beta1Client::new(channel).node_prepare_resources(call(message)).await
            }
        };
        let answer = answer.map_err(|status| failed("NodePrepareResources", status))?;
        let entries = answer.into_inner().claims;
        complete(claims, entries.into_iter().map(|(uid, entry)| (uid, prepared(entry))))
    }

    /// Asks to unprepare claims, all in one call.
    ///
    /// # Errors
    ///
    /// When the call as a whole fails, or does not answer each claim and only those.
    pub async fn unprepare(&self, claims: &[ClaimRef]) -> Result<Answers<()>, DriverError> {
        let message = NodeUnprepareResourcesRequest { claims: wire_claims(claims) };
        let channel = self.channel.clone();
        let answer: Result<Response<NodeUnprepareResourcesResponse>, _> = match self.service {
            Service::V1 => V1Client::new(channel).node_unprepare_resources(call(message)).await,
            Service::V1Beta1 => {
                V1Beta1Client::new(channel).node_unprepare_resources(call(message)).await
            }
        };
        let answer = answer.map_err(|status| failed("NodeUnprepareResources", status))?;
        let entries = answer.into_inner().claims;
        complete(claims, entries.into_iter().map(|(uid, entry)| (uid, or_error((), entry.error))))
    }
}

/// Asks the socket who it is, connects to the service that it names, and tells it of the outcome.
pub(super) async fn register(socket: &Path, known: &[Service]) -> Result<Driver, DriverError> {
    let mut registration = RegistrationClient::new(connect(socket).await?);
    let mut question = Request::new(InfoRequest {});
    question.set_timeout(INFO_DEADLINE);
    let info = registration.get_info(question).await.map_err(|s| failed("GetInfo", s))?;

    let registered = accept(info.into_inner(), known).await;
    let status = match &registered {
        Ok(_) => RegistrationStatus { plugin_registered: true, error: String::new() },
        Err(error) => RegistrationStatus { plugin_registered: false, error: error.to_string() },
    };
    registration
        .notify_registration_status(call(status))
        .await
        .map_err(|status| failed("NotifyRegistrationStatus", status))?;
    registered
}

async fn accept(info: PluginInfo, known: &[Service]) -> Result<Driver, DriverError> {
    let PluginInfo { r#type: kind, name, endpoint, supported_versions: versions } = info;
    let serves = |service: &&Service| versions.iter().any(|version| version == service.name());
    let service = known.iter().find(serves).filter(|_| kind == "DRAPlugin");
    let Some(&service) = service else {
        return Err(DriverError::Unknown { name, kind, versions });
    };
    let channel = connect(Path::new(&endpoint)).await?;
    Ok(Driver { name, service, versions, channel })
}

async fn connect(socket: &Path) -> Result<Channel, DriverError> {
    // Anything but an absolute path in there makes tonic panic.
    let uri = socket.to_str().filter(|_| socket.is_absolute()).map(|path| format!("unix://{path}"));
    let endpoint = uri.and_then(|uri| Endpoint::from_shared(uri).ok());
    let Some(endpoint) = endpoint else {
        return Err(DriverError::Path { path: socket.to_owned() });
    };
    endpoint
        .connect()
        .await
        .map_err(|source| DriverError::Connect { path: socket.to_owned(), source })
}

fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_DEADLINE);
    request
}

fn failed(call: &'static str, status: Status) -> DriverError {
    DriverError::Call { call, source: Box::new(status) }
}

fn wire_claims(claims: &[ClaimRef]) -> Vec<Claim> {
    claims
        .iter()
        .map(|ClaimRef { namespace, name, uid }| Claim {
            namespace: namespace.clone(),
            uid: uid.to_string(),
            name: name.clone(),
        })
        .collect()
}

/// Kubelet takes a missing entry and one that it did not ask for as errors.
fn complete<T>(
    claims: &[ClaimRef],
    entries: impl Iterator<Item = (String, Result<T, String>)>,
) -> Result<Answers<T>, DriverError> {
    let answers: Answers<T> = entries.collect();
    let asked: BTreeSet<&str> = claims.iter().map(|claim| claim.uid.as_str()).collect();
    if asked.iter().copied().eq(answers.keys().map(String::as_str)) {
        Ok(answers)
    } else {
        let asked = asked.into_iter().map(str::to_owned).collect();
        Err(DriverError::Entries { asked, found: answers.into_keys().collect() })
    }
}

fn prepared(entry: NodePrepareResourceResponse) -> Result<Vec<PreparedDevice>, String> {
    let devices = entry
        .devices
        .into_iter()
        .map(|device| PreparedDevice {
            requests: device.request_names,
            pool: device.pool_name,
            device: device.device_name,
            cdi_device_ids: device.cdi_device_ids,
            share_id: device.share_id,
        })
        .collect();
    or_error(devices, entry.error)
}

fn or_error<T>(value: T, error: String) -> Result<T, String> {
    if error.is_empty() { Ok(value) } else { Err(error) }
}
