//! The side that is called.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::proto::{Request, Response};
use super::{Answer, Code, Kind, Message, message, receive, timeout};
use crate::nri::mux::{Conn, Outgoing};

/// How many calls may be under way at once. Runtimes make one at a time.
const CALLS_AT_ONCE: usize = 64;

/// One call to be answered.
#[derive(Clone, Debug)]
pub struct Call {
    pub service: String,
    pub method: String,
    pub payload: Vec<u8>,
    /// When its request was read.
    pub received: Instant,
    /// How long the caller waits, if it said so.
    pub timeout: Option<Duration>,
}

/// Answers each call with what `answer` makes of it, until the connection ends.
///
/// Calls run side by side as tasks of `tasks`, and a call whose caller has gone or given up still
/// runs to its end. A call that panics is answered [`Code::Internal`].
pub async fn serve<F, A>(conn: Conn, tasks: &TaskTracker, answer: F)
where
    F: Fn(Call) -> A,
    A: Future<Output = Answer> + Send + 'static,
{
    let Conn { mut incoming, outgoing } = conn;
    let room = Arc::new(Semaphore::new(CALLS_AT_ONCE));
    while let Some(message) = receive(&mut incoming).await {
        let stream = message.stream;
        let call = match read(message) {
            Ok(Some(call)) => call,
            Ok(None) => continue,
            Err(refusal) => {
                tasks.spawn(reply(outgoing.clone(), stream, refusal));
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            let refusal = Answer::refuse(Code::ResourceExhausted, "too many calls at once");
            tasks.spawn(reply(outgoing.clone(), stream, refusal));
            continue;
        };
        let limit = call.timeout;
        let working = tasks.spawn(answer(call));
        let outgoing = outgoing.clone();
        tasks.spawn(async move {
            let answer = match limit {
                None => working.await,
                Some(limit) => match tokio::time::timeout(limit, working).await {
                    Ok(answered) => answered,
                    Err(_) => Ok(Answer::refuse(Code::DeadlineExceeded, "the caller's time is up")),
                },
            };
            let answer = answer
                .unwrap_or_else(|_| Answer::refuse(Code::Internal, "the call ended in a panic"));
            reply(outgoing, stream, answer).await;
            drop(permit);
        });
    }
}

/// The call in a message; `None` for what is no request, and what to answer where it is a bad one.
fn read(message: Message) -> Result<Option<Call>, Answer> {
    let Message { stream, kind, payload } = message;
    if kind != Kind::Request {
        tracing::debug!(stream, ?kind, "passed over a message that is no request");
        return Ok(None);
    }
    let payload =
        payload.map_err(|error| Answer::refuse(Code::ResourceExhausted, error.to_string()))?;
    let request = Request::decode(payload).map_err(|error| {
        Answer::refuse(Code::InvalidArgument, format!("decode the request: {error}"))
    })?;
    Ok(Some(Call {
        service: request.service,
        method: request.method,
        payload: request.payload,
        received: Instant::now(),
        timeout: timeout(request.timeout_nano),
    }))
}

async fn reply(outgoing: Outgoing, stream: u32, answer: Answer) {
    let Answer { result, afterwards } = answer;
    let response = match result {
        Ok(payload) => Response { status: None, payload },
        Err(status) => Response { status: Some(status), payload: Vec::new() },
    };
    match message(stream, Kind::Response, &response) {
        Ok(response) => {
            if let Err(closed) = outgoing.send(response).await {
                tracing::debug!(stream, %closed, "could not answer");
            }
        }
        Err(error) => tracing::error!(stream, %error, "could not answer"),
    }
    if let Some(work) = afterwards {
        work.await;
    }
}
