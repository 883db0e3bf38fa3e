//! What a filter decides about a packet.
//!
//! Rules are compiled to *entries*, each of which names at most one network at either end. Every
//! entry is a bit; each field of a packet (its class, each octet of its addresses, its ports) selects
//! the entries that it does not contradict, and what all fields have in common matches. The first
//! entry that matches decides, the default where none does. Beyond that, so that nothing slips past
//! a rule by being hard to read:
//!
//! - What is surely not IP (ARP, LLDP …) is no business of IP rules and passes, and so does IPv6
//!   neighbour discovery from the link itself: without them the interface would be dead.
//! - Of a packet that could not be read in full, a *deny* rule matches all that it may cover, any
//!   other rule only what it surely covers. So an unknown packet is let through only where it would
//!   be whatever it is.
//! - A fragment other than the first has no ports and matches no rule that names some. Its packet
//!   is judged by the first fragment; without that one it is never put together.
//! - Without a filter everything passes, malformed packets too.

#[macro_use]
mod octets;
mod narrow;
mod used;
mod wide;

use crate::{Addresses, Direction, Packet, Verdict};

pub use self::narrow::{NARROW, PORT_PAGES, PORT_SETS, Ports, Ruleset};
pub use self::used::{End, Used};
pub use self::wide::{Page, Row, WIDE, pages, rows};

/// What a decision needs beside the packet. Maps in the kernel, plain memory in tests.
///
/// `None` stands for what a map does not have; a filter of our compiler is never without.
pub trait Ground {
    fn ruleset(&self, direction: Direction) -> Option<&Ruleset>;
    fn page(&self, number: u32) -> Option<&Page>;
    fn row(&self, number: u32) -> Option<&Row>;

    /// Adds the packet to what a rule matched; rules are counted from the direction's first.
    fn hit(&mut self, rule: u32);
    /// The same for each rule of `counting`, by [`count_each`], in a place where its loop can be.
    fn hit_each(&mut self, counting: Counting);
    /// Whether the packet is within the rate of a rule, and if so, takes it from there.
    fn admits(&mut self, rule: u32) -> bool;
    /// Whether the packet answers one that went the other way.
    fn is_reply(&mut self, packet: &Packet, addresses: &Addresses) -> bool;

    /// What a wide filter decides: [`by_rows`], in a place where its loops can be.
    fn by_rows(
        &mut self,
        packet: &Packet,
        addresses: &Addresses,
        direction: Direction,
        used: Used,
    ) -> Option<Decided>;
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision {
    pub passes: bool,
    pub verdict: Verdict,
    /// It passes only because it answers another.
    pub is_reply: bool,
}

/// The decision where there is no filter.
#[inline(always)]
pub const fn pass(packet: &Packet) -> Decision {
    let verdict = if packet.is_malformed() { Verdict::Malformed } else { Verdict::Allowed };
    Decision { passes: true, verdict, is_reply: false }
}

#[inline(always)]
const fn drop(packet: &Packet, verdict: Verdict) -> Decision {
    let verdict = if packet.is_malformed() { Verdict::Malformed } else { verdict };
    Decision { passes: false, verdict, is_reply: false }
}

/// The decision of the filter on `ground` about a packet. `addresses` are looked at where the
/// packet [has some](Packet::has_addresses).
#[inline(always)]
pub fn judge(
    packet: &Packet,
    addresses: &Addresses,
    direction: Direction,
    used: Used,
    ground: &mut impl Ground,
) -> Decision {
    if packet.is_foreign() || packet.is_neighbour_discovery() {
        return pass(packet);
    }
    let decided = if !used.has(Used::RULES) {
        None
    } else if used.has(Used::WIDE) {
        ground.by_rows(packet, addresses, direction, used)
    } else {
        by_words(packet, addresses, direction, used, ground)
    };
    match decided {
        Some(Decided::Deny) => drop(packet, Verdict::DeniedByRule),
        Some(Decided::OverRate) => drop(packet, Verdict::DeniedByRate),
        None if used.has(Used::STATEFUL) && ground.is_reply(packet, addresses) => {
            Decision { is_reply: true, ..pass(packet) }
        }
        None if used.has(Used::DENY) => drop(packet, Verdict::DeniedByDefault),
        Some(Decided::Allow) | None => pass(packet),
    }
}

/// What a rule decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decided {
    Allow = 1,
    Deny,
    OverRate,
}

/// The entries of one word that match, and what those of the word do.
#[derive(Clone, Copy)]
struct Matched {
    found: u64,
    allow: u64,
    limit: u64,
    count: u64,
}

