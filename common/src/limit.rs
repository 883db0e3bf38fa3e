//! Rate limits.
//!
//! A limit is a *theoretical arrival time*, as in the generic cell rate algorithm (ITU-T I.371): each
//! packet moves it forward by what the packet costs, and a packet comes too early when it lies
//! further ahead than the burst. One word of state, no timer, and CPUs share it by comparing and
//! exchanging it.

/// One rule's limit: a value of the map `weir_limits`. All zero where a rule has none.
///
/// Time is in 2^-32 of the kernel's `jiffies`, and wraps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limit {
    /// How long one packet takes at that rate, or one byte.
    pub cost: u64,
    /// How far ahead the time below may be.
    pub burst: u64,
    /// 1 where bytes are counted, 0 for packets.
    pub counts_bytes: u64,
    /// The theoretical arrival time.
    pub arrival: u64,
}

const _: () = assert!(size_of::<Limit>() == 32 && align_of::<Limit>() == 8);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` and made of `u64` only, so without padding, and any bytes are a value.
unsafe impl aya::Pod for Limit {}

/// Fractions of a jiffy.
pub const JIFFY: u64 = 1 << 32;

impl Limit {
    /// What the arrival time becomes when `packets` of `bytes` in all pass at `jiffies`; `None`
    /// where they may not.
    #[inline(always)]
    pub fn admit(&self, arrival: u64, jiffies: u64, packets: u64, bytes: u64) -> Option<u64> {
        let now = jiffies.wrapping_mul(JIFFY);
        let ahead = arrival.wrapping_sub(now);
        // In the past, as seen by a clock that wraps: idle since. The same where no packet was yet, or
        // the last is so long ago that the past looks like a future that no packet can have made.
        let is_idle = arrival == 0 || ahead > self.furthest();
        let ahead = if is_idle { 0 } else { ahead };
        if ahead > self.burst {
            return None;
        }
        let amount = if self.counts_bytes == 0 { packets } else { bytes };
        let next = now.wrapping_add(ahead).wrapping_add(amount.wrapping_mul(self.cost));
        // Zero is for limits that nothing has passed yet.
        Some(if next == 0 { u64::MAX } else { next })
    }

    /// No packet moves the arrival time further ahead than this, nor anything that GSO makes several of.
    #[inline(always)]
    const fn furthest(&self) -> u64 {
        let largest = if self.counts_bytes == 0 { MOST_SEGMENTS } else { MOST_BYTES };
        if self.cost >> (62 - largest) == 0 {
            // Far below 2^64: neither term exceeds 2^62.
            self.burst + (self.cost << largest)
        } else {
            u64::MAX / 2
        }
    }
}

/// Nothing has as many bytes as two to the power of this …
const MOST_BYTES: u32 = 20;
/// … and nothing that GSO splits as many segments, which the kernel counts in 16 bits.
const MOST_SEGMENTS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets that pass in `jiffies`, when `each` come at the begin of every one.
    fn passed(limit: &Limit, jiffies: core::ops::Range<u64>, each: u32) -> u32 {
        let (mut arrival, mut passed) = (0, 0);
        for now in jiffies {
            for _ in 0..each {
                if let Some(next) = limit.admit(arrival, now, 1, 60) {
                    (arrival, passed) = (next, passed + 1);
                }
            }
        }
        passed
    }

    /// The kernel's clock starts five minutes before it wraps (`INITIAL_JIFFIES`), and its lower half is
    /// beyond the middle for weeks, again and again.
    #[test]
    fn a_new_limit_has_room_whatever_the_time() {
        let limit = Limit { cost: JIFFY / 4, burst: 7 * JIFFY / 4, ..Limit::default() };
        for jiffies in [0, 0x7fff_ffff, 0x8000_0001, 0xfffb_6c20, 0xffff_ffff, 0x1_8000_0000] {
            assert!(limit.admit(0, jiffies, 1, 60).is_some(), "{jiffies:#x}");
        }
    }

    #[test]
    fn a_limit_has_room_after_weeks_without_packets() {
        let limit = Limit { cost: JIFFY / 4, burst: 7 * JIFFY / 4, ..Limit::default() };
        let arrival = limit.admit(0, 1000, 1, 60).unwrap();
        for idle in [1 << 30, (1 << 31) + 1, 3 << 30, (1 << 32) - (1 << 20)] {
            assert!(limit.admit(arrival, 1000 + idle, 1, 60).is_some(), "{idle:#x}");
        }
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        // Four packets a jiffy, eight at once.
        let limit = Limit { cost: JIFFY / 4, burst: 7 * JIFFY / 4, ..Limit::default() };
        assert_eq!(passed(&limit, 1000..1001, 100), 8);
        assert_eq!(passed(&limit, 1000..1100, 100), 8 + 99 * 4);
        assert_eq!(passed(&limit, 1000..1100, 3), 300, "below the rate nothing is lost");
    }

    #[test]
    fn time_wraps_without_a_gap() {
        let limit = Limit { cost: JIFFY, burst: 0, ..Limit::default() };
        let start = (1 << 32) - 50;
        let mut arrival = start * JIFFY;
        for now in start..start + 100 {
            arrival = limit.admit(arrival, now, 1, 60).expect("one a jiffy");
            assert_eq!(limit.admit(arrival, now, 1, 60), None);
        }
    }

    #[test]
    fn bytes_are_counted_where_the_limit_is_in_bits() {
        let limit = Limit { cost: JIFFY / 1000, burst: 0, counts_bytes: 1, ..Limit::default() };
        let next = limit.admit(5 * JIFFY, 5, 1, 3000).unwrap();
        assert_eq!((next - 5 * JIFFY) >> 32, 2, "as far as whole jiffies go");
    }
}
