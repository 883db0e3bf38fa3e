//! The side of the door from which is knocked.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{LARGEST_BODY, PATH, PolicyAnswer, PolicyRequest, Refusal, socket_path};

/// How long an answer may take: as long as the driver lets a connection last, and some.
const PATIENCE: Duration = Duration::from_secs(100);

/// What is to be done with a policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    Apply,
    Clear,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("no driver runs on this node (nobody listens on {})", .path.display())]
    NotRunning { path: PathBuf },
    #[error("connect to {}", .path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("call the driver on {}", .path.display())]
    Http { path: PathBuf, source: hyper::Error },
    #[error(
        "the driver on {} did not answer within {} s; what it does goes on",
        .path.display(),
        PATIENCE.as_secs()
    )]
    TimedOut { path: PathBuf },
    /// The driver has changed nothing, and says why.
    #[error("{}", .refusal.error)]
    Refused { is_nothing_selected: bool, refusal: Refusal },
    #[error("the answer of the driver (status {status}) makes no sense: {reason}")]
    Nonsense { status: StatusCode, reason: String },
    #[error("start the client")]
    Runtime(#[source] io::Error),
    #[error("make JSON of the policy")]
    Json(#[source] serde_json::Error),
}

/// Asks the driver that keeps its state in `state_dir`. Blocks.
///
/// # Errors
///
/// Any [`CallError`]. Without an answer nobody knows whether the driver did as it was asked.
pub fn call(
    state_dir: &Path,
    verb: Verb,
    request: &PolicyRequest,
) -> Result<PolicyAnswer, CallError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CallError::Runtime)?;
    let path = socket_path(state_dir);
    let asked = async {
        let answered = tokio::time::timeout(PATIENCE, exchange(&path, verb, request)).await;
        answered.unwrap_or_else(|_| Err(CallError::TimedOut { path: path.clone() }))
    };
    let (status, body) = runtime.block_on(asked)?;
    let nonsense = |error: serde_json::Error| CallError::Nonsense {
        status,
        reason: format!("{error} in {:?}", String::from_utf8_lossy(&body)),
    };
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(nonsense);
    }
    let refusal = serde_json::from_slice(&body).map_err(nonsense)?;
    let is_nothing_selected = status == StatusCode::NOT_FOUND;
    Err(CallError::Refused { is_nothing_selected, refusal })
}

async fn exchange(
    path: &Path,
    verb: Verb,
    request: &PolicyRequest,
) -> Result<(StatusCode, Bytes), CallError> {
    let body = serde_json::to_vec(request).map_err(CallError::Json)?;
    let stream = UnixStream::connect(path).await.map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                CallError::NotRunning { path }
            }
            _ => CallError::Connect { path, source },
        }
    })?;
    let broken = |source| CallError::Http { path: path.to_owned(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let pumping = tokio::spawn(connection);
    let mut asked = Request::new(Full::new(Bytes::from(body)));
    *asked.method_mut() = match verb {
        Verb::Apply => Method::PUT,
        Verb::Clear => Method::DELETE,
    };
    *asked.uri_mut() = axum::http::Uri::from_static(PATH);
    let headers = asked.headers_mut();
    headers.insert(HOST, axum::http::HeaderValue::from_static("weir"));
    headers.insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    let response = sender.send_request(asked).await.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_BODY)
        .collect()
        .await
        .map_err(|error| CallError::Nonsense { status, reason: error.to_string() })?
        .to_bytes();
    pumping.abort();
    Ok((status, body))
}
