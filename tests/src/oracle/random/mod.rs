//! Random filters, and random packets that meet them: the same for the same seed.

mod packets;
mod rules;

use fastrand::Rng;

pub use self::packets::Packets;
pub use self::rules::{Size, filter};

/// One of `from`, which is not empty.
fn one<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// True once in `n` times.
fn once_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}
