//! An API server with claims, slices and one node, as far as this test needs one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::stream;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";
const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims";

/// Clones share the objects.
#[derive(Clone, Default)]
pub(super) struct Api(Arc<Shared>);

struct Shared {
    objects: Mutex<Objects>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Objects {
    claims: BTreeMap<String, Value>,
    slices: BTreeMap<String, Value>,
    version: u64,
    /// Of the node. `None`: nobody is told.
    labels: Option<Value>,
    /// What happened to slices: version, kind of event, object.
    events: Vec<(u64, &'static str, Value)>,
    /// Methods and paths of all requests but watches.
    requests: Vec<String>,
    /// Answers to the next writes, in place of carrying them out.
    refusals: Vec<(u16, &'static str)>,
}

impl Default for Shared {
    fn default() -> Self {
        let objects = Objects { labels: Some(json!({})), ..Objects::default() };
        Self { objects: Mutex::new(objects), changed: watch::Sender::default() }
    }
}

impl Api {
    pub(super) fn client(&self) -> Client {
        let router = Router::new()
            .route("/api/v1/nodes/{name}", get(node))
            .route(&format!("{CLAIMS}/{{name}}"), get(claim))
            .route(SLICES, get(list_or_watch).post(write))
            .route(&format!("{SLICES}/{{name}}"), get(slice).put(write).delete(delete))
            .with_state(self.clone());
        Client::new(router, "default")
    }

    pub(super) fn add_claim(&self, claim: Value) {
        let name = claim["metadata"]["name"].as_str().unwrap().to_owned();
        self.objects().claims.insert(name, claim);
    }

    /// Has the node these labels; `None` refuses to tell.
    pub(super) fn label_node(&self, labels: Option<Value>) {
        self.objects().labels = labels;
    }

    /// All slices, by name.
    pub(super) fn slices(&self) -> Vec<Value> {
        self.objects().slices.values().cloned().collect()
    }

    /// How often slices were written or deleted, by the driver.
    pub(super) fn writes(&self) -> usize {
        self.objects().requests.iter().filter(|request| !request.starts_with("GET")).count()
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.objects().requests.clone()
    }

    /// Answers the next writes with these codes and messages, the last one first.
    pub(super) fn refuse(&self, refusals: &[(u16, &'static str)]) {
        self.objects().refusals = refusals.to_vec();
    }

    /// Somebody else deletes a slice.
    pub(super) fn remove_slice(&self, name: &Value) {
        self.forget(name.as_str().unwrap());
    }

    /// Somebody else writes a slice.
    pub(super) fn put_slice(&self, slice: Value) {
        self.store(slice);
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.objects.lock().unwrap()
    }

    fn store(&self, mut slice: Value) -> Value {
        let mut objects = self.objects();
        objects.version += 1;
        let version = objects.version;
        slice["metadata"]["resourceVersion"] = json!(version.to_string());
        let name = slice["metadata"]["name"].as_str().unwrap().to_owned();
        let was = objects.slices.insert(name, slice.clone());
        let kind = if was.is_some() { "MODIFIED" } else { "ADDED" };
        objects.events.push((version, kind, slice.clone()));
        drop(objects);
        self.0.changed.send_replace(version);
        slice
    }

    fn forget(&self, name: &str) -> Option<Value> {
        let mut objects = self.objects();
        let slice = objects.slices.remove(name)?;
        objects.version += 1;
        let version = objects.version;
        objects.events.push((version, "DELETED", slice.clone()));
        drop(objects);
        self.0.changed.send_replace(version);
        Some(slice)
    }

    /// Notes a request, and the refusal that it shall get.
    fn note(&self, method: &Method, uri: &Uri) -> Option<Response> {
        let mut objects = self.objects();
        objects.requests.push(format!("{method} {}", uri.path()));
        if method == Method::GET {
            return None;
        }
        objects.refusals.pop().map(|(code, message)| failure(code, message))
    }
}

async fn node(State(api): State<Api>, Path(name): Path<String>, uri: Uri) -> Response {
    let _ = api.note(&Method::GET, &uri);
    let Some(labels) = api.objects().labels.clone() else {
        return failure(503, "the API server is overloaded");
    };
    let metadata = json!({ "name": name, "uid": "node-uid", "labels": labels });
    Json(json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata })).into_response()
}

async fn claim(
    State(api): State<Api>,
    Path((_, name)): Path<(String, String)>,
    uri: Uri,
) -> Response {
    api.note(&Method::GET, &uri);
    let found = api.objects().claims.get(&name).cloned();
    found.map_or_else(|| failure(404, "no such claim"), |claim| Json(claim).into_response())
}

async fn list_or_watch(State(api): State<Api>, RawQuery(query): RawQuery, uri: Uri) -> Response {
    let query = query.unwrap_or_default();
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or("")
    };
    // Only what this node's driver may see; it must not read the slices of a whole cluster.
    assert_eq!(parameter("fieldSelector"), "spec.nodeName%3Dnode-a%2Cspec.driver%3Dweir.dev");
    if parameter("watch") == "true" {
        let since = parameter("resourceVersion").parse().unwrap();
        return events(api, since).into_response();
    }
    api.note(&Method::GET, &uri);
    let version = api.objects().version.to_string();
    Json(json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSliceList",
        "metadata": {"resourceVersion": version}, "items": api.slices(),
    }))
    .into_response()
}

/// Everything that happens after version `since`, a line each, without end.
fn events(api: Api, since: u64) -> Body {
    let changes = api.0.changed.subscribe();
    Body::from_stream(stream::unfold((api, changes, since), async |(api, mut changes, since)| {
        loop {
            let next = api.objects().events.iter().find(|(version, ..)| *version > since).cloned();
            if let Some((version, kind, object)) = next {
                let line = format!("{}\n", json!({"type": kind, "object": object}));
                return Some((Ok::<_, Infallible>(line), (api, changes, version)));
            }
            changes.changed().await.ok()?;
        }
    }))
}

async fn slice(State(api): State<Api>, Path(name): Path<String>) -> Response {
    let found = api.objects().slices.get(&name).cloned();
    found.map_or_else(|| failure(404, "no such slice"), |slice| Json(slice).into_response())
}

/// Creates by POST, replaces by PUT.
async fn write(
    State(api): State<Api>,
    method: Method,
    uri: Uri,
    Json(slice): Json<Value>,
) -> Response {
    if let Some(refusal) = api.note(&method, &uri) {
        return refusal;
    }
    let name = slice["metadata"]["name"].as_str().unwrap();
    let there = api.objects().slices.get(name).cloned();
    match (method, there) {
        (Method::POST, Some(_)) => failure(409, "already exists"),
        (Method::PUT, None) => failure(404, "no such slice"),
        (Method::PUT, Some(there))
            if there["metadata"]["resourceVersion"] != slice["metadata"]["resourceVersion"] =>
        {
            failure(409, "the object has been modified")
        }
        _ => Json(api.store(slice)).into_response(),
    }
}

async fn delete(
    State(api): State<Api>,
    Path(name): Path<String>,
    method: Method,
    uri: Uri,
) -> Response {
    if let Some(refusal) = api.note(&method, &uri) {
        return refusal;
    }
    api.forget(&name).map_or_else(|| failure(404, "no such slice"), |s| Json(s).into_response())
}

fn failure(code: u16, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": message, "reason": "Test",
    });
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}
