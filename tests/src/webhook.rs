//! A provider in `DraNet`'s protocol, over TCP or a unix socket: it says what it is told to say, and
//! writes down what it was asked.

mod tls;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What a provider does.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that a provider does or not")]
pub struct Behaviour {
    pub knows_devices: bool,
    pub has_profiles: bool,
    /// What is to be run on the node for a profile. `None`: it knows of no such thing.
    pub runtime_hook: Option<Value>,
    /// Attributes of every device.
    pub attributes: Value,
    /// What lies below every device's configuration.
    pub config: Value,
    /// Configurations by the names of profiles; others are not found.
    pub profiles: BTreeMap<String, Value>,
    /// Profiles that are an address of a range, which nobody else has until it is released.
    pub ranges: BTreeMap<String, Ipv4Net>,
    /// Before each answer but that about its health.
    pub pause: Duration,
    /// No answer about the device of this name.
    pub silent_about: Option<String>,
    /// Instead of releasing.
    pub refuses_release: bool,
    /// Releases, and is silent about it.
    pub loses_release: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            knows_devices: true,
            has_profiles: true,
            runtime_hook: None,
            attributes: json!({}),
            config: json!({}),
            profiles: BTreeMap::new(),
            ranges: BTreeMap::new(),
            pause: Duration::ZERO,
            silent_about: None,
            refuses_release: false,
            loses_release: false,
        }
    }
}

/// A provider that runs until it is dropped.
#[derive(Debug)]
pub struct Webhook {
    shared: Arc<Shared>,
    serving: JoinHandle<io::Result<()>>,
    url: String,
    socket: Option<PathBuf>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Mutex<Behaviour>,
    calls: Mutex<Vec<(String, Value)>>,
    /// Which claim and device has an address.
    given: Mutex<BTreeMap<Ipv4Addr, Holder>>,
}

/// A claim's UID and a device's name.
type Holder = (String, String);

impl Webhook {
    /// On a port of the loopback interface.
    pub async fn on_tcp(behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (shared, router) = Self::router(behaviour);
        let serving = tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { shared, serving, url, socket: None })
    }

    /// On a port of the loopback interface, behind TLS. `directory` has `server.pem` and `server.key`.
    pub async fn on_tls(directory: &Path, behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("https://{}", listener.local_addr()?);
        let (shared, router) = Self::router(behaviour);
        let listener = tls::Listener::new(listener, directory)?;
        let serving = tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { shared, serving, url, socket: None })
    }

    /// On a socket at `path`.
    pub fn on_socket(path: &Path, behaviour: Behaviour) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let url = format!("unix://{}", path.display());
        let (shared, router) = Self::router(behaviour);
        let serving = tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { shared, serving, url, socket: Some(path.to_owned()) })
    }

    fn router(behaviour: Behaviour) -> (Arc<Shared>, Router) {
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            calls: Mutex::default(),
            given: Mutex::default(),
        });
        let router = Router::new()
            .route("/health", get(health))
            .fallback(post(answer))
            .with_state(Arc::clone(&shared));
        (shared, router)
    }

    /// As a configuration file has it.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut locked(&self.shared.behaviour));
    }

    /// The addresses of ranges that somebody has.
    pub fn given(&self) -> Vec<Ipv4Addr> {
        locked(&self.shared.given).keys().copied().collect()
    }

    /// The questions that were asked under a path such as `/GetProfileConfig`, in their order.
    pub fn asked(&self, path: &str) -> Vec<Value> {
        let calls = locked(&self.shared.calls);
        calls.iter().filter(|(called, _)| called == path).map(|(_, body)| body.clone()).collect()
    }
}

impl Shared {
    /// An address of the range, the same one for whoever asks again; `None` where none is left.
    fn give(&self, range: Ipv4Net, body: &Value) -> Option<Value> {
        let holder = holder(body);
        let mut given = locked(&self.given);
        let has = given.iter().find(|(_, has)| **has == holder).map(|(address, _)| *address);
        let address = has.or_else(|| range.hosts().find(|it| !given.contains_key(it)))?;
        given.insert(address, holder);
        let address = format!("{address}/{}", range.prefix_len());
        Some(json!({ "interface": { "addresses": [address] } }))
    }
}

fn holder(body: &Value) -> Holder {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&body["claim_uid"]), text(&body["device"]["name"]))
}

/// It dies with everything that it was about to say.
impl Drop for Webhook {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some(socket) = &self.socket {
            // Somebody may have taken it away already.
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn health(State(shared): State<Arc<Shared>>) -> Json<Value> {
    locked(&shared.calls).push(("/health".to_owned(), Value::Null));
    let behaviour = locked(&shared.behaviour);
    let mut health = json!({
        "cloudProvider": behaviour.knows_devices, "profileProvider": behaviour.has_profiles,
    });
    if behaviour.runtime_hook.is_some() {
        health["runtimeHook"] = true.into();
    }
    Json(health)
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, Json(body): Json<Value>) -> Response {
    let path = uri.path().to_owned();
    locked(&shared.calls).push((path.clone(), body.clone()));
    let behaviour = locked(&shared.behaviour).clone();
    sleep(behaviour.pause).await;
    if behaviour.silent_about.is_some_and(|name| body["name"] == name) {
        return std::future::pending().await;
    }
    match path.as_str() {
        "/GetDeviceAttributes" => Json(behaviour.attributes).into_response(),
        "/GetDeviceConfig" => Json(behaviour.config).into_response(),
        "/GetProfileConfig" => {
            let profile = body["config"]["profile"].as_str().unwrap_or_default();
            let of_range = || shared.give(*behaviour.ranges.get(profile)?, &body);
            if let Some(config) = behaviour.profiles.get(profile).cloned().or_else(of_range) {
                return Json(config).into_response();
            }
            let message = format!("profile {profile:?} not found");
            (StatusCode::NOT_FOUND, message).into_response()
        }
        "/GetRuntimeHook" => match behaviour.runtime_hook {
            Some(hook) => Json(hook).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        "/ReleaseProfileConfig" if behaviour.refuses_release => {
            (StatusCode::INTERNAL_SERVER_ERROR, "not now").into_response()
        }
        "/ReleaseProfileConfig" if behaviour.loses_release => std::future::pending().await,
        "/ReleaseProfileConfig" => {
            let holder = holder(&body);
            locked(&shared.given).retain(|_, has| *has != holder);
            StatusCode::OK.into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
