//! Watches: what changed since a version, as JSON lines, until somebody has enough.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::kind::Kind;
use super::refusal::Refusal;
use super::selector::Selector;
use super::store::Change;

/// What a watch asks for.
#[derive(Debug)]
pub(super) struct Watch {
    pub kind: &'static Kind,
    pub namespace: Option<String>,
    pub selector: Selector,
    /// `None`: all that is there now, then what changes.
    pub since: Option<u64>,
    /// A bookmark that says so follows the objects that are there already (a streaming list).
    pub initial_events: bool,
    /// After how long the server ends the watch.
    pub timeout: Duration,
}

/// Longest watch, unless the client asks for less.
const LONGEST: Duration = Duration::from_hours(1);

impl Watch {
    pub(super) fn timeout(seconds: Option<u64>) -> Duration {
        seconds.map_or(LONGEST, Duration::from_secs).min(LONGEST)
    }

    /// The response whose body goes on for as long as the watch does.
    pub(super) fn respond(self, shared: Arc<Shared>) -> Response {
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(self.feed(shared, sender));
        let mut response = Response::new(Body::from_stream(ReceiverStream::new(receiver)));
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        response
    }

    async fn feed(self, shared: Arc<Shared>, lines: mpsc::Sender<Result<Bytes, Infallible>>) {
        // Subscribed before the first look, so that no change falls between the two.
        let mut versions = shared.versions.subscribe();
        let end = sleep_until(Instant::now() + self.timeout);
        tokio::pin!(end);
        let mut position = self.since.unwrap_or_default();
        let mut events = self.first(&shared, &mut position);
        loop {
            let (batch, is_last) = match events {
                Ok(batch) => (batch, false),
                Err(refusal) => {
                    (vec![json!({ "type": "ERROR", "object": refusal.to_status() })], true)
                }
            };
            for event in batch {
                if lines.send(Ok(Bytes::from(format!("{event}\n")))).await.is_err() {
                    return;
                }
            }
            if is_last {
                return;
            }
            tokio::select! {
                () = lines.closed() => return,
                () = shared.shutdown.cancelled() => return,
                () = &mut end => return,
                changed = versions.changed() => if changed.is_err() { return },
            }
            events = self.next(&shared, &mut position);
        }
    }

    /// What is sent at once; `position` becomes the version to go on from.
    fn first(&self, shared: &Shared, position: &mut u64) -> Result<Vec<Value>, Refusal> {
        if self.since.is_some() && !self.initial_events {
            return self.next(shared, position);
        }
        let store = shared.store();
        *position = store.version();
        let objects = store.list(self.kind, self.namespace.as_deref(), &self.selector);
        let mut events: Vec<Value> = objects
            .into_iter()
            .map(|object| json!({ "type": "ADDED", "object": object }))
            .collect();
        if self.initial_events {
            events.push(json!({ "type": "BOOKMARK", "object": {
                "kind": self.kind.name,
                "apiVersion": self.kind.api_version(),
                "metadata": {
                    "resourceVersion": store.version().to_string(),
                    "annotations": { "k8s.io/initial-events-end": "true" },
                },
            }}));
        }
        Ok(events)
    }

    fn next(&self, shared: &Shared, position: &mut u64) -> Result<Vec<Value>, Refusal> {
        let store = shared.store();
        let changes = store.changes_after(*position)?;
        let events = changes
            .iter()
            .filter(|change| change.key.is_in(self.kind, self.namespace.as_deref()))
            .filter_map(|change| self.event(change))
            .collect();
        *position = store.version();
        Ok(events)
    }

    /// How a change looks to this watcher: an object comes into its view, changes, or leaves it.
    fn event(&self, change: &Change) -> Option<Value> {
        let seen = |object: &Option<Value>| {
            object.as_ref().is_some_and(|object| self.selector.matches(object))
        };
        let (kind, object) = match (seen(&change.before), seen(&change.after)) {
            (false, false) => return None,
            (false, true) => ("ADDED", change.after.clone()),
            (true, true) => ("MODIFIED", change.after.clone()),
            (true, false) => ("DELETED", change.after.clone().or_else(|| change.before.clone())),
        };
        Some(json!({ "type": kind, "object": object }))
    }
}
