//! Several byte streams over one socket, as NRI has it: runtime and plugin both serve and both call.
//!
//! ```text
//! frame = connection (u32) length of the payload (u32) payload          all numbers big-endian
//! ```
//!
//! Connections are neither opened nor closed; both sides know their numbers. On reading, where a
//! frame ends says nothing about where a message ends. On writing it matters, see [`Outgoing::send`].

use std::fmt;
use std::future;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::sync::{mpsc, oneshot};

/// Longest payload of a frame in bytes: a whole ttrpc message with its header.
pub const MAX_FRAME: usize = 10 + (4 << 20);

/// Longest first frame of a message in bytes. The runtimes' reader hands a frame to a buffer of this
/// size and ends the session where it does not fit (`net/multiplex` of NRI and `channel.go` of
/// ttrpc, both in Go; the node ring's runtime reads alike).
pub const MAX_FIRST_FRAME: usize = 4096;

/// How many frames of one connection may wait for their reader.
const QUEUE_FRAMES: usize = 256;
/// How many messages may wait to be written; more wait in [`Outgoing::send`].
const OUTBOX_MESSAGES: usize = 64;
const FRAME_HEADER: usize = 8;

/// The number of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnId(pub u32);

impl ConnId {
    /// Where the plugin serves.
    pub const PLUGIN: Self = Self(1);
    /// Where the runtime serves.
    pub const RUNTIME: Self = Self(2);
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why the socket is of no more use. All its connections end with it.
#[derive(Debug, thiserror::Error)]
pub enum MuxError {
    #[error("read a frame: {0}")]
    Read(io::Error),
    #[error("write a frame: {0}")]
    Write(io::Error),
    #[error("a frame of {length} bytes on connection {conn}, allowed are {MAX_FRAME}")]
    FrameTooLong { conn: ConnId, length: usize },
    #[error("more than {QUEUE_FRAMES} frames of connection {conn} wait to be read")]
    Overflow { conn: ConnId },
}

/// The socket has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the connection has ended")]
pub struct Closed;

/// The socket with all its connections. Nothing moves unless [`run`](Self::run) is polled.
#[derive(Debug)]
pub struct Trunk<S> {
    stream: S,
    queues: Vec<(ConnId, mpsc::Sender<Bytes>)>,
    outbox: mpsc::Receiver<Outbound>,
}

/// Both directions of one connection.
#[derive(Debug)]
pub struct Conn {
    pub incoming: Incoming,
    pub outgoing: Outgoing,
}

/// What arrives on one connection, as one stream of bytes.
#[derive(Debug)]
pub struct Incoming {
    frames: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

/// Where messages of one connection go out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    conn: ConnId,
    outbox: mpsc::Sender<Outbound>,
}

#[derive(Debug)]
struct Outbound {
    conn: ConnId,
    message: Bytes,
    written: oneshot::Sender<()>,
}

/// Divides `stream` into the connections `ids`. Frames for other numbers are dropped.
pub fn open<S, const N: usize>(stream: S, ids: [ConnId; N]) -> (Trunk<S>, [Conn; N])
where
    S: AsyncRead + AsyncWrite,
{
    let (outbox, outgoing) = mpsc::channel(OUTBOX_MESSAGES);
    let mut queues = Vec::with_capacity(N);
    let conns = ids.map(|conn| {
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES);
        queues.push((conn, queue));
        Conn {
            incoming: Incoming { frames, rest: Bytes::new() },
            outgoing: Outgoing { conn, outbox: outbox.clone() },
        }
    });
    (Trunk { stream, queues, outbox: outgoing }, conns)
}

impl<S: AsyncRead + AsyncWrite> Trunk<S> {
    /// Carries frames both ways until the other side closes the socket between two frames.
    ///
    /// # Errors
    ///
    /// [`MuxError`] when the socket breaks, ends inside a frame, or carries what it must not.
    pub async fn run(self) -> Result<(), MuxError> {
        let (reader, writer) = tokio::io::split(self.stream);
        tokio::select! {
            ended = read_frames(BufReader::new(reader), &self.queues) => ended,
            ended = write_messages(writer, self.outbox) => ended,
        }
    }
}

