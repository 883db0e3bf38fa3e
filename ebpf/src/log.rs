//! What is told of packets that are dropped, where somebody wants to read that.
//!
//! By aya-log, of which a record is built field by field: far more instructions than a packet is
//! worth, and so a global function, for the reasons that are given in [`far`](crate::far).

use aya_log_ebpf::info;
use common::{Direction, Flow, FlowKey, Seen, Verdict};

use crate::far::Headers;
use crate::{Load, constants, ground};

/// Tells of a packet that is dropped. That there is no room to do so is no reason to wait.
#[inline(always)]
pub(crate) fn dropped(mut headers: Headers, load: &Load, direction: Direction, verdict: Verdict) {
    let &Load { packets, bytes, .. } = load;
    weir_log(&raw mut headers, direction as u32, verdict as u32, packets, bytes);
}

const BY_RULE: u32 = Verdict::DeniedByRule as u32;
const BY_DEFAULT: u32 = Verdict::DeniedByDefault as u32;
const BY_RATE: u32 = Verdict::DeniedByRate as u32;

#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_log(
    headers: *mut Headers,
    direction: u32,
    verdict: u32,
    packets: u64,
    bytes: u64,
) -> u32 {
    // Kernels before 6.8 check a global function also where nobody calls it. So nothing of it is
    // left there, either.
    if !constants::has_log() {
        return 0;
    }
    // SAFETY: the caller above passes headers of its own. The verifier knows their size from the
    // argument's type, and nothing else: hence the comparison.
    let Some(headers) = (unsafe { headers.as_ref() }) else { return 0 };
    let direction = if direction == 0 { Direction::Ingress } else { Direction::Egress };
    let verdict = match verdict {
        BY_RULE => Verdict::DeniedByRule,
        BY_DEFAULT => Verdict::DeniedByDefault,
        BY_RATE => Verdict::DeniedByRate,
        _ => Verdict::Malformed,
    };
    let Headers { packet, addresses } = headers;
    let tcp_flags = packet.tcp_flags();
    let seen = Seen { packets, bytes, tcp_flags, verdict, now: ground::jiffies() as u32 };
    let mut flow = Flow::default();
    flow.begin(&FlowKey::new(packet, *addresses, direction), &seen);
    // SAFETY: a flow has no padding, and any of its bytes is a number.
    let bytes = unsafe { &*(&raw const flow).cast::<[u8; size_of::<Flow>()]>() };
    // Words for these numbers are in user space, as they are for flows of the cache.
    info!(&(), "{:x}", bytes);
    0
}
