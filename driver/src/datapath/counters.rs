//! Reads what the programs counted.

use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use common::{Count, Counters, Direction, Protocol, Verdict};

use super::layout::{BpffsLayout, Pin};
use crate::model::{AttachmentId, DirectionTraffic, PacketCount, Traffic};

/// Where counts come from.
pub trait CounterSource: Send + Sync {
    /// What was counted for `id` since it was prepared. Takes no time to speak of.
    fn read(&self, id: &AttachmentId) -> Result<Traffic, CounterError>;
}

/// Why there are no counts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CounterError {
    /// Nothing is pinned: there is no datapath, or one of another layout.
    #[error("no counters at {}", .path.display())]
    Absent { path: PathBuf },

    #[error("look for counters at {}", .path.display())]
    Pin { path: PathBuf, source: io::Error },

    #[error("read counters at {}", .path.display())]
    Read { path: PathBuf, source: Box<MapError> },
}

impl CounterError {
    /// The value of the `reason` metric label: one of a fixed set, free of names and numbers.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "absent",
            Self::Pin { .. } => "pin",
            Self::Read { .. } => "read",
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
        let path = pin.as_path();
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(CounterError::Absent { path: path.to_owned() }),
            Err(source) => return Err(CounterError::Pin { path: path.to_owned(), source }),
        }
        read(path).map_err(|source| CounterError::Read {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

fn read(path: &Path) -> Result<Traffic, MapError> {
    let map = Map::from_map_data(MapData::from_pin(path)?)?;
    traffic(&PerCpuArray::try_from(map)?)
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
    let count = |count: Count| PacketCount { packets: count.packets, bytes: count.bytes };
    let verdicts = Verdict::ALL.map(|verdict| (verdict.name(), count(counters.of_verdict(verdict))));
    let protocols =
        Protocol::ALL.map(|protocol| (protocol.name(), count(counters.of_protocol(protocol))));
    DirectionTraffic {
        total: count(counters.total()),
        verdicts: verdicts.into(),
        protocols: protocols.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_carry_the_names_of_their_kinds() {
        let mut counters = Counters::default();
        counters.count(Verdict::DeniedByRule, Protocol::Icmpv6, 2, 120);

        let traffic = named(&counters);

        let both = PacketCount { packets: 2, bytes: 120 };
        assert_eq!(traffic.total, both);
        assert_eq!(traffic.verdicts[1], ("denied_rule", both));
        assert_eq!(traffic.protocols[4], ("icmpv6", both));
        assert_eq!(traffic.verdicts.iter().filter(|(_, count)| count.packets == 0).count(), 4);
    }

    #[test]
    fn what_is_not_pinned_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let id = AttachmentId { claim: "1".parse().unwrap(), device: "eth1".parse().unwrap() };

        let error = MapCounters::new(dir.path()).read(&id).unwrap_err();

        assert_eq!(error.reason(), "absent");
    }
}
