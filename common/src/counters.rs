//! What the programs count.

use crate::{Protocol, TcpEvent, Verdict};

/// Packets, and the bytes of those packets from the link-layer header on, as on the wire but
/// without preamble and checksum.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// Buckets of the histogram of packet sizes.
pub const SIZES: usize = 12;

/// Kinds of packets that are counted apart: each verdict with each protocol.
const KINDS: usize = Verdict::ALL.len() * Protocol::ALL.len();

/// Traffic in one direction of one attachment: a value of the per-CPU map `weir_counters`.
///
/// Counts only ever grow. Each CPU writes its own copy; the reader adds them up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counters {
    /// By [`Verdict`] and, within each, by [`Protocol`]: one count for each packet, so that sums
    /// over either cost the program nothing.
    pub traffic: [Count; KINDS],
    /// Packets by size: bucket `n` has those of at most `64 << n` bytes that are in none before
    /// it, the last one all that are larger.
    pub sizes: [u64; SIZES],
    /// Packets by [`TcpEvent`].
    pub tcp: [u64; 4],
    /// Packets that are part of a fragmented one.
    pub fragments: u64,
    /// Packets with a VLAN tag, in the frame or taken out of it by the device.
    pub tagged: u64,
    /// Packets accepted because they answer others, see `stateful`.
    pub replies: u64,
    /// Flows that had to leave the cache for others.
    pub flows_evicted: u64,
    /// Those of them that were handed to user space.
    pub flows_exported: u64,
    /// Those of them that should have been, but the ring buffer was full.
    pub flows_lost: u64,
    /// The generation of the policy that the last packet was judged by.
    pub generation: u64,
    pub reserved: u64,
}

// The two sides are compiled for different targets and meet only in memory. Whole cache lines, so
// that no two directions share one.
const _: () = assert!(size_of::<Counters>() == 832 && align_of::<Counters>() == 8);
const _: () = assert!(size_of::<Counters>().is_multiple_of(64));

#[cfg(feature = "user")]
// SAFETY: `repr(C)` and made of `u64` only, so without padding, and any bytes are a value.
unsafe impl aya::Pod for Counters {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Count {}

impl Default for Counters {
    fn default() -> Self {
        Self {
            traffic: [Count::default(); KINDS],
            sizes: [0; SIZES],
            tcp: [0; 4],
            fragments: 0,
            tagged: 0,
            replies: 0,
            flows_evicted: 0,
            flows_exported: 0,
            flows_lost: 0,
            generation: 0,
            reserved: 0,
        }
    }
}

impl Count {
    #[inline(always)]
    pub fn add(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.wrapping_add(packets);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

impl Counters {
    /// Adds `packets` of `bytes` in all.
    #[inline(always)]
    pub fn count(&mut self, verdict: Verdict, protocol: Protocol, packets: u64, bytes: u64) {
        if let Some(count) = self.traffic.get_mut(kind(verdict, protocol)) {
            count.add(packets, bytes);
        }
    }

    /// Adds `packets` of `size` bytes each.
    #[inline(always)]
    pub fn count_size(&mut self, size: u32, packets: u64) {
        if let Some(count) = self.sizes.get_mut(bucket(size)) {
            *count = count.wrapping_add(packets);
        }
    }

    /// Adds a packet with these TCP flags.
    #[inline(always)]
    pub fn count_tcp(&mut self, flags: u32) {
        let [syn, syn_ack, fin, rst] = &mut self.tcp;
        if flags & tcp::SYN != 0 {
            let count = if flags & tcp::ACK == 0 { syn } else { syn_ack };
            *count = count.wrapping_add(1);
        }
        if flags & tcp::FIN != 0 {
            *fin = fin.wrapping_add(1);
        }
        if flags & tcp::RST != 0 {
            *rst = rst.wrapping_add(1);
        }
    }

    /// Adds what another CPU counted. Of two generations the later one stays.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.traffic.iter_mut().zip(&other.traffic) {
            mine.add(theirs.packets, theirs.bytes);
        }
        let mine = self.sizes.iter_mut().chain(&mut self.tcp);
        for (mine, theirs) in mine.zip(other.sizes.iter().chain(&other.tcp)) {
            *mine = mine.wrapping_add(*theirs);
        }
        for (mine, theirs) in [
            (&mut self.fragments, other.fragments),
            (&mut self.tagged, other.tagged),
            (&mut self.replies, other.replies),
            (&mut self.flows_evicted, other.flows_evicted),
            (&mut self.flows_exported, other.flows_exported),
            (&mut self.flows_lost, other.flows_lost),
        ] {
            *mine = mine.wrapping_add(theirs);
        }
        self.generation = self.generation.max(other.generation);
    }

