//! A small Kubernetes API server that only exists in memory, spoken to over real HTTP.
//!
//! It serves the kinds that a network driver meets (`resource.k8s.io/v1`, nodes, pods, events) with
//! the semantics that bite drivers: resource versions and conflicts, status as a part of its own,
//! immutable fields, the limits of slices, watches that expire. It keeps a list of the
//! requests it served and fails requests on demand.
//!
//! What it does not have: authentication, admission plugins, discovery beyond the resource lists,
//! strategic and JSON patches, `managedFields` and conflicts between appliers (see `merge.rs`),
//! paging, garbage collection by owner references, and pods that end gracefully.

mod http;
mod kind;
mod merge;
mod quantities;
mod refusal;
mod selector;
mod store;
mod validate;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::kind::Kind;
pub use self::refusal::Refusal;
use self::selector::Selector;
use self::store::{Key, Part, Store};

/// What a request wants, in the words of Kubernetes' authorization; `Apply` is told from `Patch`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Apply,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// Whether it can change something.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// A request that was served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    pub verb: Verb,
    /// The kind's plural name: `resourceslices`.
    pub resource: &'static str,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// Whether the path was that of the status.
    pub is_status: bool,
    pub query: BTreeMap<String, String>,
    /// The HTTP status of the answer.
    pub status: u16,
}

/// Why manifests could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("read the manifests as YAML: {0}")]
    Yaml(String),
    #[error("no kind of this server: apiVersion {api_version}, kind {kind}")]
    Kind { api_version: Value, kind: Value },
    #[error("store {kind}")]
    Refused { kind: &'static str, source: Refusal },
}

