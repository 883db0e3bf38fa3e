//! At most 64 entries: each is a bit of a word, each field of a packet selects a word, and what is
//! set in all of them matches.
//!
//! So a packet costs the same whether the first entry matches, the last, or none.

use super::{End, Used};
use crate::{Addresses, Class, Packet};

/// Most entries of a [`Ruleset`].
pub const NARROW: usize = 64;

/// Different words that the ports of one end may select.
pub const PORT_SETS: usize = 128;

/// Different groups of 256 ports that begin at a multiple of 256.
pub const PORT_PAGES: usize = 64;

/// The filter of one direction of one attachment: a value of the map `weir_rules`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ruleset {
    /// Entries that allow, that allow up to a rate, and that count only. All others deny.
    pub allow: u64,
    pub limit: u64,
    pub count: u64,
    pub reserved: u64,
    /// The rule of each entry, counted from the direction's first.
    pub rules: [u16; NARROW],
    /// By [`Class`].
    pub classes: [u64; Class::COUNT],
    pub source_ports: Ports,
    pub destination_ports: Ports,
    /// By octet: of the source first, then of the destination.
    pub v4: [[u64; 256]; 8],
    pub v6: [[u64; 256]; 32],
}

/// Which word a port selects: its upper half selects a page, its lower half a set there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ports {
    pub pages: [u8; 256],
    pub sets: [[u8; 256]; PORT_PAGES],
    pub words: [u64; PORT_SETS],
}

const _: () = assert!(size_of::<Ports>() == 256 + PORT_PAGES * 256 + PORT_SETS * 8);
const _: () =
    assert!(size_of::<Ruleset>() == 32 + 128 + 4096 + 2 * size_of::<Ports>() + 40 * 256 * 8);
const _: () = assert!(PORT_PAGES.is_power_of_two() && PORT_SETS.is_power_of_two());

#[cfg(feature = "user")]
// SAFETY: `repr(C)` and made of integers only; the assertions above leave no room for padding.
unsafe impl aya::Pod for Ruleset {}

impl Ports {
    const EMPTY: Self =
        Self { pages: [0; 256], sets: [[0; 256]; PORT_PAGES], words: [0; PORT_SETS] };

    #[inline(always)]
    fn select(&self, port: u32) -> u64 {
        let page = usize::from(self.pages[(port >> 8) as usize & 0xff]) & (PORT_PAGES - 1);
        let set = usize::from(self.sets[page][port as usize & 0xff]) & (PORT_SETS - 1);
        self.words[set]
    }
}

impl Ruleset {
    /// No entries. 120 KiB.
    #[expect(clippy::large_stack_arrays, reason = "a constant, copied to the heap or to a map")]
    pub const EMPTY: Self = Self {
        allow: 0,
        limit: 0,
        count: 0,
        reserved: 0,
        rules: [0; NARROW],
        classes: [0; Class::COUNT],
        source_ports: Ports::EMPTY,
        destination_ports: Ports::EMPTY,
        v4: [[0; 256]; 8],
        v6: [[0; 256]; 32],
    };

    /// The entries that match.
    #[inline(always)]
    pub(super) fn select(&self, packet: &Packet, addresses: &Addresses, used: Used) -> u64 {
        let class = packet.class();
        let mut found = self.classes[class.index()];
        if packet.has_addresses() {
            found &= self.addressed(packet, addresses, used);
        }
        if packet.is_whole() {
            if used.has(Used::SOURCE_PORTS) {
                found &= self.source_ports.select(packet.raw_ports() >> 16);
            }
            if used.has(Used::DESTINATION_PORTS) {
                found &= self.destination_ports.select(packet.raw_ports() & 0xffff);
            }
        }
        found
    }

    #[inline(always)]
    fn addressed(&self, packet: &Packet, addresses: &Addresses, used: Used) -> u64 {
        let mut found = u64::MAX;
        if packet.is_v6() {
            let (source, destination) =
                (used.octets(End::SourceV6), used.octets(End::DestinationV6));
            each_octet_v6!(n => {
                if source > n as u32 {
                    found &= self.v6[n][addresses.octet_v6(n)];
                }
                if destination > n as u32 {
                    found &= self.v6[16 + n][addresses.octet_v6(16 + n)];
                }
            });
        } else {
            let (source, destination) =
                (used.octets(End::SourceV4), used.octets(End::DestinationV4));
            each_octet_v4!(n => {
                if source > n as u32 {
                    found &= self.v4[n][addresses.octet_v4(n)];
                }
                if destination > n as u32 {
                    found &= self.v4[4 + n][addresses.octet_v4(4 + n)];
                }
            });
        }
        found
    }
}
