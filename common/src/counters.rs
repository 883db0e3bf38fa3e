//! What the programs count.

use crate::{Protocol, Verdict};

/// Packets, and the bytes of those packets from the link-layer header on, as on the wire but
/// without preamble and checksum.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// Traffic in one direction of one attachment: a value of the per-CPU map `weir_counters`.
///
/// Each packet is in one verdict and in one protocol, so the total is the sum of either. Counts
/// only ever grow. Each CPU writes its own copy; the reader adds them up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// By [`Verdict`].
    pub verdicts: [Count; 4],
    /// By [`Protocol`].
    pub protocols: [Count; 8],
}

// The two sides are compiled for different targets and meet only in memory. Whole cache lines, so
// that no two directions share one.
const _: () = assert!(size_of::<Counters>() == 192 && align_of::<Counters>() == 8);
const _: () = assert!(size_of::<Counters>().is_multiple_of(64));
// Both masks below cover their array exactly.
const _: () = assert!(Verdict::ALL.len() == 4 && Protocol::ALL.len() == 8);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` and made of `u64` only, so without padding, and any bytes are a value.
unsafe impl aya::Pod for Counters {}

impl Count {
    #[inline(always)]
    fn add(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.wrapping_add(packets);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

impl Counters {
    /// Adds `packets` of `bytes` in all. The masks prove to the verifier that the index is inside.
    #[inline(always)]
    pub fn count(&mut self, verdict: Verdict, protocol: Protocol, packets: u64, bytes: u64) {
        if let Some(count) = self.verdicts.get_mut(usize::from(verdict as u8 & 3)) {
            count.add(packets, bytes);
        }
        if let Some(count) = self.protocols.get_mut(usize::from(protocol as u8 & 7)) {
            count.add(packets, bytes);
        }
    }

    /// Adds what another CPU counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.verdicts.iter_mut().zip(&other.verdicts) {
            mine.add(theirs.packets, theirs.bytes);
        }
        for (mine, theirs) in self.protocols.iter_mut().zip(&other.protocols) {
            mine.add(theirs.packets, theirs.bytes);
        }
    }

    /// All packets.
    pub fn total(&self) -> Count {
        let mut total = Count::default();
        for count in &self.verdicts {
            total.add(count.packets, count.bytes);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_in_one_verdict_and_in_one_protocol() {
        let mut counters = Counters::default();
        for verdict in Verdict::ALL {
            for protocol in Protocol::ALL {
                counters.count(verdict, protocol, 1, 60);
            }
        }
        let mut twice = counters;
        twice.merge(&counters);

        assert!(counters.verdicts.iter().all(|count| count.packets == 8 && count.bytes == 480));
        assert!(counters.protocols.iter().all(|count| count.packets == 4 && count.bytes == 240));
        assert_eq!(twice.total(), Count { packets: 64, bytes: 3840 });
    }
}
