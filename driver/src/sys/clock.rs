//! The kernel's tick, and how long it has been running.

use std::io;

use nix::time::{ClockId, clock_getres, clock_gettime};

/// `CONFIG_HZ`: how often `jiffies` counts in a second. The coarse clock moves with it, so its
/// resolution is one tick (`KTIME_LOW_RES` in `kernel/time/posix-timers.c`, Linux 6.12).
pub fn ticks_per_second() -> io::Result<u64> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let nanoseconds = u64::try_from(tick.tv_nsec()).unwrap_or(0).max(1);
    // A tick is not always a whole number of nanoseconds.
    Ok((1_000_000_000 + nanoseconds / 2) / nanoseconds)
}

/// Seconds since the node started, also those that it slept.
pub fn since_start() -> io::Result<u64> {
    Ok(clock_gettime(ClockId::CLOCK_BOOTTIME)?.tv_sec().unsigned_abs())
}

/// The lower half of the kernel's `jiffies` now, give or take a few. It starts five minutes before
/// its end and counts with the monotonic clock (`INITIAL_JIFFIES` in `include/linux/jiffies.h`,
/// `tick_do_update_jiffies64()` in `kernel/time/tick-sched.c`, Linux 6.12; our kernel ring compares it
/// with what a program reads).
///
/// In a time namespace with another monotonic clock it is another number.
pub fn jiffies() -> io::Result<u32> {
    let hz = ticks_per_second()?;
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let (seconds, nanoseconds) = (now.tv_sec().unsigned_abs(), now.tv_nsec().unsigned_abs());
    let since_start = seconds.wrapping_mul(hz).wrapping_add(nanoseconds * hz / 1_000_000_000);
    let jiffies = since_start.wrapping_sub(300 * hz);
    let [a, b, c, d, ..] = jiffies.to_le_bytes();
    Ok(u32::from_le_bytes([a, b, c, d]))
}
