//! The side that calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::oneshot;

use super::proto::{Request, Response, Status};
use super::{Kind, TooLong, message, receive};
use crate::nri::mux::{Closed, Conn, Incoming, Outgoing};

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The other side answered an error; `code` is as in `google/rpc/code.proto`.
    #[error("{message} (code {code})")]
    Refused { code: i32, message: String },
    #[error("decode the response: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// Makes calls over one connection.
#[derive(Clone, Debug)]
pub struct Client {
    outgoing: Outgoing,
    pending: Arc<Mutex<Pending>>,
}

/// The calls that wait for their answers.
#[derive(Debug)]
struct Pending {
    /// The next stream number; `None` when the connection has ended or used up its numbers.
    next: Option<u32>,
    calls: HashMap<u32, oneshot::Sender<Result<Vec<u8>, CallError>>>,
}

impl Client {
    /// A client of what the other side of `conn` serves. Answers arrive only while the future is
    /// polled; it ends with the connection.
    pub fn open(conn: Conn) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let pending = Arc::new(Mutex::new(Pending { next: Some(1), calls: HashMap::new() }));
        let client = Self { outgoing: conn.outgoing, pending: Arc::clone(&pending) };
        (client, read_answers(conn.incoming, pending))
    }

    /// Makes one call and waits for its answer, at most for `limit`.
    ///
    /// # Errors
    ///
    /// Any [`CallError`]. After [`CallError::Timeout`] the call may still be carried out.
    pub async fn call(
        &self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
        };
        let (answer, answered) = oneshot::channel();
        let stream = lock(&self.pending).add(answer)?;
        let exchange = async {
            self.outgoing.send(message(stream, Kind::Request, &request)?).await?;
            answered.await.map_err(|_| Closed)?
        };
        let result = tokio::time::timeout(limit, exchange).await;
        lock(&self.pending).calls.remove(&stream);
        result.unwrap_or(Err(CallError::Timeout(limit)))
    }
}

impl Pending {
    fn add(&mut self, answer: oneshot::Sender<Result<Vec<u8>, CallError>>) -> Result<u32, Closed> {
        let stream = self.next.ok_or(Closed)?;
        self.next = stream.checked_add(2);
        self.calls.insert(stream, answer);
        Ok(stream)
    }
}

async fn read_answers(mut incoming: Incoming, pending: Arc<Mutex<Pending>>) {
    while let Some(message) = receive(&mut incoming).await {
        let call = match message.kind {
            Kind::Response => lock(&pending).calls.remove(&message.stream),
            Kind::Request | Kind::Other(_) => None,
        };
        let Some(call) = call else {
            tracing::debug!(stream = message.stream, kind = ?message.kind, "nobody waits for this");
            continue;
        };
        let result = message.payload.map_err(CallError::from).and_then(|payload| {
            let Response { status, payload } = Response::decode(payload)?;
            match status {
                Some(Status { code, message }) if code != 0 => {
                    Err(CallError::Refused { code, message })
                }
                _ => Ok(payload),
            }
        });
        // The caller may have stopped waiting.
        let _ = call.send(result);
    }
    let mut pending = lock(&pending);
    pending.next = None;
    pending.calls.clear();
}

/// No code that holds the lock can panic half-way, so what a poisoned one guards is whole.
fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
