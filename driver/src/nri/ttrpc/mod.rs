//! ttrpc, as far as NRI uses it: unary calls, over one connection of the [mux](super::mux).
//!
//! ```text
//! message = length of the payload (u32) stream (u32) kind (u8) flags (u8) payload     big-endian
//! ```
//!
//! A call is a request and a response with the same stream number; the client picks odd numbers,
//! each above the last. Other kinds of messages belong to streaming calls; they are passed over.

mod client;
mod server;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

pub use self::client::{CallError, Client};
pub use self::server::{Call, serve};
use super::mux::Incoming;

/// The envelopes, generated from `proto/ttrpc.proto`.
pub mod proto {
    tonic::include_proto!("ttrpc");
}

/// Longest payload of a message in bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;

const MESSAGE_HEADER: usize = 10;

/// What a call can fail with, numbered as in `google/rpc/code.proto`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
}

/// What to answer a call, and what to do once the answer is out.
pub struct Answer {
    result: Result<Vec<u8>, proto::Status>,
    afterwards: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Answer {
    /// The call has succeeded with `response`.
    pub fn with(response: &impl prost::Message) -> Self {
        Self { result: Ok(response.encode_to_vec()), afterwards: None }
    }

    /// The call has succeeded, and there is nothing to say.
    pub fn empty() -> Self {
        Self { result: Ok(Vec::new()), afterwards: None }
    }

    /// The call has failed.
    pub fn refuse(code: Code, message: impl Into<String>) -> Self {
        let status = proto::Status { code: code as i32, message: message.into() };
        Self { result: Err(status), afterwards: None }
    }

    /// Adds what shall run when the answer has been written, or could not be.
    #[must_use]
    pub fn then(self, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { afterwards: Some(Box::pin(work)), ..self }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Request,
    Response,
    /// Part of a streaming call, or something newer than we are.
    Other(u8),
}

#[derive(Debug, Eq, PartialEq)]
struct Message {
    stream: u32,
    kind: Kind,
    payload: Result<Bytes, TooLong>,
}

/// A payload that exceeds [`MAX_PAYLOAD`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a message of {0} bytes, allowed are {MAX_PAYLOAD}")]
pub struct TooLong(usize);

/// The next message; `None` when the connection has ended. What is too long is passed over, so that
/// the next message is found all the same.
async fn receive(incoming: &mut Incoming) -> Option<Message> {
    let header = incoming.take(MESSAGE_HEADER).await?;
    let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| header[at + n]));
    let length = number(0) as usize;
    let payload = if length > MAX_PAYLOAD {
        incoming.skip(length).await?;
        Err(TooLong(length))
    } else {
        Ok(incoming.take(length).await?)
    };
    let kind = match header[8] {
        1 => Kind::Request,
        2 => Kind::Response,
        other => Kind::Other(other),
    };
    Some(Message { stream: number(4), kind, payload })
}

/// A message, ready to be sent.
fn message(stream: u32, kind: Kind, envelope: &impl prost::Message) -> Result<Bytes, TooLong> {
    let length = envelope.encoded_len();
    let announced =
        u32::try_from(length).ok().filter(|_| length <= MAX_PAYLOAD).ok_or(TooLong(length))?;
    let mut message = BytesMut::with_capacity(MESSAGE_HEADER + length);
    message.put_u32(announced);
    message.put_u32(stream);
    message.put_u8(match kind {
        Kind::Request => 1,
        Kind::Response => 2,
        Kind::Other(other) => other,
    });
    // No flags: they say which side of a streaming call is still open.
    message.put_u8(0);
    message.extend_from_slice(&envelope.encode_to_vec());
    Ok(message.freeze())
}

/// The timeout that a request carries; `None` where it has none.
fn timeout(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().filter(|&limit| limit > 0).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests;