/// A running server. Dropping it ends its connections and watches.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1.
    pub async fn start() -> io::Result<Self> {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts a server on `address`. Its tasks run on the caller's runtime.
    pub async fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        // A full slice of devices comes near axum's limit of 2 MiB; etcd's own is 1.5 MiB.
        let router = Router::new()
            .fallback(http::serve)
            .layer(DefaultBodyLimit::max(4 << 20))
            .with_state(Arc::clone(&shared));
        let shutdown = shared.shutdown.clone().cancelled_owned();
        tokio::spawn(async move {
            // Serving ends only with the token, or with the runtime.
            drop(axum::serve(listener, router).with_graceful_shutdown(shutdown).await);
        });
        Ok(Self { address, shared })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of this server, in namespace `default`.
    pub fn client(&self) -> kube::Result<kube::Client> {
        let url = self.url().parse::<::http::Uri>();
        let url = url.map_err(|error| kube::Error::HttpError(error.into()))?;
        kube::Client::try_from(kube::Config::new(url))
    }

    /// Writes a kubeconfig file that names this server: plain HTTP, nobody in particular.
    pub fn kubeconfig(&self, path: &Path) -> io::Result<()> {
        let text = format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: box\n\
             clusters:\n\
             - name: box\n  cluster:\n    server: {url}\n\
             users:\n\
             - name: nobody\n  user: {{}}\n\
             contexts:\n\
             - name: box\n  context:\n    cluster: box\n    user: nobody\n    namespace: default\n",
            url = self.url(),
        );
        std::fs::write(path, text)
    }

    /// Stores every document of `yaml`, new or over what is there, status included. Answers the
    /// objects as stored.
    ///
    /// # Errors
    ///
    /// The first document that cannot be stored; those before it are.
    pub fn apply(&self, yaml: &str) -> Result<Vec<Value>, ApplyError> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)
            .map_err(|error| ApplyError::Yaml(error.to_string()))?;
        let documents = documents.into_iter().filter(|document| !document.is_null());
        documents.map(|document| self.store_object(document)).collect()
    }

    fn store_object(&self, object: Value) -> Result<Value, ApplyError> {
        let kind = Kind::of(&object).ok_or_else(|| ApplyError::Kind {
            api_version: object["apiVersion"].clone(),
            kind: object["kind"].clone(),
        })?;
        let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
        let namespace = match kind.scope {
            kind::Scope::Cluster => None,
            kind::Scope::Namespaced => {
                Some(text("namespace").unwrap_or_else(|| "default".to_owned()))
            }
        };
        let key = Key::new(kind, namespace.as_deref(), &text("name").unwrap_or_default());
        let mut store = self.shared.store_for_writing();
        let stored = match store.read(kind, &key) {
            Ok(_) => store.update(kind, &key, object, Part::Whole),
            Err(_) => store.create(kind, namespace.as_deref(), object, Part::Whole),
        };
        stored.map_err(|source| ApplyError::Refused { kind: kind.name, source })
    }

    /// One object, as stored.
    pub fn object<K>(&self, namespace: Option<&str>, name: &str) -> Option<K>
    where
        K: k8s_openapi::Resource + DeserializeOwned,
    {
        let kind = Kind::by_plural(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT)?;
        let object = self.shared.store().read(kind, &Key::new(kind, namespace, name)).ok()?;
        serde_json::from_value(object).ok()
    }

    /// All objects of a kind, in all namespaces, by name.
    pub fn objects<K>(&self) -> Vec<K>
    where
        K: k8s_openapi::Resource + DeserializeOwned,
    {
        let Some(kind) = Kind::by_plural(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT) else {
            return Vec::new();
        };
        let objects = self.shared.store().list(kind, None, &Selector::default());
        objects.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect()
    }

    /// All requests so far, in the order in which they were answered; a watch counts when it opens.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Starts the list of requests anew.
    pub fn forget_requests(&self) {
        lock(&self.shared.requests).clear();
    }

    /// Answers the next `count` requests, whatever they are, with `status`.
    pub fn fail_next(&self, count: usize, status: u16) {
        self.fail_when(count, status, |_| true);
    }

    /// Answers the next `count` requests that `matches` picks with `status`.
    pub fn fail_when(
        &self,
        count: usize,
        status: u16,
        matches: impl Fn(&Request) -> bool + Send + 'static,
    ) {
        let fault = Fault { left: count, status, matches: Box::new(matches) };
        lock(&self.shared.faults).push(fault);
    }

    /// Forgets the history: watches that want to go on from before now get 410.
    pub fn compact(&self) {
        self.shared.store_for_writing().compact();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
    }
}

struct Fault {
    left: usize,
    status: u16,
    matches: Box<dyn Fn(&Request) -> bool + Send>,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("left", &self.left)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// What requests and the owner of the server share.
#[derive(Debug, Default)]
struct Shared {
    store: Mutex<Store>,
    /// The store's version, for those who wait for a change.
    versions: tokio::sync::watch::Sender<u64>,
    requests: Mutex<Vec<Request>>,
    faults: Mutex<Vec<Fault>>,
    shutdown: CancellationToken,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    fn store_for_writing(&self) -> Writing<'_> {
        Writing { store: self.store(), versions: &self.versions }
    }

    fn record(&self, mut request: Request, status: u16) {
        request.status = status;
        lock(&self.requests).push(request);
    }

    /// The status that a request shall fail with, if any.
    fn fault(&self, request: &Request) -> Option<u16> {
        let mut faults = lock(&self.faults);
        let fault = faults.iter_mut().find(|fault| fault.left > 0 && (fault.matches)(request))?;
        fault.left -= 1;
        let status = fault.status;
        faults.retain(|fault| fault.left > 0);
        Some(status)
    }
}

/// The store, held for a write; tells the watches when it is let go.
struct Writing<'a> {
    store: MutexGuard<'a, Store>,
    versions: &'a tokio::sync::watch::Sender<u64>,
}

impl Deref for Writing<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let version = self.store.version();
        self.versions.send_if_modified(|known| std::mem::replace(known, version) != version);
    }
}

/// A test that panics while it holds a lock has failed already; the others may go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
