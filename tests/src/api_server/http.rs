//! From an HTTP request to a call of the store, and back to JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use serde_json::{Value, json};

use super::kind::{KINDS, Kind, Scope};
use super::refusal::Refusal;
use super::selector::Selector;
use super::store::{Key, Part};
use super::watch::Watch;
use super::{Request, Shared, Verb};

/// What a path names.
struct Target {
    kind: &'static Kind,
    namespace: Option<String>,
    name: Option<String>,
    part: Part,
}

/// A request, read.
struct Call {
    target: Target,
    verb: Verb,
    query: BTreeMap<String, String>,
}

/// Everything arrives here.
pub(super) async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(fixed) = discovery(uri.path()) {
        return json_response(200, &fixed);
    }
    let call = match Call::parse(&method, &uri, &headers) {
        Ok(call) => call,
        Err(refusal) => return json_response(refusal.code, &refusal.to_status()),
    };
    let request = call.request();
    if let Some(status) = shared.fault(&request) {
        shared.record(request, status);
        let refusal = Refusal::new(status, "a fault that the test asked for");
        return json_response(status, &refusal.to_status());
    }
    if call.verb == Verb::Watch {
        return match call.watch() {
            Ok(watch) => {
                shared.record(request, 200);
                watch.respond(shared)
            }
            Err(refusal) => json_response(refusal.code, &refusal.to_status()),
        };
    }
    let (status, answer) = match call.perform(&shared, &body) {
        Ok((status, answer)) => (status, answer),
        Err(refusal) => (refusal.code, refusal.to_status()),
    };
    shared.record(request, status);
    json_response(status, &answer)
}

impl Call {
    fn parse(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, Refusal> {
        let query = query(uri.query().unwrap_or_default());
        let target = Target::parse(uri.path()).ok_or_else(|| {
            Refusal::new(404, format!("the server could not find {}", uri.path()))
        })?;
        let is_watch = query.get("watch").is_some_and(|watch| watch == "1" || watch == "true");
        let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let verb = match (method.as_str(), target.name.is_some()) {
            ("GET", true) => Verb::Get,
            ("GET", false) if is_watch => Verb::Watch,
            ("GET", false) => Verb::List,
            ("POST", false) => Verb::Create,
            ("PUT", true) => Verb::Update,
            ("PATCH", true) => match media.unwrap_or_default() {
                "application/apply-patch+yaml" => Verb::Apply,
                "application/merge-patch+json" => Verb::Patch,
                other => {
                    let message = format!("patches of type {other:?} are not served here");
                    return Err(Refusal::new(415, message));
                }
            },
            ("DELETE", true) => Verb::Delete,
            ("DELETE", false) => Verb::DeleteCollection,
            (method, _) => {
                return Err(Refusal::new(
                    405,
                    format!("{method} is not allowed on {}", uri.path()),
                ));
            }
        };
        Ok(Self { target, verb, query })
    }

    fn request(&self) -> Request {
        Request {
            verb: self.verb,
            resource: self.target.kind.plural,
            namespace: self.target.namespace.clone(),
            name: self.target.name.clone(),
            is_status: self.target.part == Part::Status,
            query: self.query.clone(),
            status: 0,
        }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn selector(&self) -> Result<Selector, Refusal> {
        Selector::parse(self.parameter("fieldSelector"), self.parameter("labelSelector"))
    }

    fn watch(&self) -> Result<Watch, Refusal> {
        let number = |name| {
            self.parameter(name)
                .map(str::parse::<u64>)
                .transpose()
                .map_err(|_| Refusal::bad_request(format!("{name} is no number")))
        };
        Ok(Watch {
            kind: self.target.kind,
            namespace: self.target.namespace.clone(),
            selector: self.selector()?,
            since: number("resourceVersion")?.filter(|version| *version > 0),
            initial_events: self.parameter("sendInitialEvents") == Some("true"),
            timeout: Watch::timeout(number("timeoutSeconds")?),
        })
    }

    fn perform(&self, shared: &Shared, body: &[u8]) -> Result<(u16, Value), Refusal> {
        let Target { kind, namespace, name, part } = &self.target;
        let (kind, part) = (*kind, *part);
        let key = Key::new(kind, namespace.as_deref(), name.as_deref().unwrap_or_default());
        let mut store = shared.store_for_writing();
        match self.verb {
            Verb::Get => Ok((200, store.read(kind, &key)?)),
            Verb::List => {
                let items = store.list(kind, namespace.as_deref(), &self.selector()?);
                let list = json!({
                    "kind": format!("{}List", kind.name),
                    "apiVersion": kind.api_version(),
                    "metadata": { "resourceVersion": store.version().to_string() },
                    "items": items,
                });
                Ok((200, list))
            }
            Verb::Create if kind.scope == Scope::Namespaced && namespace.is_none() => {
                Err(Refusal::new(405, "creating needs a namespace in the path"))
            }
            Verb::Create => {
                Ok((201, store.create(kind, namespace.as_deref(), object(body)?, part)?))
            }
            Verb::Update => Ok((200, store.update(kind, &key, object(body)?, part)?)),
            Verb::Patch => Ok((200, store.merge_patch(kind, &key, &object(body)?, part)?)),
            Verb::Apply => {
                let manager = self.parameter("fieldManager").ok_or_else(|| {
                    let wrong = "fieldManager: Required value: is required for apply patch";
                    Refusal::invalid(kind, &key.name, &[wrong.to_owned()])
                })?;
                let applied = applied(kind, &key.name, body)?;
                let (answer, is_new) = store.apply(kind, &key, manager, &applied, part)?;
                Ok((if is_new { 201 } else { 200 }, answer))
            }
            Verb::Delete => {
                let options = if body.is_empty() { Value::Null } else { object(body)? };
                let gone = store.delete(kind, &key, &options["preconditions"])?;
                Ok((200, gone))
            }
            Verb::DeleteCollection => {
                for object in store.list(kind, namespace.as_deref(), &self.selector()?) {
                    let text = |field| object["metadata"][field].as_str();
                    let name = text("name").unwrap_or_default();
                    store.delete(kind, &Key::new(kind, text("namespace"), name), &Value::Null)?;
                }
                Ok((200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })))
            }
            Verb::Watch => Err(Refusal::new(500, "watches are answered elsewhere")),
        }
    }
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path.split('/').skip(1).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status"]) => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let (plural, name, part) = match rest {
            [plural] => (plural, None, Part::Main),
            [plural, name] => (plural, Some((*name).to_owned()), Part::Main),
            [plural, name, "status"] => (plural, Some((*name).to_owned()), Part::Status),
            _ => return None,
        };
        let kind = Kind::by_plural(group, version, plural)?;
        let fits = match kind.scope {
            Scope::Cluster => namespace.is_none(),
            Scope::Namespaced => namespace.is_some() || name.is_none(),
        };
        let is_served = part != Part::Status || kind.has_status;
        (fits && is_served).then_some(Self { kind, namespace, name, part })
    }
}

