//! Constants at load. The verifier knows their values, and removes what they switch off.

use aya_ebpf::Global;
use common::{Direction, Used};

#[unsafe(no_mangle)]
static WEIR_TELEMETRY: Global<u8> = Global::new(1);
#[unsafe(no_mangle)]
static WEIR_USED_IN: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_USED_OUT: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_FIRST_OUT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_GENERATION: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_FLOWS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_EXPORT: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_STATE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_SEED: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_HZ: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_LOG: Global<u8> = Global::new(0);

#[inline(always)]
pub(crate) fn has_telemetry() -> bool {
    WEIR_TELEMETRY.load() != 0
}

/// What the filter of a direction looks at.
#[inline(always)]
pub(crate) fn used(direction: Direction) -> Used {
    Used(match direction {
        Direction::Ingress => WEIR_USED_IN.load(),
        Direction::Egress => WEIR_USED_OUT.load(),
    })
}

/// Where the rules of a direction begin among all rules.
#[inline(always)]
pub(crate) fn first_rule(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 0,
        Direction::Egress => WEIR_FIRST_OUT.load(),
    }
}

#[inline(always)]
pub(crate) fn generation() -> u64 {
    WEIR_GENERATION.load().into()
}

/// Places of the cache of flows; zero where none is kept.
#[inline(always)]
pub(crate) fn flow_places() -> u32 {
    WEIR_FLOWS.load()
}

/// Flows with fewer packets are not exported.
#[inline(always)]
pub(crate) fn export_packets() -> u64 {
    WEIR_EXPORT.load()
}

#[inline(always)]
pub(crate) fn state_buckets() -> u32 {
    WEIR_STATE.load()
}

#[inline(always)]
pub(crate) fn seed() -> u64 {
    WEIR_SEED.load()
}

/// Jiffies in a second.
#[inline(always)]
pub(crate) fn hz() -> u64 {
    WEIR_HZ.load()
}

/// Whether packets that are dropped are told of.
#[inline(always)]
pub(crate) fn has_log() -> bool {
    WEIR_LOG.load() != 0
}
