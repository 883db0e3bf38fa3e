//! More than 64 entries: as in the narrow form, but a field selects a row of 64 words.
//!
//! Each row has a summary, a bit for each of its words that is not zero. Summaries are compared
//! first, and then only the words that are left, the first entries first. In the worst case, which
//! takes rules made for it, all 64 words are compared.

use core::hint::black_box;

use super::{End, Ground, Matched, Used};
use crate::{Addresses, Direction, Packet};

/// Most entries of a wide filter.
pub const WIDE: usize = 4096;

/// Entries by bit: a value of the map `weir_rows`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row {
    /// Bit `n` is set where `words[n]` is not zero.
    pub summary: u64,
    pub words: [u64; WIDE / 64],
}

/// A table of 256 row numbers, or of other pages' numbers, or of rules: a value of the map
/// `weir_pages`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Page(pub [u16; 256]);

const _: () = assert!(size_of::<Row>() == 520 && size_of::<Page>() == 512);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` and made of `u64` only, so without padding, and any bytes are a value.
unsafe impl aya::Pod for Row {}

#[cfg(feature = "user")]
// SAFETY: transparent over integers of one size.
unsafe impl aya::Pod for Page {}

/// The rows of a direction that are no table's: they come first, from [`rows::OF_DIRECTION`] times the
/// direction on.
pub mod rows {
    /// Entries that allow.
    pub const ALLOW: u32 = 0;
    /// Entries that allow up to a rate.
    pub const LIMIT: u32 = 1;
    /// Entries that count only. All others deny.
    pub const COUNT: u32 = 2;
    pub const OF_DIRECTION: u32 = 3;
}

/// The pages of a direction, from [`pages::OF_DIRECTION`] times the direction on; behind those of both
/// come the pages that the pages of ports name.
pub mod pages {
    /// Rows by [`Class`](crate::Class): two pages.
    pub const CLASSES: u32 = 0;
    /// Rows by octet: of the source first, then of the destination.
    pub const V4: u32 = 2;
    pub const V6: u32 = 10;
    /// Pages by the upper half of a port; these hold rows by its lower half.
    pub const SOURCE_PORTS: u32 = 42;
    pub const DESTINATION_PORTS: u32 = 43;
    /// The rule of each entry: sixteen pages.
    pub const RULES: u32 = 44;
    pub const OF_DIRECTION: u32 = 60;
}

/// What is asked of the rows.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) packet: &'a Packet,
    pub(super) addresses: &'a Addresses,
    pub(super) direction: Direction,
    pub(super) used: Used,
}

/// Up to eight octets of addresses that entries ask for.
struct Octets {
    /// The page of the first.
    first: u32,
    used: u32,
    /// From the lowest bits on.
    values: u64,
}

impl Question<'_> {
    /// The words that may have entries that match.
    #[inline(always)]
    pub(super) fn candidates(&self, ground: &impl Ground) -> Option<u64> {
        let mut found = u64::MAX;
        self.each_row(ground, |row| found &= row.summary)?;
        Some(found)
    }

    /// What matches of the entries in word `n`.
    #[inline(always)]
    pub(super) fn word(&self, ground: &impl Ground, n: u32) -> Option<Matched> {
        let n = n as usize & (WIDE / 64 - 1);
        let mut found = u64::MAX;
        self.each_row(ground, |row| found &= row.words[n])?;
        let of = |row| Some(self.row(ground, row)?.words[n]);
        Some(Matched {
            found,
            allow: of(rows::ALLOW)?,
            limit: if self.used.has(Used::LIMIT) { of(rows::LIMIT)? } else { 0 },
            count: if self.used.has(Used::COUNT) { of(rows::COUNT)? } else { 0 },
        })
    }

    /// The row that each field of the packet selects.
    #[inline(always)]
    fn each_row(&self, ground: &impl Ground, mut then: impl FnMut(&Row)) -> Option<()> {
        let class = self.packet.class().index();
        then(self.entry(ground, pages::CLASSES + (class >> 8) as u32, class)?);
        if self.packet.has_addresses() {
            // Not written out: each lookup of a map has its key on the stack, of which there is little.
            // Of 64 bits, because of others the verifier forgets what was put there.
            for n in 0..black_box(4_u64) {
                self.each_octet(ground, self.octets(n as u32), &mut then)?;
            }
        }
        if self.packet.is_whole() {
            let ports = self.packet.raw_ports();
            if self.used.has(Used::SOURCE_PORTS) {
                then(self.of_port(ground, pages::SOURCE_PORTS, ports >> 16)?);
            }
            if self.used.has(Used::DESTINATION_PORTS) {
                then(self.of_port(ground, pages::DESTINATION_PORTS, ports & 0xffff)?);
            }
        }
        Some(())
    }

    /// The rows of `octets`.
    #[inline(always)]
    fn each_octet(
        &self,
        ground: &impl Ground,
        Octets { first, used, mut values }: Octets,
        then: &mut impl FnMut(&Row),
    ) -> Option<()> {
        for n in 0..black_box(8) {
            if n >= used {
                break;
            }
            then(self.entry(ground, first + n, values as usize & 0xff)?);
            values >>= 8;
        }
        Some(())
    }

    /// Part `n` of four of the addresses.
    #[inline(always)]
    fn octets(&self, n: u32) -> Octets {
        let Addresses(words) = self.addresses;
        if self.packet.is_v6() {
            let end = if n < 2 { End::SourceV6 } else { End::DestinationV6 };
            let used = self.used.octets(end);
            let used = if n & 1 == 0 { used.min(8) } else { used.saturating_sub(8) };
            Octets { first: pages::V6 + 8 * n, used, values: words[n as usize & 3] }
        } else {
            let used = match n {
                0 => self.used.octets(End::SourceV4),
                1 => self.used.octets(End::DestinationV4),
                _ => 0,
            };
            Octets { first: pages::V4 + 4 * n, used, values: words[0] >> (32 * (n & 1)) }
        }
    }

    #[inline(always)]
    fn of_port<'g>(&self, ground: &'g impl Ground, page: u32, port: u32) -> Option<&'g Row> {
        let upper = self.page(ground, page)?.0[(port >> 8) as usize & 0xff];
        let lower = ground.page(u32::from(upper))?.0[port as usize & 0xff];
        ground.row(u32::from(lower))
    }

    #[inline(always)]
    fn entry<'g>(&self, ground: &'g impl Ground, page: u32, value: usize) -> Option<&'g Row> {
        ground.row(u32::from(self.page(ground, page)?.0[value & 0xff]))
    }

    #[inline(always)]
    fn page<'g>(&self, ground: &'g impl Ground, page: u32) -> Option<&'g Page> {
        page_of(self.direction, ground, page)
    }

    #[inline(always)]
    fn row<'g>(&self, ground: &'g impl Ground, row: u32) -> Option<&'g Row> {
        ground.row(self.direction as u32 * rows::OF_DIRECTION + row)
    }
}

/// The rule of an entry.
#[inline(always)]
pub(super) fn rule(direction: Direction, ground: &impl Ground, entry: u32) -> Option<u32> {
    let page = page_of(direction, ground, pages::RULES + (entry >> 8 & 0xf))?;
    // The compiler would put it together from two numbers by `or`, of whose result verifiers before 6.10
    // know nothing.
    Some(u32::from(page.0[black_box(entry) as usize & 0xff]))
}

#[inline(always)]
fn page_of(direction: Direction, ground: &impl Ground, page: u32) -> Option<&Page> {
    ground.page(direction as u32 * pages::OF_DIRECTION + page)
}
