//! `/metrics`, `/healthz` and `/readyz`.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::attachments::Snapshot;
use super::{Metrics, Readiness, Sightings};
use crate::attach::Worker;
use crate::datapath::CounterSource;

/// What `OpenMetrics` 1.0 says that its text is served as.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long requests that are being answered may hold up the end.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Served {
    metrics: Arc<Metrics>,
    readiness: Readiness,
    source: Arc<dyn CounterSource>,
    sightings: watch::Receiver<Sightings>,
    worker: Worker,
}

/// Answers scrapes and probes until `shutdown`.
///
/// `/healthz` is about liveness alone: it fails only if the worker's thread has ended, because then
/// nothing but a restart helps. What can mend itself is `/readyz`'s.
///
/// # Errors
///
/// The listener's, when it stops working.
pub async fn serve(
    listen: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    source: Arc<dyn CounterSource>,
    sightings: watch::Receiver<Sightings>,
    worker: Worker,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(Served { metrics, readiness, source, sightings, worker });
    let stop = shutdown.clone().cancelled_owned();
    let serving = axum::serve(listen, routes).with_graceful_shutdown(stop);
    tokio::select! {
        ended = serving.into_future() => ended,
        () = async { shutdown.cancelled().await; tokio::time::sleep(FAREWELL).await } => Ok(()),
    }
}

async fn scrape(State(served): State<Served>) -> Response {
    // Reading maps blocks: system calls, for each attachment.
    match tokio::task::spawn_blocking(move || exposition(&served)).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Ok(Err(fmt::Error)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn exposition(served: &Served) -> Result<String, fmt::Error> {
    let Served { metrics, source, sightings, worker, .. } = served;
    let sightings = Arc::clone(&sightings.borrow());
    // First, because it may have something to add to the driver's own counters.
    let snapshot = Snapshot::take(&worker.records(), source.as_ref(), &sightings, metrics);
    let mut attachments = Registry::default();
    attachments.register_collector(Box::new(snapshot));

    let mut text = String::new();
    metrics.encode(&mut text)?;
    encode_registry(&mut text, &attachments)?;
    encode_eof(&mut text)?;
    Ok(text)
}

async fn health(State(served): State<Served>) -> Response {
    // The thread owns the sending end and drops it only by ending.
    if served.worker.watch().has_changed().is_ok() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the worker has ended\n").into_response()
    }
}

async fn ready(State(served): State<Served>) -> Response {
    let lacks = served.readiness.lacks();
    if lacks.is_empty() {
        return (StatusCode::OK, "ok\n").into_response();
    }
    let mut text = String::new();
    for lack in lacks {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{lack}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

#[cfg(test)]
mod tests;
