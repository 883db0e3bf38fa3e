//! Streams as fast as they go: TCP by iperf3, where the machine has it, and otherwise by a sender
//! and a receiver of our own; UDP in small packets.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use driver::sys::netns::Netns;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

/// Where datagrams go that nobody reads.
const SINK: u16 = 4789;

const IPERF_PORT: u16 = 5201;
const OWN_PORT: u16 = 5202;
/// The payload of a segment where the MTU is 1500 and timestamps are on.
const SEGMENT: f64 = 1448.0;
/// What one write hands to the kernel.
const WRITE: u32 = 128 << 10;
/// In 60 bytes on the wire, without the checksum.
const DATAGRAM: [u8; 18] = [0; 18];

/// How a stream went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flux {
    /// Bits of TCP, packets of UDP.
    pub(super) per_second: f64,
    /// Nanoseconds of processor time for a packet as on the wire.
    pub(super) cpu_per_packet: f64,
}

/// What listens at the far end.
#[derive(Debug)]
pub(super) enum Server {
    Iperf(Child),
    Own,
}

impl Server {
    /// Starts listening inside `netns`; it ends with the box, if not before.
    pub(super) fn start(netns: &Netns, address: Ipv4Addr) -> Result<Self> {
        let iperf = netns.run(|_| {
            Command::new("iperf3")
                .args(["--server", "--bind", &address.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        })?;
        match iperf {
            Ok(child) => {
                await_listener(SocketAddr::from((address, IPERF_PORT)))?;
                Ok(Self::Iperf(child))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let listener = netns
                    .run(|_| TcpListener::bind((address, OWN_PORT)))?
                    .context("listen for our own stream")?;
                thread::spawn(move || {
                    for stream in listener.incoming().map_while(Result::ok) {
                        swallow(stream);
                    }
                });
                Ok(Self::Own)
            }
            Err(error) => Err(error).context("start iperf3"),
        }
    }

    pub(super) fn is_iperf(&self) -> bool {
        matches!(self, Self::Iperf(_))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Iperf(child) = self {
            // Either may fail only because it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until somebody listens there. iperf3 takes a connection that says nothing for a client that
/// went away.
fn await_listener(address: SocketAddr) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let start = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("connect to {address}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0; WRITE as usize];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

/// One TCP stream to the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcp {
    pub(super) to: Ipv4Addr,
    pub(super) time: Duration,
}

impl Tcp {
    pub(super) fn run(self, server: &Server) -> Result<Flux> {
        match server {
            Server::Iperf(_) => self.by_iperf(),
            Server::Own => self.by_ourselves(),
        }
    }

    fn by_iperf(self) -> Result<Flux> {
        let mut iperf = Command::new("iperf3");
        iperf.args(["--json", "--client", &self.to.to_string()]);
        iperf.args(["--time", &self.time.as_secs().to_string()]);
        // The sender here, the receiver on another CPU, where there is one.
        iperf.args(["--affinity", "0,1"]);
        if thread::available_parallelism().map_or(1, usize::from) < 2 {
            iperf.args(["--affinity", "0,0"]);
        }
        let output = iperf.stdin(Stdio::null()).output().context("run iperf3")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "iperf3 ended with {}: {said}", output.status);
        let json: serde_json::Value =
            serde_json::from_str(&said).context("read iperf3's report")?;
        let number = |pointer: &str| {
            let value = json.pointer(pointer).and_then(serde_json::Value::as_f64);
            value.with_context(|| format!("iperf3's report has no {pointer}"))
        };
        let bits = number("/end/sum_received/bits_per_second")?;
        let percent = number("/end/cpu_utilization_percent/host_total")?
            + number("/end/cpu_utilization_percent/remote_total")?;
        Ok(Flux { per_second: bits, cpu_per_packet: percent / 100.0 * 1e9 / packets(bits) })
    }

    fn by_ourselves(self) -> Result<Flux> {
        let mut stream = TcpStream::connect((self.to, OWN_PORT)).context("connect")?;
        let buffer = vec![0; WRITE as usize];
        let (start, cpu) = (Instant::now(), processor_time()?);
        let mut writes = 0_u32;
        while start.elapsed() < self.time {
            stream.write_all(&buffer).context("send")?;
            writes += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu = processor_time()?.saturating_sub(cpu).as_secs_f64();
        let bits = f64::from(writes) * f64::from(WRITE) * 8.0 / seconds;
        Ok(Flux { per_second: bits, cpu_per_packet: cpu / seconds * 1e9 / packets(bits) })
    }
}

/// Segments for so many bits.
fn packets(bits: f64) -> f64 {
    bits / 8.0 / SEGMENT
}

/// Of all threads of this process.
fn processor_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("ask for the processor time")?;
    let part = |time: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        Duration::from_secs(seconds)
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
    };
    Ok(part(usage.user_time()) + part(usage.system_time()))
}

/// Opens a socket that takes what is sent to it, and that nobody reads.
pub(super) fn sink(netns: Option<&Netns>, address: Ipv4Addr) -> Result<UdpSocket> {
    socket(netns, || UdpSocket::bind((address, SINK)))
}

/// Sends datagrams to a sink for some time, from inside `netns` or from here, and counts them by
/// `count`.
pub(super) fn udp(
    netns: Option<&Netns>,
    to: Ipv4Addr,
    time: Duration,
    count: impl Fn() -> Result<u64>,
) -> Result<Flux> {
    let socket = socket(netns, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((to, SINK))?;
        Ok(socket)
    })?;
    let before = count()?;
    let (start, cpu) = (Instant::now(), thread_time()?);
    while start.elapsed() < time {
        for _ in 0..64 {
            // Refused where a queue is full: what is counted is what was sent.
            let _ = socket.send(&DATAGRAM);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = thread_time()?.saturating_sub(cpu).as_secs_f64();
    let sent = u32::try_from(count()? - before).context("more packets than can be")?;
    let sent = f64::from(sent);
    Ok(Flux { per_second: sent / seconds, cpu_per_packet: cpu * 1e9 / sent })
}

fn socket(
    netns: Option<&Netns>,
    open: impl FnOnce() -> io::Result<UdpSocket> + Send,
) -> Result<UdpSocket> {
    let opened = match netns {
        Some(netns) => netns.run(|_| open())?,
        None => open(),
    };
    opened.context("open a socket for datagrams")
}

fn thread_time() -> Result<Duration> {
    let time =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read the thread's clock")?;
    Ok(time.into())
}
