//! Tells kubelet who we are and hears whether it took us.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::proto::registration::registration_server;
use super::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};

/// What kubelet calls this kind of plugin.
const PLUGIN_TYPE: &str = "DRAPlugin";

/// The services behind our endpoint. Kubelet takes the newest that it knows.
const SERVICES: [&str; 4] =
    ["v1.DRAPlugin", "v1beta1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"];

/// The registration service: two answers, and a flag that follows kubelet's verdict.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) driver: String,
    /// Absolute path of the service's socket. Kubelet opens it, so it must be the same path on the
    /// host and in the driver's container.
    pub(super) endpoint: String,
    /// True while kubelet's last word was that we are registered.
    pub(super) registered: Arc<watch::Sender<bool>>,
}

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(
        &self,
        _request: Request<InfoRequest>,
    ) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: PLUGIN_TYPE.to_owned(),
            name: self.driver.clone(),
            endpoint: self.endpoint.clone(),
            supported_versions: SERVICES.map(str::to_owned).to_vec(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        if plugin_registered {
            tracing::info!(driver = self.driver, "registered with kubelet");
        } else {
            tracing::error!(driver = self.driver, error, "kubelet refused the registration");
        }
        self.registered.send_replace(plugin_registered);
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
