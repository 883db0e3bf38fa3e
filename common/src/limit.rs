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
        // In the past, as seen by a clock that wraps: idle since.
        let ahead = if ahead > u64::MAX / 2 { 0 } else { ahead };
        if ahead > self.burst {
            return None;
        }
        let amount = if self.counts_bytes == 0 { packets } else { bytes };
        Some(now.wrapping_add(ahead).wrapping_add(amount.wrapping_mul(self.cost)))
    }
}

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
