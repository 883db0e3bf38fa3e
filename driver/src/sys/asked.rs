//! How often the kernel was asked something: what a look costs, told without a clock.

use std::cell::Cell;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
    static READ: Cell<u64> = const { Cell::new(0) };
}

/// How many requests this thread has made so far: by netlink (a listing is one), by bpf(2), and to
/// drivers. Reading files of sysfs is none.
pub fn asked() -> u64 {
    ASKED.get()
}

/// How many files, links and directories of sysfs this thread has read so far, or looked for.
#[cfg(test)]
pub fn read() -> u64 {
    READ.get()
}

pub(super) fn note_read() {
    READ.set(READ.get() + 1);
}

pub(super) fn note() {
    ASKED.set(ASKED.get() + 1);
}
