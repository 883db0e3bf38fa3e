//! Reads flows: those in the cache, and those that had to leave it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Map, MapData, MapError, RingBuf};
use common::Protocol;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::CounterError;
use super::counters::open;
use super::layout::{BpffsLayout, Pin};
use crate::model::{AttachmentId, Ends, Flow, PacketCount};
use crate::sys::bpf::{self, MapFacts};
use crate::sys::clock;

/// The kernel's clock, by which flows are dated.
#[derive(Clone, Copy, Debug)]
struct Clock {
    now: u32,
    ticks_per_second: u64,
}

/// The flows of `id` that are in the cache, in no order. Flows of one key on several CPUs are one.
pub fn flows(bpffs: &Path, id: &AttachmentId) -> Result<Vec<Flow>, CounterError> {
    let path = PathBuf::from(BpffsLayout::new(bpffs).pin(id, Pin::Map("flows")));
    let map = open(&path)?;
    let mut merged = HashMap::<_, common::Flow>::new();
    let outcome = bpf::for_each_of_cpus(map.fd().as_fd(), |_, cpus: &[common::Flow]| {
        for flow in cpus.iter().filter(|flow| !flow.is_vacant()) {
            merged
                .entry((flow.addresses.0, flow.ports, flow.kind))
                .and_modify(|known| merge(known, flow))
                .or_insert(*flow);
        }
    });
    outcome.map_err(|source| CounterError::Read { path: path.clone(), source })?;
    let clock = Clock::read().map_err(|source| CounterError::Read { path, source })?;
    Ok(merged.values().map(|flow| told(flow, clock)).collect())
}

/// The one reader of the flows of an attachment that leave the cache with enough packets.
pub struct Follower {
    path: PathBuf,
    map: u32,
    ring: RingBuf<MapData>,
    /// On the directory of the attachment. Two readers would each get a part.
    _lock: Flock<File>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Follower {
    /// Begins to take what leaves the cache of `id`, and what has left it and nobody took.
    ///
    /// # Errors
    ///
    /// [`CounterError::Followed`] where there is a reader already.
    pub fn open(bpffs: &Path, id: &AttachmentId) -> Result<Self, CounterError> {
        let layout = BpffsLayout::new(bpffs);
        let directory = layout.device(id);
        let path = PathBuf::from(layout.pin(id, Pin::Map("evicted")));
        let map = open(&path)?;
        let failed = |source| CounterError::Pin { path: directory.clone(), source };
        let file = File::open(&directory).map_err(failed)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == Errno::EWOULDBLOCK {
                CounterError::Followed { path: directory.clone() }
            } else {
                failed(errno.into())
            }
        })?;
        let facts = MapFacts::of(map.fd().as_fd())
            .map_err(|source| CounterError::Read { path: path.clone(), source })?;
        let ring = Map::from_map_data(map)
            .and_then(RingBuf::try_from)
            .map_err(|source| CounterError::Map { path: path.clone(), source: Box::new(source) })?;
        Ok(Self { path, map: facts.id, ring, _lock: lock })
    }

    /// Takes what has left the cache since the last call, oldest first.
    ///
    /// # Errors
    ///
    /// What was taken until then is lost. It does not happen as long as the monotonic clock works.
    pub fn take(&mut self) -> Result<Vec<Flow>, CounterError> {
        let failed = |source| CounterError::Read { path: self.path.clone(), source };
        let clock = Clock::read().map_err(failed)?;
        let mut flows = Vec::new();
        while let Some(item) = self.ring.next() {
            flows.extend(bpf::value_of(&item).map(|flow| told(&flow, clock)));
        }
        Ok(flows)
    }

    /// Whether there is another ring now, because the filter was replaced, or none any more. What
    /// was in this one can still be taken.
    pub fn is_over(&self) -> bool {
        let id = |map: MapData| MapFacts::of(map.fd().as_fd()).map(|facts| facts.id);
        let present = MapData::from_pin(&self.path).map_err(not_there).and_then(id);
        present.is_ok_and(|present| present != self.map) || !self.path.exists()
    }
}

fn not_there(error: MapError) -> io::Error {
    io::Error::other(error)
}

impl Clock {
    fn read() -> io::Result<Self> {
        Ok(Self { now: clock::jiffies()?, ticks_per_second: clock::ticks_per_second()? })
    }

    /// How long ago the kernel's tick count had this lower half. After some weeks it has it again;
    /// what is a little later than now was now.
    fn since(self, then: u32) -> Duration {
        let ticks = u64::from(self.now.wrapping_sub(then));
        let hz = self.ticks_per_second.max(1);
        if ticks > u64::from(u32::MAX) - 10 * hz {
            return Duration::ZERO;
        }
        Duration::from_millis(ticks * 1000 / hz)
    }
}

