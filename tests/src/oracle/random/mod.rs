//! Random filters, and random packets that meet them: the same for the same seed.

mod answers;
mod packets;
mod rules;

use std::env;

use fastrand::Rng;

pub use self::answers::mirrored;
pub use self::packets::Packets;
pub use self::rules::{Size, direction, filter, remembering};

/// What all that is random begins with: always the same, or what `WEIR_SEED` says. Another seed is
/// another test.
pub fn seed() -> u64 {
    told("WEIR_SEED").unwrap_or(20_260_117)
}

/// How many filters are tried: a thousand, or as many as `WEIR_FILTERS` says.
pub fn filters() -> u64 {
    told("WEIR_FILTERS").unwrap_or(1000)
}

fn told(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} should be a number, not {text:?}")))
}

/// One of `from`, which is not empty.
fn one<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// True once in `n` times.
fn once_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}
