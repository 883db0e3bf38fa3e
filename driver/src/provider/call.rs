//! One question to a provider, over whichever way it is reached.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::config::{Cluster, Context, KubeConfigOptions, Kubeconfig, NamedCluster, NamedContext};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::ProviderError;
use crate::model::{ProviderPlace, ProviderRule};
use crate::telemetry;

/// Longest answer. A configuration is a fraction of it.
const LONGEST_ANSWER: usize = 256 << 10;
/// Longest part of an error's body that is repeated.
const LONGEST_QUOTE: usize = 200;

/// The way to a provider. Clones share connections.
#[derive(Clone)]
pub(super) struct Caller {
    provider: String,
    limit: Duration,
    way: Way,
}

#[derive(Clone)]
enum Way {
    Socket(PathBuf),
    /// What speaks with the API server speaks HTTP and TLS with others, too.
    Url(kube::Client),
}

impl Caller {
    /// Reads certificates, of the file that is named or of the system.
    pub(super) async fn new(rule: &ProviderRule) -> Result<Self, ProviderError> {
        let failed = |reason| ProviderError::Client { provider: rule.name.clone(), reason };
        let way = match &rule.place {
            ProviderPlace::File(path) => {
                return Err(failed(format!("{} is a file", path.display())));
            }
            ProviderPlace::Socket(path) => Way::Socket(path.clone()),
            ProviderPlace::Url { url, ca } => {
                let ca = ca.as_ref().map(|ca| ca.display().to_string());
                Way::Url(client(url, ca).await.map_err(failed)?)
            }
        };
        Ok(Self { provider: rule.name.clone(), limit: rule.timeout, way })
    }

    pub(super) async fn get(&self, path: &'static str) -> Result<Value, ProviderError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post(
        &self,
        path: &'static str,
        question: &Value,
    ) -> Result<Value, ProviderError> {
        self.ask(Method::POST, path, question.to_string().into()).await
    }

    /// An answer without a body is null.
    async fn ask(
        &self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<Value, ProviderError> {
        let provider = || self.provider.clone();
        let failed = |reason| ProviderError::Call { provider: provider(), path, reason };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = hyper::Uri::from_static(path);
        let json = hyper::header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        let Ok(answered) = timeout(self.limit, self.exchange(request)).await else {
            let limit = self.limit;
            return Err(ProviderError::Late { provider: provider(), path, limit });
        };
        let (status, body) = answered.map_err(failed)?;
        if status != 200 {
            let body = String::from_utf8_lossy(&body);
            let body = body.trim().chars().take(LONGEST_QUOTE).collect();
            return Err(ProviderError::Refused { provider: provider(), path, status, body });
        }
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|error| {
            let reason = error.to_string();
            ProviderError::Nonsense { provider: provider(), path, reason }
        })
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<(u16, Bytes), String> {
        match &self.way {
            Way::Url(client) => {
                let request = request.map(Body::from);
                let response = client.send(request).await.map_err(|e| telemetry::chain(&e))?;
                let status = response.status().as_u16();
                Ok((status, collect(response.into_body()).await?))
            }
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|e| format!("connect to {}: {e}", path.display()))?;
                let chain = |error: hyper::Error| telemetry::chain(&error);
                let (mut sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.map_err(chain)?;
                let mut request = request.map(Full::new);
                let host = hyper::header::HeaderValue::from_static("localhost");
                request.headers_mut().insert(HOST, host);
                let answer = async {
                    let response = sender.send_request(request).await.map_err(chain)?;
                    let status = response.status().as_u16();
                    Ok((status, collect(response.into_body()).await?))
                };
                // Both in this task, so that nothing is left of a call that is given up.
                tokio::pin!(answer, connection);
                tokio::select! {
                    answer = &mut answer => answer,
                    ended = &mut connection => match ended {
                        Ok(()) => answer.await,
                        Err(error) => Err(chain(error)),
                    },
                }
            }
        }
    }
}

async fn collect<B>(body: B) -> Result<Bytes, String>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let whole = Limited::new(body, LONGEST_ANSWER).collect().await;
    whole.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
}

/// A client for an address that is no API server's: it brings no credentials, and repeats nothing by
/// itself.
async fn client(url: &str, ca: Option<String>) -> Result<kube::Client, String> {
    let name = "provider".to_owned();
    let cluster =
        Cluster { server: Some(url.to_owned()), certificate_authority: ca, ..Cluster::default() };
    let context = Context { cluster: name.clone(), ..Context::default() };
    let kubeconfig = Kubeconfig {
        clusters: vec![NamedCluster {
            name: name.clone(),
            cluster: Some(cluster),
            ..NamedCluster::default()
        }],
        contexts: vec![NamedContext {
            name: name.clone(),
            context: Some(context),
            ..NamedContext::default()
        }],
        current_context: Some(name),
        ..Kubeconfig::default()
    };
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| telemetry::chain(&error))?;
    config.default_retry = false;
    kube::Client::try_from(config).map_err(|error| telemetry::chain(&error))
}
