//! The two sockets by which kubelet finds and calls us, and the order in which they come and go.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::health::HealthService;
use super::proto::health::v1::dra_resource_health_server as health_v1;
use super::proto::health::v1alpha1::dra_resource_health_server as health_v1alpha1;
use super::proto::registration::registration_server::RegistrationServer;
use super::proto::{v1, v1beta1};
use super::registration::Registration;
use super::socket::Socket;
use super::{HealthSources, Plugin, ServeError};

/// How soon a socket is missed that somebody removed. Whoever resets kubelet removes its
/// directories, and kubelet then waits for sockets to appear.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Where kubelet calls `driver`: the socket of the DRA plugin service.
pub fn service_path(kubelet_root: &Path, driver: &str) -> PathBuf {
    kubelet_root.join("plugins").join(driver).join("dra.sock")
}

/// Where kubelet finds `driver`: the socket of the registration service.
pub fn registration_path(kubelet_root: &Path, driver: &str) -> PathBuf {
    kubelet_root.join("plugins_registry").join(format!("{driver}-reg.sock"))
}

/// Serves kubelet until `shutdown`, and a few seconds more for calls that are under way.
///
/// The service is there before its registration is, and the registration goes first. `registered`
/// follows what kubelet says; it stays true if kubelet goes away without a word.
///
/// # Errors
///
/// Any [`ServeError`], at the start only: a socket that is lost later and cannot be made again is
/// logged and tried again.
pub async fn serve(
    plugin: Plugin,
    health: HealthSources,
    kubelet_root: &Path,
    registered: watch::Sender<bool>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let sites = Sites::new(plugin, health, kubelet_root, registered)?;
    let mut service = sites.service()?;
    let mut registration = sites.registration()?;
    tracing::info!(socket = sites.endpoint, "waiting for kubelet");
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await.is_some() {
        if service.is_lost() {
            renew(&mut service, sites.service());
        }
        if registration.is_lost() {
            renew(&mut registration, sites.registration());
        }
    }
    registration.close().await;
    service.close().await;
    Ok(())
}

/// Both places and what is served there.
struct Sites {
    service: PathBuf,
    registration: PathBuf,
    /// The service's path as kubelet is told it.
    endpoint: String,
    plugin: Plugin,
    health: HealthSources,
    registrar: Routes,
}

impl Sites {
    fn new(
        plugin: Plugin,
        health: HealthSources,
        kubelet_root: &Path,
        registered: watch::Sender<bool>,
    ) -> Result<Self, ServeError> {
        let root = absolute(kubelet_root)
            .map_err(|source| ServeError::Directory { path: kubelet_root.to_owned(), source })?;
        let driver = plugin.pool().driver.clone();
        let service = service_path(&root, &driver);
        let registration = registration_path(&root, &driver);
        let Some(endpoint) = service.to_str().map(str::to_owned) else {
            return Err(ServeError::PathText { path: root });
        };
        let registered = Arc::new(registered);
        let registrar = Registration { driver, endpoint: endpoint.clone(), registered };
        Ok(Self {
            service,
            registration,
            endpoint,
            plugin,
            health,
            registrar: Routes::new(RegistrationServer::new(registrar)),
        })
    }

    fn service(&self) -> Result<Socket, ServeError> {
        make_directory_of(&self.service)?;
        let stop = CancellationToken::new();
        let (plugin, pool) = (self.plugin.clone(), self.plugin.pool().clone());
        let health = HealthService { pool, sources: self.health.clone(), stop: stop.clone() };
        let routes = Routes::new(v1::dra_plugin_server::DraPluginServer::new(plugin.clone()))
            .add_service(v1beta1::dra_plugin_server::DraPluginServer::new(plugin))
            .add_service(health_v1::DraResourceHealthServer::new(health.clone()))
            .add_service(health_v1alpha1::DraResourceHealthServer::new(health));
        Socket::serve(&self.service, routes, stop)
    }

    fn registration(&self) -> Result<Socket, ServeError> {
        make_directory_of(&self.registration)?;
        Socket::serve(&self.registration, self.registrar.clone(), CancellationToken::new())
    }
}

/// Puts a new socket in the place of a lost one. The lost one's task would otherwise wait for
/// connections that can no longer come.
fn renew(lost: &mut Socket, renewed: Result<Socket, ServeError>) {
    match renewed {
        Ok(socket) => {
            let lost = std::mem::replace(lost, socket);
            tracing::info!(path = %lost.path().display(), "socket was removed, made it again");
            tokio::spawn(lost.abandon());
        }
        Err(error) => {
            let error = crate::telemetry::chain(&error);
            tracing::warn!(error, "socket was removed and cannot be made again");
        }
    }
}

fn make_directory_of(socket: &Path) -> Result<(), ServeError> {
    let Some(directory) = socket.parent() else { return Ok(()) };
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .map_err(|source| ServeError::Directory { path: directory.to_owned(), source })
}
