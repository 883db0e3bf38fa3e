//! Flows: who talks to whom, in a cache that forgets.
//!
//! The cache is an array without chains: a flow has one place, by a hash of its key, and takes it
//! from whatever flow is there. So a packet costs the same whether its flow is new or not, also in
//! a flood of random ones, and what is forgotten is only ever detail: totals are counted apart.

use crate::class::Class;
use crate::{Addresses, Direction, Family, Packet, Protocol, Verdict};

/// One flow in one direction: a value of the per-CPU map `weir_flows`. All zero where none is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flow {
    pub addresses: Addresses,
    /// Source port in the upper half, destination port in the lower, in host byte order. Of ICMP
    /// the identifier and the type.
    pub ports: u32,
    /// Protocol, family and direction: see [`Flow::protocol`] and its neighbours.
    pub kind: u16,
    /// All TCP flags that were seen.
    pub tcp_flags: u8,
    /// The last packet's [`Verdict`].
    pub verdict: u8,
    /// As on the wire.
    pub packets: u64,
    /// As in [`Count`](crate::Count).
    pub bytes: u64,
    /// The lower half of the kernel's `jiffies` when the first packet was seen.
    pub first_seen: u32,
    /// When the last one was.
    pub last_seen: u32,
}

const _: () = assert!(size_of::<Flow>() == 64 && align_of::<Flow>() == 8);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` and made of integers only; the assertion above leaves no room for padding.
unsafe impl aya::Pod for Flow {}

/// Bit of [`Flow::kind`] for what goes out, above those of the class.
const EGRESS: u16 = 1 << 9;

/// What tells one flow from another.
#[derive(Clone, Copy)]
pub struct FlowKey {
    addresses: Addresses,
    ports: u32,
    kind: u16,
}

/// One packet, or what GSO makes several of, as a flow counts it.
#[derive(Clone, Copy)]
pub struct Seen {
    pub packets: u64,
    pub bytes: u64,
    pub tcp_flags: u32,
    pub verdict: Verdict,
    pub now: u32,
}

impl FlowKey {
    #[inline(always)]
    pub fn new(packet: &Packet, addresses: Addresses, direction: Direction) -> Self {
        let kind = packet.class().0 & (Class::PROTOCOL | Class::V6) as u16;
        let kind = match direction {
            Direction::Ingress => kind,
            Direction::Egress => kind | EGRESS,
        };
        Self { addresses, ports: packet.raw_ports(), kind }
    }

    /// Where the flow belongs; the caller takes as many of the lower bits as it has places.
    #[inline(always)]
    pub fn hash(&self, seed: u64) -> u32 {
        let rest = u64::from(self.ports) | u64::from(self.kind) << 32;
        self.addresses.mixed(rest ^ seed, self.kind & Class::V6 as u16 != 0)
    }
}

impl Flow {
    /// Whether this place holds the flow of `key`.
    #[inline(always)]
    pub fn is(&self, key: &FlowKey) -> bool {
        if self.ports != key.ports || self.kind != key.kind {
            return false;
        }
        let ([a0, a1, a2, a3], [k0, k1, k2, k3]) = (self.addresses.0, key.addresses.0);
        // The other words of IPv4 are zero.
        a0 == k0 && (key.kind & Class::V6 as u16 == 0 || (a1 == k1 && a2 == k2 && a3 == k3))
    }

    #[inline(always)]
    pub fn is_vacant(&self) -> bool {
        self.packets == 0
    }

    /// Gives the place to the flow of `key`, and counts its first packet.
    ///
    /// Nothing is set to zero and then added to: of zeroes next to each other the compiler makes a
    /// call of `memset`, which in BPF is a loop.
    #[inline(always)]
    pub fn begin(&mut self, key: &FlowKey, seen: &Seen) {
        self.addresses = key.addresses;
        self.ports = key.ports;
        self.kind = key.kind;
        self.tcp_flags = seen.tcp_flags as u8;
        self.verdict = seen.verdict as u8;
        self.packets = seen.packets;
        self.bytes = seen.bytes;
        self.first_seen = seen.now;
        self.last_seen = seen.now;
    }

    #[inline(always)]
    pub fn count(&mut self, seen: &Seen) {
        self.packets = self.packets.wrapping_add(seen.packets);
        self.bytes = self.bytes.wrapping_add(seen.bytes);
        self.tcp_flags |= seen.tcp_flags as u8;
        self.verdict = seen.verdict as u8;
        self.last_seen = seen.now;
    }

    pub const fn protocol(&self) -> Protocol {
        Class(self.kind).counted_protocol()
    }

    pub const fn family(&self) -> Family {
        if self.kind & Class::V6 as u16 == 0 { Family::V4 } else { Family::V6 }
    }

    pub const fn direction(&self) -> Direction {
        if self.kind & EGRESS == 0 { Direction::Ingress } else { Direction::Egress }
    }

    /// `None` where the number is none, which only happens where somebody wrote into the map.
    pub fn last_verdict(&self) -> Option<Verdict> {
        Verdict::ALL.get(usize::from(self.verdict)).copied()
    }
}