impl Matched {
    /// The first entry that decides, as a bit; zero where none does.
    #[inline(always)]
    const fn deciding(&self) -> u64 {
        let deciding = self.found & !self.count;
        deciding & deciding.wrapping_neg()
    }

    /// The entries that only count, and come before the one that decides.
    #[inline(always)]
    const fn counting(&self) -> u64 {
        // Without a deciding one: all ones.
        let before = self.deciding().wrapping_sub(1);
        self.found & self.count & before
    }
}

#[inline(always)]
fn by_words(
    packet: &Packet,
    addresses: &Addresses,
    direction: Direction,
    used: Used,
    ground: &mut impl Ground,
) -> Option<Decided> {
    let ruleset = ground.ruleset(direction)?;
    let &Ruleset { allow, limit, count, .. } = ruleset;
    let found = ruleset.select(packet, addresses, used);
    let matched = Matched { found, allow, limit, count };
    settle(matched, 0, direction, used, ground)
}

/// What a wide filter decides.
#[inline(always)]
pub fn by_rows(
    packet: &Packet,
    addresses: &Addresses,
    direction: Direction,
    used: Used,
    ground: &mut impl Ground,
) -> Option<Decided> {
    let question = wide::Question { packet, addresses, direction, used };
    let mut candidates = question.candidates(ground)?;
    // The verifier wants to see an end.
    for _ in 0..WIDE / 64 {
        if candidates == 0 {
            break;
        }
        let n = position(candidates & candidates.wrapping_neg());
        candidates &= candidates.wrapping_sub(1);
        let matched = question.word(ground, n)?;
        let decided = settle(matched, n, direction, used, ground);
        if decided.is_some() {
            return decided;
        }
    }
    None
}

/// Entries of one word whose rules count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counting {
    /// A bit for each.
    pub entries: u64,
    /// Which word it is; zero where the filter is narrow.
    pub word: u32,
}

/// Adds the packet to what the rule of each entry of `counting` matched.
#[inline(always)]
pub fn count_each(counting: Counting, direction: Direction, used: Used, ground: &mut impl Ground) {
    let mut entries = counting.entries;
    for _ in 0..NARROW {
        if entries == 0 {
            return;
        }
        let bit = position(entries & entries.wrapping_neg());
        let Some(rule) = rule(direction, used, ground, counting.word * 64 + bit) else { return };
        ground.hit(rule);
        entries &= entries.wrapping_sub(1);
    }
}

/// The rule of an entry.
#[inline(always)]
fn rule(direction: Direction, used: Used, ground: &impl Ground, entry: u32) -> Option<u32> {
    if used.has(Used::WIDE) {
        wide::rule(direction, ground, entry)
    } else {
        Some(u32::from(ground.ruleset(direction)?.rules[entry as usize & (NARROW - 1)]))
    }
}

/// Does what the entries of the word `n` say.
#[inline(always)]
fn settle(
    matched: Matched,
    n: u32,
    direction: Direction,
    used: Used,
    ground: &mut impl Ground,
) -> Option<Decided> {
    if used.has(Used::COUNT) {
        let entries = matched.counting();
        if entries != 0 {
            ground.hit_each(Counting { entries, word: n });
        }
    }
    let bit = matched.deciding();
    if bit == 0 {
        return None;
    }
    let rule = rule(direction, used, ground, n * 64 + position(bit))?;
    ground.hit(rule);
    if matched.allow & bit != 0 {
        return Some(Decided::Allow);
    }
    if used.has(Used::LIMIT) && matched.limit & bit != 0 {
        return Some(if ground.admits(rule) { Decided::Allow } else { Decided::OverRate });
    }
    Some(Decided::Deny)
}

/// The number of the one bit that is set.
///
/// BPF counts no zeroes. Each power of two times this number has other upper six bits (a de Bruijn
/// sequence), which say where to look.
#[inline(always)]
fn position(bit: u64) -> u32 {
    u32::from(POSITIONS[(bit.wrapping_mul(SEQUENCE) >> 58) as usize & 63] & 63)
}

const SEQUENCE: u64 = 0x03f7_9d71_b4cb_0a89;

/// In the lower six bits. The upper two are noise: without it the compiler would know that no position
/// is above 63 and leave out the mask, and the verifier would not know.
static POSITIONS: [u8; 64] = {
    let mut positions = [0; 64];
    let mut n = 0_u8;
    while n < 64 {
        positions[(SEQUENCE.wrapping_mul(1 << n) >> 58) as usize] = n | n << 6;
        n += 1;
    }
    positions
};
