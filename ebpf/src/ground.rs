//! What a decision needs beside the packet: the maps of this attachment.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use common::{
    Addresses, Counting, Decided, Direction, Ground, Opening, Packet, Page, Row, Ruleset, Used,
};

use crate::constants;
use crate::far::{self, Headers};
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
    fn hit_each(&mut self, counting: Counting) {
        far::count_each(counting, self.direction, self.packets, self.bytes);
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
        // SAFETY: other CPUs may write at the same time; a conversation that is half of one and half
        // of another fails its check.
        unsafe { (*bucket).recall(&answered, jiffies(), constants::hz()) }
    }

    #[inline(always)]
    fn by_rows(
        &mut self,
        &packet: &Packet,
        &addresses: &Addresses,
        direction: Direction,
        _: Used,
    ) -> Option<Decided> {
        far::by_rows(Headers { packet, addresses }, direction, self.packets, self.bytes)
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