/// Adds what another CPU saw of the same flow. Which packet was the last is told by the clock.
fn merge(known: &mut common::Flow, other: &common::Flow) {
    let is_later = |a: u32, b: u32| a.wrapping_sub(b) < u32::MAX / 2;
    known.packets = known.packets.wrapping_add(other.packets);
    known.bytes = known.bytes.wrapping_add(other.bytes);
    known.tcp_flags |= other.tcp_flags;
    if is_later(other.last_seen, known.last_seen) {
        known.last_seen = other.last_seen;
        known.verdict = other.verdict;
    }
    if is_later(known.first_seen, other.first_seen) {
        known.first_seen = other.first_seen;
    }
}

/// A flow that was seen just now.
pub(super) fn told_at_once(flow: &common::Flow) -> Flow {
    told(flow, Clock { now: flow.last_seen, ticks_per_second: 1 })
}

fn told(flow: &common::Flow, clock: Clock) -> Flow {
    let (protocol, family) = (flow.protocol(), flow.family());
    Flow {
        direction: flow.direction().name(),
        protocol: protocol.name(),
        source: flow.addresses.source(family),
        destination: flow.addresses.destination(family),
        ends: ends(protocol, flow.ports),
        tcp_flags: letters(flow.tcp_flags),
        verdict: flow.last_verdict().map_or("-", common::Verdict::name),
        seen: PacketCount { packets: flow.packets, bytes: flow.bytes },
        first_seen: clock.since(flow.first_seen),
        last_seen: clock.since(flow.last_seen),
    }
}

fn ends(protocol: Protocol, ports: u32) -> Ends {
    let [a, b, c, d] = ports.to_be_bytes();
    let (upper, lower) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match protocol {
        // Zero in both where they could not be read, and in fragments other than the first.
        _ if protocol.has_ports() && ports != 0 => {
            Ends::Ports { source_port: upper, destination_port: lower }
        }
        Protocol::Icmp | Protocol::Icmpv6 => {
            Ends::Icmp { icmp_identifier: upper, icmp_type: lower }
        }
        _ => Ends::None {},
    }
}

/// As tcpdump has them, in the order of the bits.
fn letters(flags: u8) -> String {
    let bits = "FSRP.UEW".chars().enumerate();
    bits.filter(|(bit, _)| flags & (1 << bit) != 0).map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock { now: 1000, ticks_per_second: 250 };

    fn flow() -> common::Flow {
        common::Flow {
            addresses: common::Addresses([0x0100_0a0a_0200_0a0a, 0, 0, 0]),
            ports: 40_000 * 0x1_0000 + 443,
            kind: 0,
            tcp_flags: 0b01_0010,
            verdict: 2,
            packets: 3,
            bytes: 180,
            first_seen: 500,
            last_seen: 750,
        }
    }

    #[test]
    fn a_flow_is_told_in_words() {
        assert_eq!(
            told(&flow(), CLOCK),
            Flow {
                direction: "ingress",
                protocol: "tcp",
                source: "10.10.0.2".parse().unwrap(),
                destination: "10.10.0.1".parse().unwrap(),
                ends: Ends::Ports { source_port: 40_000, destination_port: 443 },
                tcp_flags: "S.".to_owned(),
                verdict: "denied_default",
                seen: PacketCount { packets: 3, bytes: 180 },
                first_seen: Duration::from_secs(2),
                last_seen: Duration::from_secs(1),
            }
        );
        let broken = common::Flow { verdict: 200, ..flow() };
        assert_eq!(told(&broken, CLOCK).verdict, "-");
    }

    #[test]
    fn what_is_no_port_is_not_called_one() {
        assert_eq!(ends(Protocol::Tcp, 0), Ends::None {});
        assert_eq!(ends(Protocol::OtherIp, 7), Ends::None {});
        let echo = Ends::Icmp { icmp_identifier: 9, icmp_type: 8 };
        assert_eq!(ends(Protocol::Icmp, 9 << 16 | 8), echo);
    }

    #[test]
    fn one_flow_on_two_cpus_is_one() {
        let mut merged = flow();
        let later = common::Flow {
            tcp_flags: 1,
            verdict: 0,
            packets: 10,
            bytes: 1000,
            first_seen: 740,
            last_seen: 760,
            ..flow()
        };
        merge(&mut merged, &later);
        let (mut other_way, earlier) = (later, flow());
        merge(&mut other_way, &earlier);
        assert_eq!(merged, other_way);
        assert_eq!((merged.packets, merged.bytes, merged.tcp_flags), (13, 1180, 0b01_0011));
        assert_eq!((merged.first_seen, merged.last_seen, merged.verdict), (500, 760, 0));
    }

    #[test]
    fn time_goes_on_where_the_count_of_ticks_begins_anew() {
        let clock = Clock { now: 5, ticks_per_second: 250 };
        assert_eq!(clock.since(0_u32.wrapping_sub(245)), Duration::from_secs(1));
        // The programs may have gone on since the clock was read.
        assert_eq!(clock.since(7), Duration::ZERO);
    }
}
