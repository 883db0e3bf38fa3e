//! Traffic: numbered datagrams from the wire, and an echo in a pod.
//!
//! Sockets are opened inside their namespace by a visit and used from ordinary threads.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use driver::sys::netns::Netns;
use nix::sys::socket::{self, sockopt};

/// How long a read waits, and so how long it takes a thread to see that it shall stop.
const TICK: Duration = Duration::from_millis(20);
/// How long after the last datagram answers are still waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// So that no datagram is lost in a queue while a busy machine lets the reader wait; in bytes.
const QUEUE_BYTES: usize = 8 << 20;

/// Opens a UDP socket inside `netns`.
pub fn socket_in(netns: &Netns, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = netns.run(|_| UdpSocket::bind(address)).map_err(io::Error::other)??;
    socket::setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES)?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

/// Sends every datagram that arrives on a port back to where it came from.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Echo {
    /// Starts answering on `port` inside `netns`.
    pub fn start(netns: &Netns, port: u16) -> io::Result<Self> {
        let socket = socket_in(netns, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            let mut received = 0;
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    received += 1;
                    // An answer that cannot be sent is missed at the other end.
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
            received
        });
        Ok(Self { stop, thread })
    }

    /// Ends it and answers how many datagrams it received. The socket is closed then.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Where a stream goes from and to, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Time between two datagrams.
    pub pace: Duration,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub sent: u64,
    /// How many different datagrams came back.
    pub answered: u64,
    /// How many the local stack refused; they were never on the wire.
    pub refused: u64,
}

impl Tally {
    pub fn lost(self) -> u64 {
        self.sent - self.answered
    }
}

/// A stream of numbered datagrams that runs until it is stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    /// Set once the last datagram is sent, so that the collector knows how many to wait for.
    complete: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sender: JoinHandle<u64>,
    collector: JoinHandle<BTreeSet<u64>>,
}

impl Stream {
    /// Starts sending from inside `netns`.
    pub fn start(netns: &Netns, route: Route) -> io::Result<Self> {
        let socket = Arc::new(socket_in(netns, route.from)?);
        let stop = Arc::new(AtomicBool::new(false));
        let complete = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let sender = {
            let (socket, stop, sent) = (Arc::clone(&socket), Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || send(&socket, route, &sent, || stop.load(Ordering::Relaxed)))
        };
        let collector = {
            let (complete, sent) = (Arc::clone(&complete), Arc::clone(&sent));
            thread::spawn(move || collect(&socket, &sent, || complete.load(Ordering::Relaxed)))
        };
        Ok(Self { stop, complete, sent, sender, collector })
    }

    /// How many datagrams were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is still to come back, and counts.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let refused = self.sender.join().unwrap_or_default();
        self.complete.store(true, Ordering::Relaxed);
        let answered = self.collector.join().unwrap_or_default();
        Tally { sent: self.sent.load(Ordering::Relaxed), answered: answered.len() as u64, refused }
    }
}

/// Sends `count` numbered datagrams and waits for answers.
///
/// Where silence is expected, nothing is waited for longer than a moment: enough for an answer to
/// come that should not.
pub fn burst(netns: &Netns, route: Route, count: u64, expect: Expect) -> io::Result<Tally> {
    let socket = socket_in(netns, route.from)?;
    let sent = AtomicU64::new(0);
    let refused = send(&socket, route, &sent, || sent.load(Ordering::Relaxed) >= count);
    let started = Instant::now();
    let answered = match expect {
        Expect::Answers => collect(&socket, &sent, || true),
        Expect::Silence => {
            let mut answered = BTreeSet::new();
            while started.elapsed() < 5 * TICK {
                answered.extend(receive(&socket));
            }
            answered
        }
    };
    Ok(Tally { sent: sent.into_inner(), answered: answered.len() as u64, refused })
}

/// What a burst waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    Answers,
    Silence,
}

fn send(socket: &UdpSocket, route: Route, sent: &AtomicU64, done: impl Fn() -> bool) -> u64 {
    let mut refused = 0;
    let mut due = Instant::now();
    let mut number: u64 = 0;
    while !done() {
        match socket.send_to(&number.to_be_bytes(), route.to) {
            Ok(_) => {
                sent.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
            Err(_) => refused += 1,
        }
        // Does not make up for lost time: a burst after a pause could overrun a queue.
        due = (due + route.pace).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if refused > REFUSALS {
            break;
        }
    }
    refused
}

/// After so many refusals by the local stack, sending is given up.
const REFUSALS: u64 = 1000;

fn collect(socket: &UdpSocket, sent: &AtomicU64, done: impl Fn() -> bool) -> BTreeSet<u64> {
    let mut answered = BTreeSet::new();
    let mut last = Instant::now();
    loop {
        if let Some(number) = receive(socket) {
            answered.insert(number);
            last = Instant::now();
        }
        if !done() {
            last = Instant::now();
        } else if answered.len() as u64 == sent.load(Ordering::Relaxed) || last.elapsed() > PATIENCE
        {
            return answered;
        }
    }
}

fn receive(socket: &UdpSocket) -> Option<u64> {
    let mut buffer = [0; 8];
    let length = socket.recv(&mut buffer).ok()?;
    (length == buffer.len()).then(|| u64::from_be_bytes(buffer))
}
