//! What both sides of the kernel boundary agree on.
//!
//! The values of the maps ([`Counters`], [`Ruleset`]), the words of closed sets ([`Verdict`],
//! [`Protocol`], [`Direction`]), and the two pieces of logic that must not differ between a test
//! on the host and a program in the kernel: reading headers ([`parse`]) and judging a packet
//! ([`judge`]).
//!
//! Nothing here knows about eBPF, allocates, panics or needs `unsafe` (but for the `Pod` impls of
//! the feature `user`). Each rule below is tested on slices; the verifier only has to agree.

#![no_std]
#![expect(clippy::inline_always, reason = "a call per header would cost more than the parsing")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "offsets in a frame and numbers of closed sets; `try_from` would leave a panic path"
)]

#[cfg(test)]
extern crate std;

mod counters;
mod filter;
mod packet;
#[cfg(test)]
mod testing;
mod words;

pub use self::counters::{Count, Counters};
pub use self::filter::{Criteria, Decision, Rule, Ruleset, judge, pass};
pub use self::packet::{Address, Frame, MAX_EXTENSIONS, Packet, Reach, parse};
pub use self::words::{Action, Direction, Family, Protocol, Verdict};

/// The layout of every value in a map. Changes whenever a byte of one of them changes its meaning;
/// maps of another layout are left alone and replaced, never read.
pub const LAYOUT_VERSION: u32 = 1;

/// Most entries of one direction's [`Ruleset`].
pub const MAX_RULES: usize = 64;

/// Names of what the object file holds, as the loader looks for them.
pub mod names {
    /// XDP on the way in.
    pub const XDP: &str = "weir_xdp";
    /// XDP on the way in, for packets in several buffers.
    pub const XDP_FRAGS: &str = "weir_xdp_frags";
    /// TCX on the way in.
    pub const INGRESS: &str = "weir_ingress";
    /// TCX on the way out.
    pub const EGRESS: &str = "weir_egress";

    /// Per CPU: one [`Counters`](crate::Counters) for each [`Direction`](crate::Direction).
    pub const COUNTERS: &str = "weir_counters";
    /// One [`Ruleset`](crate::Ruleset) for each [`Direction`](crate::Direction).
    pub const RULES: &str = "weir_rules";

    /// Constants at load, `u8` each: 0 is off and removes the feature from the program.
    pub const TELEMETRY: &str = "WEIR_TELEMETRY";
    pub const FILTER_INGRESS: &str = "WEIR_FILTER_IN";
    pub const FILTER_EGRESS: &str = "WEIR_FILTER_OUT";
}