/// Sorts frames into the queues. It never waits for a queue's reader: one that is stuck must not
/// keep the others from their frames, so it costs the socket instead.
async fn read_frames(
    mut reader: impl AsyncBufRead + Unpin,
    queues: &[(ConnId, mpsc::Sender<Bytes>)],
) -> Result<(), MuxError> {
    loop {
        if reader.fill_buf().await.map_err(MuxError::Read)?.is_empty() {
            return Ok(());
        }
        let conn = ConnId(reader.read_u32().await.map_err(MuxError::Read)?);
        let length = reader.read_u32().await.map_err(MuxError::Read)? as usize;
        if length > MAX_FRAME {
            return Err(MuxError::FrameTooLong { conn, length });
        }
        let mut payload = BytesMut::zeroed(length);
        reader.read_exact(&mut payload).await.map_err(MuxError::Read)?;
        let Some((_, queue)) = queues.iter().find(|(id, _)| *id == conn) else {
            tracing::debug!(%conn, length, "dropped a frame of an unknown connection");
            continue;
        };
        match queue.try_send(payload.freeze()) {
            // A closed queue has lost its reader, and with it the interest in what arrives.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(MuxError::Overflow { conn }),
        }
    }
}

async fn write_messages(
    mut writer: impl AsyncWrite + Unpin,
    mut outbox: mpsc::Receiver<Outbound>,
) -> Result<(), MuxError> {
    while let Some(Outbound { conn, message, written }) = outbox.recv().await {
        writer.write_all(&frames(conn, &message)).await.map_err(MuxError::Write)?;
        writer.flush().await.map_err(MuxError::Write)?;
        // Whoever sent it may have stopped waiting.
        let _ = written.send(());
    }
    // Nobody can send any more, but there may be more to read.
    future::pending().await
}

/// The frames of one message, one behind the other.
fn frames(conn: ConnId, message: &[u8]) -> BytesMut {
    let (first, rest) = message.split_at(message.len().min(MAX_FIRST_FRAME));
    let mut frames = BytesMut::with_capacity(message.len() + 2 * FRAME_HEADER);
    for payload in std::iter::once(first).chain(rest.chunks(MAX_FRAME)) {
        frames.extend_from_slice(&conn.0.to_be_bytes());
        frames.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        frames.extend_from_slice(payload);
    }
    frames
}

impl Incoming {
    /// The next `length` bytes; `None` when the stream ends before.
    pub async fn take(&mut self, length: usize) -> Option<Bytes> {
        if self.rest.len() >= length {
            return Some(self.rest.split_to(length));
        }
        let mut taken = BytesMut::from(std::mem::take(&mut self.rest));
        while taken.len() < length {
            self.rest = self.frames.recv().await?;
            let fits = self.rest.len().min(length - taken.len());
            taken.extend_from_slice(&self.rest.split_to(fits));
        }
        Some(taken.freeze())
    }

    /// Passes over `length` bytes without keeping them; `None` when the stream ends before.
    pub async fn skip(&mut self, mut length: usize) -> Option<()> {
        loop {
            let fits = self.rest.len().min(length);
            self.rest = self.rest.split_off(fits);
            length -= fits;
            if length == 0 {
                return Some(());
            }
            self.rest = self.frames.recv().await?;
        }
    }
}

impl Outgoing {
    /// Sends one whole ttrpc message, and returns when the socket has taken it.
    ///
    /// The message starts a frame of its own, of [`MAX_FIRST_FRAME`] bytes at most; what is left
    /// follows in one more. Smaller pieces would overflow the other side's queue of 256 frames.
    ///
    /// # Errors
    ///
    /// [`Closed`] when the socket ended before the message was written.
    pub async fn send(&self, message: Bytes) -> Result<(), Closed> {
        let (written, is_written) = oneshot::channel();
        let outbound = Outbound { conn: self.conn, message, written };
        self.outbox.send(outbound).await.map_err(|_| Closed)?;
        is_written.await.map_err(|_| Closed)
    }
}

#[cfg(test)]
mod tests;
