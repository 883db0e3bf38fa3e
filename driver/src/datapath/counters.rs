//! Reads what the programs counted.

use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use common::{Count, Counters, Direction, Protocol, SIZES, TcpEvent, Verdict};

use super::hits;
use super::layout::{BpffsLayout, Pin};
use super::memory;
use crate::model::{
    AttachmentId, DatapathSpec, DirectionTraffic, PacketCount, RuleTraffic, Traffic,
};

/// Where counts come from. Asking takes no time to speak of.
pub trait CounterSource: Send + Sync {
    /// What was counted for `id` since it was prepared.
    fn read(&self, id: &AttachmentId) -> Result<Traffic, CounterError>;

    /// What each rule of the filter in force matched since it is in force, in the filter's order,
    /// those of ingress first.
    fn rules(&self, spec: &DatapathSpec) -> Result<Vec<RuleTraffic>, CounterError>;

    /// Bytes of kernel memory that the maps of `id` take.
    fn memory(&self, id: &AttachmentId) -> Result<u64, CounterError>;
}

/// Why there are no counts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CounterError {
    /// Nothing is pinned: there is no datapath, or one of another layout.
    #[error("nothing at {}", .path.display())]
    Absent { path: PathBuf },

    #[error("look for {}", .path.display())]
    Pin { path: PathBuf, source: io::Error },

    #[error("read {}", .path.display())]
    Map { path: PathBuf, source: Box<MapError> },

    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },

    /// The filter has just been replaced, or is about to be.
    #[error("{} counts {found} rules, the filter has {expected}", .path.display())]
    Rules { path: PathBuf, found: usize, expected: usize },

    /// A ring buffer has one reader.
    #[error("somebody follows the flows of {} already", .path.display())]
    Followed { path: PathBuf },
}

impl CounterError {
    /// The value of the `reason` metric label: one of a fixed set, free of names and numbers.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "absent",
            Self::Pin { .. } => "pin",
            Self::Map { .. } | Self::Read { .. } => "read",
            Self::Rules { .. } => "rules",
            Self::Followed { .. } => "followed",
        }
    }
}

/// Counts from the pinned maps. Works whether or not a driver runs.
#[derive(Clone, Debug)]
pub struct MapCounters {
    layout: BpffsLayout,
}

impl MapCounters {
    pub fn new(bpffs: &Path) -> Self {
        Self { layout: BpffsLayout::new(bpffs) }
    }
}

impl CounterSource for MapCounters {
    fn read(&self, id: &AttachmentId) -> Result<Traffic, CounterError> {
        let pin = self.layout.pin(id, Pin::Counters);
        let map = open(pin.as_path())?;
        let counters = |map| traffic(&PerCpuArray::try_from(Map::from_map_data(map)?)?);
        counters(map).map_err(|source| CounterError::Map {
            path: pin.as_path().to_owned(),
            source: Box::new(source),
        })
    }

    fn rules(&self, spec: &DatapathSpec) -> Result<Vec<RuleTraffic>, CounterError> {
        hits::read(&self.layout, spec)
    }

    fn memory(&self, id: &AttachmentId) -> Result<u64, CounterError> {
        memory::bytes(&self.layout, id)
    }
}

/// The map that is pinned at `path`.
pub(super) fn open(path: &Path) -> Result<MapData, CounterError> {
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Err(CounterError::Absent { path: path.to_owned() }),
        Err(source) => return Err(CounterError::Pin { path: path.to_owned(), source }),
    }
    MapData::from_pin(path)
        .map_err(|source| CounterError::Map { path: path.to_owned(), source: Box::new(source) })
}

/// The sum over all CPUs.
fn traffic(map: &PerCpuArray<MapData, Counters>) -> Result<Traffic, MapError> {
    let direction = |direction: Direction| {
        let mut sum = Counters::default();
        for cpu in map.get(&(direction as u32), 0)?.iter() {
            sum.merge(cpu);
        }
        Ok::<_, MapError>(named(&sum))
    };
    Ok(Traffic { ingress: direction(Direction::Ingress)?, egress: direction(Direction::Egress)? })
}

fn named(counters: &Counters) -> DirectionTraffic {
    let verdicts = Verdict::ALL.map(|it| (it.name(), packet_count(counters.of_verdict(it))));
    let protocols = Protocol::ALL.map(|it| (it.name(), packet_count(counters.of_protocol(it))));
    let limit = |bucket| (bucket + 1 < SIZES).then_some(64_u32 << bucket);
    let sizes = counters.sizes.iter().enumerate();
    DirectionTraffic {
        total: packet_count(counters.total()),
        verdicts: verdicts.into(),
        protocols: protocols.into(),
        sizes: sizes.map(|(bucket, packets)| (limit(bucket), *packets)).collect(),
        tcp_events: TcpEvent::ALL.map(|it| (it.name(), counters.of_tcp(it))).into(),
        fragments: counters.fragments,
        tagged: counters.tagged,
        replies: counters.replies,
        flows_evicted: counters.flows_evicted,
        flows_exported: counters.flows_exported,
        flows_lost: counters.flows_lost,
        generation: counters.generation,
    }
}

pub(super) fn packet_count(count: Count) -> PacketCount {
    PacketCount { packets: count.packets, bytes: count.bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_carry_the_names_of_their_kinds() {
        let mut counters = Counters::default();
        counters.count(Verdict::DeniedByRule, Protocol::Icmpv6, 2, 120);
        counters.count_size(60, 2);
        counters.count_size(70_000, 1);
        counters.tcp[1] = 3;
        counters.replies = 4;
        counters.generation = 5;

        let traffic = named(&counters);

        let both = PacketCount { packets: 2, bytes: 120 };
        assert_eq!(traffic.total, both);
        assert_eq!(traffic.verdicts[1], ("denied_rule", both));
        assert_eq!(traffic.protocols[4], ("icmpv6", both));
        assert_eq!(traffic.verdicts.iter().filter(|(_, count)| count.packets == 0).count(), 4);
        assert_eq!(traffic.sizes[0], (Some(64), 2));
        assert_eq!(traffic.sizes[10], (Some(65_536), 0));
        assert_eq!(traffic.sizes[11], (None, 1));
        assert_eq!(traffic.tcp_events[1], ("syn_ack", 3));
        assert_eq!((traffic.replies, traffic.generation), (4, 5));
    }

    #[test]
    fn what_is_not_pinned_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let id = AttachmentId {
            claim: "1".parse().unwrap(),
            device: "eth1".parse().unwrap(),
            share: None,
        };

        let error = MapCounters::new(dir.path()).read(&id).unwrap_err();

        assert_eq!(error.reason(), "absent");
    }
}
