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

mod address;
mod class;
mod counters;
mod filter;
mod flow;
mod limit;
mod packet;
mod state;
#[cfg(test)]
mod testing;
mod words;

pub use self::address::Addresses;
pub use self::class::{Class, Reach};
pub use self::counters::{Count, Counters, SIZES};
pub use self::filter::{
    Counting, Decided, Decision, End, Ground, NARROW, PORT_PAGES, PORT_SETS, Page, Ports, Row,
    Ruleset, Used, WIDE, by_rows, count_each, judge, pages, pass, rows,
};
pub use self::flow::{Flow, FlowKey, Seen};
pub use self::limit::{JIFFY, Limit};
pub use self::packet::{Frame, MAX_EXTENSIONS, Packet, parse, parse_quick};
pub use self::state::{Bucket, Conversation, OTHER_SECONDS, Opening, TCP_SECONDS};
pub use self::words::{Action, Direction, Family, Fragment, Protocol, TcpEvent, Verdict};

/// The layout of every value in a map. Changes whenever a byte of one of them changes its meaning;
/// maps of another layout are left alone and replaced, never read.
pub const LAYOUT_VERSION: u32 = 2;

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
    /// One [`Ruleset`](crate::Ruleset) for each [`Direction`](crate::Direction), where it is narrow.
    pub const RULES: &str = "weir_rules";
    /// [`Row`](crate::Row)s of wide filters.
    pub const ROWS: &str = "weir_rows";
    /// [`Page`](crate::Page)s of wide filters.
    pub const PAGES: &str = "weir_pages";
    /// Per CPU: a [`Count`](crate::Count) for each rule, those of the way in first.
    pub const HITS: &str = "weir_hits";
    /// A [`Limit`](crate::Limit) for each rule, in the same order.
    pub const LIMITS: &str = "weir_limits";
    /// [`Bucket`](crate::Bucket)s of conversations.
    pub const STATE: &str = "weir_state";
    /// Per CPU: the cache of [`Flow`](crate::Flow)s.
    pub const FLOWS: &str = "weir_flows";
    /// Ring buffer of [`Flow`](crate::Flow)s that left the cache.
    pub const EVICTED: &str = "weir_evicted";
    /// Ring buffer of aya-log, which names it: a [`Flow`](crate::Flow) for each packet that is
    /// dropped, in hexadecimal digits.
    pub const LOGS: &str = "AYA_LOGS";

    // Constants at load.

    /// `u8`: 0 counts nothing.
    pub const TELEMETRY: &str = "WEIR_TELEMETRY";
    /// `u64`: [`Used`](crate::Used) of each direction's filter.
    pub const USED_INGRESS: &str = "WEIR_USED_IN";
    pub const USED_EGRESS: &str = "WEIR_USED_OUT";
    /// `u32`: where the rules of the way out begin among all rules.
    pub const FIRST_EGRESS: &str = "WEIR_FIRST_OUT";
    /// `u32`: which state of the policy this is.
    pub const GENERATION: &str = "WEIR_GENERATION";
    /// `u32`: places of the cache of flows, a power of two; 0 is off.
    pub const FLOW_PLACES: &str = "WEIR_FLOWS";
    /// `u64`: flows with fewer packets are forgotten without being exported.
    pub const FLOW_EXPORT: &str = "WEIR_EXPORT";
    /// `u32`: buckets of conversations, a power of two; 0 where no filter is stateful.
    pub const STATE_BUCKETS: &str = "WEIR_STATE";
    /// `u64`: a secret, so that nobody can aim at a place in a table.
    pub const SEED: &str = "WEIR_SEED";
    /// `u64`: ticks of the kernel's clock in a second.
    pub const HZ: &str = "WEIR_HZ";
    /// `u8`: 0 tells nothing of packets that are dropped.
    pub const LOG: &str = "WEIR_LOG";
}
