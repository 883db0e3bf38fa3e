//! Rate limits.

use super::reader::{Leaf, Spot};
use crate::model::{Problems, Rate, RateLimit};

/// Above these the programs could hardly tell one rate from the next: their clock has parts of 2^-32
/// jiffies, and a byte at a terabit in a second takes nine of them.
pub(super) const MOST_PACKETS: u64 = 10_000_000_000;
pub(super) const MOST_BITS: u64 = 1_000_000_000_000;
/// Below this a single large packet takes minutes.
pub(super) const LEAST_BITS: u64 = 1000;
/// Where a burst is left out: this part of a second's worth …
const BURST_PART: u64 = 10;
/// … but as much as the largest packet of GSO.
const LEAST_BURST_BITS: u64 = 64 * 1024 * 8;
/// The longest pause that a burst may make up for.
pub(super) const LONGEST_SECONDS: u64 = 3600;

/// Reads `rateLimit`.
pub(super) fn rate_limit(spot: &Spot<'_>, problems: &mut Problems) -> Option<RateLimit> {
    let limit = spot.object(&["packetsPerSecond", "bitsPerSecond", "burst"], problems)?;
    let packets = Leaf::read(limit.field("packetsPerSecond"), |spot| {
        spot.integer(1..=MOST_PACKETS, problems)
    });
    let bits = Leaf::read(limit.field("bitsPerSecond"), |spot| {
        spot.integer(LEAST_BITS..=MOST_BITS, problems)
    });
    let (rate, amount, default) = match (packets, bits) {
        (Leaf::Unsaid, Leaf::Unsaid) => {
            return spot.refuse("needs packetsPerSecond or bitsPerSecond", problems);
        }
        (Leaf::Said(packets), Leaf::Unsaid) => {
            (Rate::PacketsPerSecond(packets), packets, (packets / BURST_PART).max(1))
        }
        (Leaf::Unsaid, Leaf::Said(bits)) => {
            (Rate::BitsPerSecond(bits), bits, (bits / BURST_PART).max(LEAST_BURST_BITS))
        }
        (Leaf::Wrong, Leaf::Unsaid) | (Leaf::Unsaid, Leaf::Wrong) => return None,
        _ => return spot.refuse("has packetsPerSecond and bitsPerSecond, choose one", problems),
    };
    let most = amount.saturating_mul(LONGEST_SECONDS);
    let burst = Leaf::read(limit.field("burst"), |spot| spot.integer(1..=most, problems));
    Some(RateLimit { rate, burst: burst.or(default)? })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Result<RateLimit, String> {
        let mut problems = Problems::default();
        let limit = rate_limit(&Spot { path: "rateLimit".to_owned(), value }, &mut problems);
        problems.or(()).map_err(|problems| problems.to_string())?;
        Ok(limit.expect("no problem, so there is a limit"))
    }

    #[rstest]
    #[case(json!({ "packetsPerSecond": 1 }), Rate::PacketsPerSecond(1), 1)]
    #[case(json!({ "packetsPerSecond": 5000 }), Rate::PacketsPerSecond(5000), 500)]
    #[case(json!({ "packetsPerSecond": 5000, "burst": 7 }), Rate::PacketsPerSecond(5000), 7)]
    #[case(json!({ "bitsPerSecond": 1000 }), Rate::BitsPerSecond(1000), 524_288)]
    #[case(json!({ "bitsPerSecond": 1_000_000_000 }), Rate::BitsPerSecond(1_000_000_000), 100_000_000)]
    fn a_burst_is_a_tenth_of_a_second_unless_it_is_given(
        #[case] value: Value,
        #[case] rate: Rate,
        #[case] burst: u64,
    ) {
        assert_eq!(read(&value), Ok(RateLimit { rate, burst }));
    }

    #[rstest]
    #[case(json!({}), "rateLimit: needs packetsPerSecond or bitsPerSecond")]
    #[case(json!({ "packetsPerSecond": 0 }), "rateLimit.packetsPerSecond: 0 is below 1")]
    #[case(json!({ "bitsPerSecond": 0 }), "rateLimit.bitsPerSecond: 0 is below 1000")]
    #[case(json!({ "bitsPerSecond": 10_000_000_000_000_u64 }),
        "rateLimit.bitsPerSecond: 10000000000000 is above 1000000000000")]
    #[case(json!({ "bitsPerSecond": "10M" }), "rateLimit.bitsPerSecond: is a string, not an integer")]
    #[case(json!({ "packetsPerSecond": 9, "bitsPerSecond": 9000 }),
        "rateLimit: has packetsPerSecond and bitsPerSecond, choose one")]
    #[case(json!({ "packetsPerSecond": 2, "burst": 0 }), "rateLimit.burst: 0 is below 1")]
    #[case(json!({ "packetsPerSecond": 2, "burst": 7201 }), "rateLimit.burst: 7201 is above 7200")]
    #[case(json!({ "perSecond": 2, "packetsPerSecond": 2 }),
        "rateLimit.perSecond: unknown field, known are packetsPerSecond, bitsPerSecond, burst")]
    #[case(json!(5), "rateLimit: is a number, not an object")]
    fn a_wrong_limit_is_named(#[case] value: Value, #[case] said: &str) {
        assert_eq!(read(&value), Err(said.to_owned()));
    }
}
