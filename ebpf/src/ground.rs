//! What a decision needs beside the packet: the maps of this attachment.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use common::{
    Addresses, Counting, Decided, Direction, Ground, Opening, Packet, Page, Row, Ruleset,
};

use crate::constants;
use crate::maps::{HITS, LIMITS, PAGES, ROWS, RULES, STATE};

/// How often CPUs that take from one limit at once try again. Who loses as often passes: a packet
/// is dropped only because a rule says so.
const TRIES: u32 = 4;

/// What the maps have to know of a packet.
pub(crate) struct Maps {
    pub(crate) direction: Direction,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Ground for Maps {
    #[inline(always)]
    fn ruleset(&self, direction: Direction) -> Option<&Ruleset> {
        RULES.get(direction as u32)
    }

    #[inline(always)]
    fn page(&self, number: u32) -> Option<&Page> {
        PAGES.get(number)
    }

    #[inline(always)]
    fn row(&self, number: u32) -> Option<&Row> {
        ROWS.get(number)
    }

    #[inline(always)]
    fn hit(&mut self, rule: u32) {
        if let Some(count) = HITS.get_ptr_mut(constants::first_rule(self.direction) + rule) {
            // SAFETY: this CPU's own copy, see `count` in `main.rs`.
            unsafe { (*count).add(self.packets, self.bytes) };
        }
    }

    #[inline(always)]
    fn hit_each(&mut self, Counting { entries, word }: Counting) {
        match self.direction {
            Direction::Ingress => weir_count_in(entries, word, self.packets, self.bytes),
            Direction::Egress => weir_count_out(entries, word, self.packets, self.bytes),
        };
    }

    #[inline(always)]
    fn decide_wide(&mut self, packet: &Packet, addresses: &Addresses) -> Option<Decided> {
        Decided::from_number(match self.direction {
            Direction::Ingress => weir_wide_in(packet, addresses, self.packets, self.bytes),
            Direction::Egress => weir_wide_out(packet, addresses, self.packets, self.bytes),
        })
    }

    #[inline(always)]
    fn admits(&mut self, rule: u32) -> bool {
        let number = constants::first_rule(self.direction) + rule;
        let Some(limit) = LIMITS.get_ptr_mut(number) else { return true };
        for _ in 0..TRIES {
            // SAFETY: other CPUs write the arrival time, and nobody writes the rest.
            let (fixed, arrival) =
                unsafe { (&*limit, (&raw const (*limit).arrival).read_volatile()) };
            let Some(next) = fixed.admit(arrival, jiffies(), self.packets, self.bytes) else {
                return false;
            };
            // SAFETY: inside the map's value.
            if unsafe { exchange(&raw mut (*limit).arrival, arrival, next) } {
                return true;
            }
        }
        true
    }

    #[inline(always)]
    fn is_reply(&mut self, packet: &Packet, addresses: &Addresses) -> bool {
        let Some(answered) =
            Opening::answered_by(packet, addresses, self.direction, constants::seed())
        else {
            return false;
        };
        let Some(bucket) = STATE.get_ptr_mut(answered.hash() & (constants::state_buckets() - 1))
        else {
            return false;
        };
        let is_last = common::is_last(packet);
        // SAFETY: other CPUs may write at the same time; a conversation that is half of one and half
        // of another fails its check.
        unsafe { (*bucket).recall(&answered, jiffies(), constants::hz(), is_last) }
    }
}

impl Maps {
    /// Remembers that the packet was let through, for its answers.
    #[inline(always)]
    pub(crate) fn remember(&self, packet: &Packet, addresses: &Addresses) {
        let Some(opening) = Opening::by(packet, addresses, self.direction, constants::seed())
        else {
            return;
        };
        if let Some(bucket) = STATE.get_ptr_mut(opening.hash() & (constants::state_buckets() - 1)) {
            // SAFETY: as in `is_reply`.
            unsafe { (*bucket).remember(&opening, jiffies(), constants::hz()) };
        }
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_count_in(entries: u64, word: u32, packets: u64, bytes: u64) -> u32 {
    count(Counting { entries, word }, Direction::Ingress, packets, bytes)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_count_out(entries: u64, word: u32, packets: u64, bytes: u64) -> u32 {
    count(Counting { entries, word }, Direction::Egress, packets, bytes)
}

/// In a global function for each direction, as in `far.rs`: it is verified once, and knows what the
/// filter uses. It returns a number, whatever it has to say.
#[inline(always)]
fn count(counting: Counting, direction: Direction, packets: u64, bytes: u64) -> u32 {
    let mut maps = Maps { direction, packets, bytes };
    common::count_each(counting, direction, constants::used(direction), &mut maps);
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_wide_in(
    packet: *const Packet,
    addresses: *const Addresses,
    packets: u64,
    bytes: u64,
) -> u32 {
    wide(packet, addresses, Maps { direction: Direction::Ingress, packets, bytes })
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_wide_out(
    packet: *const Packet,
    addresses: *const Addresses,
    packets: u64,
    bytes: u64,
) -> u32 {
    wide(packet, addresses, Maps { direction: Direction::Egress, packets, bytes })
}

/// In a global function for each direction, as [`count`].
#[inline(always)]
fn wide(packet: *const Packet, addresses: *const Addresses, mut maps: Maps) -> u32 {
    // SAFETY: both callers above pass references. The verifier knows that they are of this size, and
    // not that they are there.
    let (Some(packet), Some(addresses)) =
        (unsafe { packet.as_ref() }, unsafe { addresses.as_ref() })
    else {
        return 0;
    };
    let (direction, used) = (maps.direction, constants::used(maps.direction));
    common::decide_wide(packet, addresses, direction, used, &mut maps).map_or(0, |it| it as u32)
}

/// The kernel's tick count. Not a call: the verifier puts the load in its place.
#[inline(always)]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: takes nothing and touches nothing.
    unsafe { bpf_jiffies64() }
}

/// Writes `new` to `at` if `old` is there, at once. Answers whether it was.
///
/// # Safety
///
/// `at` is aligned and inside a map's value.
#[inline(always)]
unsafe fn exchange(at: *mut u64, old: u64, new: u64) -> bool {
    let mut found = old;
    // SAFETY: as promised by the caller. The instruction is in every kernel since 5.12.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({at} + 0, r0, {new})",
            at = in(reg) at,
            new = in(reg) new,
            inout("r0") found,
        );
    }
    found == old
}
