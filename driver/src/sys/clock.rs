//! The kernel's tick.

use std::io;

use nix::time::{ClockId, clock_getres};

/// `CONFIG_HZ`: how often `jiffies` counts in a second. The coarse clock moves with it, so its
/// resolution is one tick (`KTIME_LOW_RES` in `kernel/time/posix-timers.c`, Linux 6.12).
pub fn ticks_per_second() -> io::Result<u64> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let nanoseconds = u64::try_from(tick.tv_nsec()).unwrap_or(0).max(1);
    // A tick is not always a whole number of nanoseconds.
    Ok((1_000_000_000 + nanoseconds / 2) / nanoseconds)
}