    /// All packets.
    pub fn total(&self) -> Count {
        sum(&self.traffic)
    }

    pub fn of_verdict(&self, verdict: Verdict) -> Count {
        sum(Protocol::ALL.map(|protocol| self.traffic[kind(verdict, protocol)]).as_slice())
    }

    pub fn of_protocol(&self, protocol: Protocol) -> Count {
        sum(Verdict::ALL.map(|verdict| self.traffic[kind(verdict, protocol)]).as_slice())
    }

    pub fn of_tcp(&self, event: TcpEvent) -> u64 {
        self.tcp[event as usize]
    }
}

/// Bits of the flags byte of a TCP header (RFC 9293).
pub(crate) mod tcp {
    pub(crate) const FIN: u32 = 1;
    pub(crate) const SYN: u32 = 1 << 1;
    pub(crate) const RST: u32 = 1 << 2;
    pub(crate) const ACK: u32 = 1 << 4;
}

#[inline(always)]
const fn kind(verdict: Verdict, protocol: Protocol) -> usize {
    verdict as usize * Protocol::ALL.len() + protocol as usize
}

/// The smallest `n` for which `size` is at most `64 << n`, by halving the buckets that are left.
#[inline(always)]
const fn bucket(size: u32) -> usize {
    if size <= 1024 {
        if size <= 128 {
            if size <= 64 { 0 } else { 1 }
        } else if size <= 256 {
            2
        } else if size <= 512 {
            3
        } else {
            4
        }
    } else if size <= 4096 {
        if size <= 2048 { 5 } else { 6 }
    } else if size <= 16_384 {
        if size <= 8192 { 7 } else { 8 }
    } else if size <= 32_768 {
        9
    } else if size <= 65_536 {
        10
    } else {
        11
    }
}

fn sum(counts: &[Count]) -> Count {
    let mut sum = Count::default();
    for count in counts {
        sum.add(count.packets, count.bytes);
    }
    sum
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

        for verdict in Verdict::ALL {
            assert_eq!(counters.of_verdict(verdict), Count { packets: 8, bytes: 480 });
        }
        for protocol in Protocol::ALL {
            assert_eq!(counters.of_protocol(protocol), Count { packets: 5, bytes: 300 });
        }
        assert_eq!(twice.total(), Count { packets: 80, bytes: 4800 });
    }

    #[test]
    fn sizes_fall_into_powers_of_two() {
        for n in 0..SIZES {
            let most = 64_u32 << n;
            assert_eq!(bucket(most), n);
            assert_eq!(bucket(most - 1), n);
            assert_eq!(bucket(most + 1), (n + 1).min(SIZES - 1));
        }
        assert_eq!((bucket(0), bucket(u32::MAX)), (0, SIZES - 1));
    }

    #[test]
    fn a_segment_may_be_more_than_one_event() {
        let mut counters = Counters::default();
        for flags in [tcp::SYN, tcp::SYN | tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST, tcp::ACK] {
            counters.count_tcp(flags);
        }
        counters.count_tcp(tcp::FIN | tcp::RST);
        let events = TcpEvent::ALL.map(|event| counters.of_tcp(event));
        assert_eq!(events, [1, 1, 2, 2]);
    }
}
