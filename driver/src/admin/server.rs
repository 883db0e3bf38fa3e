//! The side of the door that opens.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use axum::serve::Listener;
use axum::{Json, Router};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    AdminError, Applied, LARGEST_BODY, PATH, PolicyAnswer, PolicyRequest, Refusal, socket_path,
};
use crate::attach::{AttachError, Ordered, Worker};
use crate::claim;
use crate::model::Problems;
use crate::sys::socket::{self, SocketFile};
use crate::telemetry;

/// How long a connection may last, whatever it does. Replacing the programs of one attachment takes
/// milliseconds.
const LONGEST_CONNECTION: Duration = Duration::from_secs(90);

/// How long requests that are being answered may hold up the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The open door. Dropped, its file stays where it is and leads nowhere.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    file: SocketFile,
}

impl Door {
    /// Opens the door below `state_dir`, in place of one that an earlier driver left.
    ///
    /// # Errors
    ///
    /// Nothing has changed then.
    pub fn open(state_dir: &Path) -> Result<Self, AdminError> {
        let path = socket_path(state_dir);
        match socket::listen(&path) {
            Ok((listener, file)) => Ok(Self { listener, file }),
            Err(source) => Err(AdminError { path, source }),
        }
    }

    /// Serves until `shutdown`, then removes the file.
    ///
    /// # Errors
    ///
    /// The listener's, when it stops working.
    pub async fn serve(self, worker: Worker, shutdown: CancellationToken) -> io::Result<()> {
        let routes = Router::new()
            .route(PATH, put(apply).delete(clear))
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .with_state(worker);
        let stop = shutdown.clone().cancelled_owned();
        let serving = axum::serve(Trusted(self.listener), routes).with_graceful_shutdown(stop);
        let ended = tokio::select! {
            ended = serving.into_future() => ended,
            () = async { shutdown.cancelled().await; sleep(FAREWELL).await } => Ok(()),
        };
        self.file.remove();
        ended
    }
}

async fn apply(
    State(worker): State<Worker>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let PolicyRequest { selection, policy } = read(body)?;
    let Some(document) = policy else {
        return Err(Refused::malformed("policy: is required"));
    };
    let policy = claim::parse_policy(&document)?;
    tracing::info!(%selection, "a policy is applied");
    Ok(answer(&worker.set_policy(selection, Some(policy)).await?))
}

async fn clear(
    State(worker): State<Worker>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let PolicyRequest { selection, policy } = read(body)?;
    if policy.is_some() {
        return Err(Refused::malformed("policy: is not for DELETE"));
    }
    tracing::info!(%selection, "a policy is cleared");
    Ok(answer(&worker.set_policy(selection, None).await?))
}

fn read(body: Result<Bytes, BytesRejection>) -> Result<PolicyRequest, Refused> {
    let body = body.map_err(|rejection| {
        let refusal = Refusal { error: rejection.body_text(), ..Refusal::default() };
        Refused { status: rejection.status(), refusal }
    })?;
    serde_json::from_slice(&body).map_err(|error| Refused::malformed(&error.to_string()))
}

fn answer(Ordered { changed, refused }: &Ordered) -> Response {
    let applied = changed.iter().filter_map(|it| Applied::of(&it.record, it.took)).collect();
    let refused: Vec<_> = refused.iter().map(|error| telemetry::chain(error)).collect();
    for error in &refused {
        tracing::warn!(error, "a policy was refused for one device");
    }
    Json(PolicyAnswer { applied, refused }).into_response()
}

/// An answer that says why nothing was changed.
struct Refused {
    status: StatusCode,
    refusal: Refusal,
}

impl Refused {
    fn malformed(error: &str) -> Self {
        let refusal = Refusal { error: error.to_owned(), ..Refusal::default() };
        Self { status: StatusCode::BAD_REQUEST, refusal }
    }
}

impl From<Problems> for Refused {
    fn from(problems: Problems) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, refusal: Refusal::from(&problems) }
    }
}

impl From<AttachError> for Refused {
    fn from(error: AttachError) -> Self {
        let status = match error {
            AttachError::NothingSelected { .. } => StatusCode::NOT_FOUND,
            AttachError::NoPrograms { .. }
            | AttachError::OnItsWay { .. }
            | AttachError::Unenforceable { .. } => StatusCode::CONFLICT,
            AttachError::Policy { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            AttachError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let error = telemetry::chain(&error);
        tracing::warn!(error, "a policy was refused");
        Self { status, refusal: Refusal { error, ..Refusal::default() } }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(self.refusal)).into_response()
    }
}

/// Accepts whom the socket admits, and for a bounded time.
struct Trusted(UnixListener);

impl Listener for Trusted {
    type Io = Bounded;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.0).await;
            if socket::admits(&stream) {
                let end = Box::pin(sleep(LONGEST_CONNECTION));
                return (Bounded { stream, end }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection from which nothing can be read any more when its time is up.
struct Bounded {
    stream: UnixStream,
    end: Pin<Box<Sleep>>,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
