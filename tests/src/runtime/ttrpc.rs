//! Calls to and from the plugin, buffered as the Go implementation buffers them.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use super::mux::{Trunk, lock};
use super::wire::{self, Fields};

/// What Go's `bufio` readers and writers have by default.
const BUFFER: usize = 4096;
const LONGEST_MESSAGE: usize = 4 << 20;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const UNIMPLEMENTED: u64 = 12;

/// Why a call to the plugin has no result.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CallError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection has ended")]
    Closed,
    /// The plugin answered an error.
    #[error("{message} (code {code})")]
    Refused { code: u64, message: String },
}

impl CallError {
    pub(super) fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Refused { code: UNIMPLEMENTED, .. })
    }
}

#[derive(Debug)]
struct Message {
    stream: u32,
    kind: u8,
    payload: Vec<u8>,
}

/// Reads messages of one connection through a buffer of 4096 bytes. What is wanted beyond the
/// buffer's size is read past it, straight into its place.
struct Reader<'a> {
    trunk: &'a Trunk,
    conn: usize,
    buffer: [u8; BUFFER],
    filled: std::ops::Range<usize>,
}

impl<'a> Reader<'a> {
    fn new(trunk: &'a Trunk, conn: usize) -> Self {
        Self { trunk, conn, buffer: [0; BUFFER], filled: 0..0 }
    }

    fn fill(&mut self, mut wanted: &mut [u8]) -> io::Result<()> {
        while !wanted.is_empty() {
            if self.filled.is_empty() && wanted.len() >= BUFFER {
                let length = self.trunk.read(self.conn, wanted)?;
                wanted = &mut wanted[length..];
                continue;
            }
            if self.filled.is_empty() {
                self.filled = 0..self.trunk.read(self.conn, &mut self.buffer)?;
            }
            let length = wanted.len().min(self.filled.len());
            let start = self.filled.start;
            wanted[..length].copy_from_slice(&self.buffer[start..start + length]);
            self.filled.start += length;
            wanted = &mut wanted[length..];
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Message> {
        let mut head = [0; 10];
        self.fill(&mut head)?;
        let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| head[at + n]));
        let length = number(0) as usize;
        if length > LONGEST_MESSAGE {
            let reason = format!("a message of {length} bytes");
            self.trunk.end(&reason);
            return Err(io::Error::other(reason));
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        Ok(Message { stream: number(4), kind: head[8], payload })
    }
}

/// Writes a message through a buffer of 4096 bytes: what does not fit goes out as one more frame.
fn write(trunk: &Trunk, conn: u32, message: &Message) -> io::Result<()> {
    let length = u32::try_from(message.payload.len()).map_err(io::Error::other)?;
    let mut bytes = [length.to_be_bytes(), message.stream.to_be_bytes()].concat();
    bytes.extend([message.kind, 0]);
    bytes.extend_from_slice(&message.payload);
    let rest = bytes.split_off(bytes.len().min(BUFFER));
    trunk.write(conn, &bytes)?;
    if rest.is_empty() { Ok(()) } else { trunk.write(conn, &rest) }
}

type Answered = Result<Vec<u8>, CallError>;

/// Calls the plugin, on connection 1.
#[derive(Debug)]
pub(super) struct Client {
    trunk: Arc<Trunk>,
    next: AtomicU32,
    waiting: Arc<Mutex<HashMap<u32, mpsc::Sender<Answered>>>>,
}

impl Client {
    pub(super) fn start(trunk: Arc<Trunk>) -> io::Result<Self> {
        let waiting: Arc<Mutex<HashMap<u32, mpsc::Sender<Answered>>>> = Arc::default();
        let client = Self { trunk, next: AtomicU32::new(1), waiting };
        let (trunk, waiting) = (Arc::clone(&client.trunk), Arc::clone(&client.waiting));
        thread::Builder::new().name("runtime-answers".to_owned()).spawn(move || {
            let mut reader = Reader::new(&trunk, 1);
            while let Ok(message) = reader.next() {
                if message.kind != RESPONSE {
                    trunk.end(&format!("an unexpected message {message:?}"));
                }
                // Whoever has stopped waiting is not there any more.
                if let Some(caller) = lock(&waiting).remove(&message.stream) {
                    let _ = caller.send(answer(&message.payload));
                }
            }
            lock(&waiting).clear();
        })?;
        Ok(client)
    }

    /// Calls a method and waits for the answer.
    pub(super) fn call(
        &self,
        service: &str,
        method: &str,
        payload: &[u8],
        limit: Duration,
    ) -> Answered {
        let stream = self.next.fetch_add(2, Ordering::Relaxed);
        let (caller, answered) = mpsc::channel();
        lock(&self.waiting).insert(stream, caller);
        let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX >> 1);
        let request = Fields::new()
            .string(1, service)
            .string(2, method)
            .bytes(3, payload)
            .varint(4, nanoseconds);
        let message = Message { stream, kind: REQUEST, payload: request.encode() };
        write(&self.trunk, 1, &message).map_err(|_| CallError::Closed)?;
        if self.trunk.ended().is_some() {
            lock(&self.waiting).clear();
        }
        match answered.recv_timeout(limit) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(CallError::Timeout(limit)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(CallError::Closed),
        }
    }
}

/// What a response says.
fn answer(payload: &[u8]) -> Answered {
    let malformed = || CallError::Refused { code: 13, message: "a malformed response".to_owned() };
    let fields = wire::decode(payload).ok_or_else(malformed)?;
    let status = wire::decode(wire::bytes(&fields, 1)).ok_or_else(malformed)?;
    match wire::varint(&status, 1) {
        0 => Ok(wire::bytes(&fields, 2).to_vec()),
        code => Err(CallError::Refused { code, message: wire::string(&status, 2) }),
    }
}

/// Serves the plugin, on connection 2, until the session ends: `answer` gets method and payload and
/// gives a response, or `None` for a method that it does not know.
pub(super) fn serve(trunk: &Trunk, mut answer: impl FnMut(&str, &[u8]) -> Option<Vec<u8>>) {
    let mut reader = Reader::new(trunk, 2);
    while let Ok(message) = reader.next() {
        let Some(request) = wire::decode(&message.payload).filter(|_| message.kind == REQUEST)
        else {
            trunk.end(&format!("an unexpected message {message:?}"));
            return;
        };
        let payload = match answer(&wire::string(&request, 2), wire::bytes(&request, 3)) {
            Some(payload) => Fields::new().bytes(2, &payload),
            None => Fields::new().message(1, &Fields::new().varint(1, UNIMPLEMENTED)),
        };
        let response =
            Message { stream: message.stream, kind: RESPONSE, payload: payload.encode() };
        if write(trunk, 2, &response).is_err() {
            return;
        }
    }
}