fn object(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is no JSON: {error}")))
}

/// The body of an apply, which may be YAML and must say what it is about.
fn applied(kind: &Kind, name: &str, body: &[u8]) -> Result<Value, Refusal> {
    let applied: Value = serde_saphyr::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is no YAML: {error}")))?;
    if Kind::of(&applied) != Some(kind) {
        let message =
            format!("apply needs apiVersion {} and kind {}", kind.api_version(), kind.name);
        return Err(Refusal::bad_request(message));
    }
    let named = applied["metadata"]["name"].as_str();
    if named.is_some_and(|named| named != name) {
        return Err(Refusal::bad_request("the name of the object does not match the request"));
    }
    let mut applied = applied;
    applied["metadata"]["name"] = name.into();
    Ok(applied)
}

/// The few fixed answers with which clients find out what is served.
fn discovery(path: &str) -> Option<Value> {
    if path == "/version" {
        let version = json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.0" });
        return Some(version);
    }
    let group_version = path
        .strip_prefix("/apis/")
        .or_else(|| path.strip_prefix("/api/").filter(|p| *p == "v1"))?;
    let kinds: Vec<&Kind> = KINDS.iter().filter(|k| k.api_version() == group_version).collect();
    if kinds.is_empty() {
        return None;
    }
    let resources: Vec<Value> = kinds
        .into_iter()
        .map(|kind| {
            json!({
                "name": kind.plural,
                "singularName": kind.name.to_lowercase(),
                "namespaced": kind.scope == Scope::Namespaced,
                "kind": kind.name,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            })
        })
        .collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }))
}

fn json_response(status: u16, answer: &Value) -> Response {
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn query(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(&value.replace('+', " "))))
        .collect()
}

/// Undoes percent-encoding. What is no valid escape stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [high, low, ..] if *first == b'%' => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_kind_a_place_and_a_part() {
        let target = Target::parse("/apis/resource.k8s.io/v1/namespaces/a/resourceclaims/b/status");
        let target = target.unwrap();
        assert_eq!(target.kind.name, "ResourceClaim");
        assert_eq!((target.namespace.as_deref(), target.name.as_deref()), (Some("a"), Some("b")));
        assert_eq!(target.part, Part::Status);

        let namespace = Target::parse("/api/v1/namespaces/a").unwrap();
        assert_eq!((namespace.kind.name, namespace.name.as_deref()), ("Namespace", Some("a")));

        for wrong in [
            "/api/v1/pods/name",
            "/apis/resource.k8s.io/v1beta1/resourceslices",
            "/apis/resource.k8s.io/v1/namespaces/a/resourceslices",
            "/apis/resource.k8s.io/v1/resourceslices/a/status",
            "/healthz",
        ] {
            assert!(Target::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_query_is_decoded() {
        let query = query("fieldSelector=spec.nodeName%3Dnode-a&watch=true&x");
        assert_eq!(query["fieldSelector"], "spec.nodeName=node-a");
        assert_eq!(query["x"], "");
        assert_eq!(decoded("100%"), "100%");
    }
}
