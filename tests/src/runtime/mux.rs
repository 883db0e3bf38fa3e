//! The socket between runtime and plugin, read as strictly as the Go implementation reads it.
//!
//! A frame waits in its connection's queue until somebody reads; a queue holds 256 frames and the
//! 257th ends the session. A reader with a buffer that is smaller than the frame gets ENOMEM and
//! the session ends.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

const LONGEST_PAYLOAD: usize = (4 << 20) + 10;
const QUEUE_LENGTH: usize = 256;

/// One socket that carries the connections 1 and 2.
#[derive(Debug)]
pub(super) struct Trunk {
    reading: UnixStream,
    writing: Mutex<UnixStream>,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    queues: [VecDeque<Vec<u8>>; 2],
    /// Why there will be no more frames.
    ended: Option<String>,
}

impl Trunk {
    /// Takes over `stream` and starts to sort what arrives.
    pub(super) fn start(stream: UnixStream) -> io::Result<Arc<Self>> {
        let trunk = Arc::new(Self {
            reading: stream.try_clone()?,
            writing: Mutex::new(stream),
            inbox: Mutex::default(),
            arrived: Condvar::new(),
        });
        let reader = Arc::clone(&trunk);
        thread::Builder::new().name("runtime-trunk".to_owned()).spawn(move || {
            let reason = match reader.sort_frames() {
                Ok(reason) => reason,
                Err(error) => error.to_string(),
            };
            reader.end(&reason);
        })?;
        Ok(trunk)
    }

    fn sort_frames(&self) -> io::Result<String> {
        let mut stream = &self.reading;
        loop {
            let mut head = [0; 8];
            stream.read_exact(&mut head)?;
            let [conn, length] = [0, 4].map(|at| {
                u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
            });
            if length > LONGEST_PAYLOAD {
                return Ok(format!("a frame of {length} bytes"));
            }
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload)?;
            let mut inbox = lock(&self.inbox);
            let Some(queue) = conn.checked_sub(1).and_then(|at| inbox.queues.get_mut(at)) else {
                continue;
            };
            if queue.len() == QUEUE_LENGTH {
                return Ok(format!("more than {QUEUE_LENGTH} frames wait on connection {conn}"));
            }
            queue.push_back(payload);
            self.arrived.notify_all();
        }
    }

    /// The next frame of `conn`, whole, into `buffer`.
    pub(super) fn read(&self, conn: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let mut inbox = lock(&self.inbox);
        let frame = loop {
            if let Some(frame) = inbox.queues[conn - 1].pop_front() {
                break frame;
            }
            if let Some(reason) = &inbox.ended {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone()));
            }
            inbox = self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        };
        drop(inbox);
        let Some(room) = buffer.get_mut(..frame.len()) else {
            self.end(&format!("ENOMEM: {} bytes into a buffer of {}", frame.len(), buffer.len()));
            return Err(io::Error::from_raw_os_error(nix::libc::ENOMEM));
        };
        room.copy_from_slice(&frame);
        Ok(frame.len())
    }

    /// One frame of `conn`.
    pub(super) fn write(&self, conn: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let frame = [&conn.to_be_bytes()[..], &length.to_be_bytes(), payload].concat();
        lock(&self.writing).write_all(&frame)
    }

    /// Ends the session; the first reason stays.
    pub(super) fn end(&self, reason: &str) {
        lock(&self.inbox).ended.get_or_insert_with(|| reason.to_owned());
        // An error means that the other side was faster.
        let _ = self.reading.shutdown(Shutdown::Both);
        self.arrived.notify_all();
    }

    /// Why the session ended, if it has.
    pub(super) fn ended(&self) -> Option<String> {
        lock(&self.inbox).ended.clone()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
