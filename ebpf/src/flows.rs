//! The cache of flows.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use common::{Counters, Flow, FlowKey, Seen};

use crate::constants;
use crate::maps::{EVICTED, FLOWS};

/// Counts a packet in its flow, which takes the place of another if need be.
#[inline(always)]
pub(crate) fn count(key: &FlowKey, seen: &Seen, counters: &mut Counters) {
    let index = key.hash(constants::seed()) & (constants::flow_places() - 1);
    let Some(flow) = FLOWS.get_ptr_mut(index) else { return };
    // SAFETY: this CPU's own copy, see `count` in `main.rs`.
    let flow = unsafe { &mut *flow };
    if flow.is(key) {
        flow.count(seen);
        return;
    }
    if !flow.is_vacant() {
        evict(flow, counters);
    }
    flow.begin(key, seen);
}

#[inline(always)]
fn evict(flow: &Flow, counters: &mut Counters) {
    counters.flows_evicted = counters.flows_evicted.wrapping_add(1);
    if flow.packets < constants::export_packets() {
        return;
    }
    // Whoever reads looks now and then; waking somebody for each would cost more than the flow.
    match EVICTED.output(flow, u64::from(BPF_RB_NO_WAKEUP)) {
        Ok(()) => counters.flows_exported = counters.flows_exported.wrapping_add(1),
        Err(_) => counters.flows_lost = counters.flows_lost.wrapping_add(1),
    }
}
