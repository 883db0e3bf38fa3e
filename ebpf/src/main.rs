//! The programs: where they enter, and the maps that they share with user space.
//!
//! All that can be tested on the host is in `common`; here is only what touches the kernel. Each
//! attachment loads its own instance, with the constants below fixed at load: what is off is
//! removed by the verifier.
//!
//! Measuring must never cost a packet: a program drops one only because the filter says so.

#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths of packets, far below 2^32 on every interface"
)]
#![expect(clippy::inline_always, reason = "a call is what the hot path cannot afford")]
#![expect(clippy::needless_pass_by_value, reason = "the macros hand contexts over by value")]

mod far;
mod frame;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_ebpf::{EbpfContext as _, Global};
use common::{Action, Counters, Decision, Direction, Packet, Ruleset};

use self::frame::{Linear, Reloaded};

/// Lets the next program on the interface decide (`include/uapi/linux/bpf.h`, Linux 6.6).
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

#[unsafe(no_mangle)]
static WEIR_TELEMETRY: Global<u8> = Global::new(1);
#[unsafe(no_mangle)]
static WEIR_FILTER_IN: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
static WEIR_FILTER_OUT: Global<u8> = Global::new(0);

/// One value for each direction.
#[btf_map(name = "weir_counters")]
static COUNTERS: PerCpuArray<Counters, 2> = PerCpuArray::new();

/// One value for each direction.
#[btf_map(name = "weir_rules")]
static RULES: Array<Ruleset, 2> = Array::new();

/// None of the helpers that we call asks for a GPL-compatible program.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

/// What comes in, by native XDP.
#[xdp]
fn weir_xdp(ctx: XdpContext) -> u32 {
    // Without frags the packet is in one piece.
    ingress_xdp(&ctx, || (ctx.data_end() - ctx.data()) as u32)
}

/// What comes in, by native XDP, where a packet may lie in several buffers.
#[xdp(frags)]
fn weir_xdp_frags(ctx: XdpContext) -> u32 {
    ingress_xdp(&ctx, || frame::xdp_len(ctx.ctx))
}

#[inline(always)]
fn ingress_xdp(ctx: &XdpContext, len: impl FnOnce() -> u32) -> u32 {
    if is_idle(Direction::Ingress) {
        return XDP_PASS;
    }
    let len = len();
    let frame = Linear::new(ctx.data(), ctx.data_end(), len);
    let mut packet = common::parse(&frame);
    if frame.is_short_for(&packet) {
        packet = far::xdp(ctx.ctx, len, packet);
    }
    let decision = decide(&mut packet, Direction::Ingress, &frame, Reloaded::xdp(ctx.ctx, len));
    count(&packet, decision, Direction::Ingress, 1, len.into());
    match decision.action {
        Action::Allow => XDP_PASS,
        Action::Deny => XDP_DROP,
    }
}

/// What comes in, by TCX.
#[classifier]
fn weir_ingress(ctx: TcContext) -> i32 {
    tcx(&ctx, Direction::Ingress)
}

/// What goes out, by TCX.
#[classifier]
fn weir_egress(ctx: TcContext) -> i32 {
    tcx(&ctx, Direction::Egress)
}

#[inline(always)]
fn tcx(ctx: &TcContext, direction: Direction) -> i32 {
    if is_idle(direction) {
        return TCX_NEXT;
    }
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    let len = ctx.len();
    let frame = Linear::new(ctx.data(), ctx.data_end(), len);
    let mut packet = common::parse(&frame);
    if frame.is_short_for(&packet) {
        packet = far::skb(skb, len, packet);
    }
    let decision = decide(&mut packet, direction, &frame, Reloaded::skb(skb, len));
    // On the wire each segment has all the headers.
    let segments = u64::from(frame::segments(skb));
    let headers = (segments - 1) * u64::from(packet.header_len);
    count(&packet, decision, direction, segments, u64::from(len) + headers);
    match decision.action {
        Action::Allow => TCX_NEXT,
        Action::Deny => TCX_DROP,
    }
}

/// What happens to a packet. Its peer is asked for only where there is a filter.
#[inline(always)]
fn decide(packet: &mut Packet, direction: Direction, near: &Linear, far: Reloaded) -> Decision {
    if has_filter(direction) {
        // The map has an entry for each direction; should it not, the packet passes.
        if let Some(rules) = RULES.get(direction as u32) {
            let peer = match packet.peer(near, direction) {
                None if packet.family().is_some() => far::peer(far, *packet, direction),
                peer => peer,
            };
            *packet = packet.blurred(rules.zero);
            return common::judge(packet, peer, rules);
        }
    }
    common::pass(packet)
}

#[inline(always)]
fn count(packet: &Packet, decision: Decision, direction: Direction, packets: u64, bytes: u64) {
    if has_telemetry()
        && let Some(counters) = COUNTERS.get_ptr_mut(direction as u32)
    {
        // SAFETY: this CPU's own copy. The programs run with soft interrupts disabled, so none of
        // them interrupts another on its CPU; user space only reads.
        let counters = unsafe { &mut *counters };
        counters.count(decision.verdict, packet.protocol(), packets, bytes);
    }
}

/// Neither counts nor filters, so nothing else is left of the program.
#[inline(always)]
fn is_idle(direction: Direction) -> bool {
    !has_telemetry() && !has_filter(direction)
}

#[inline(always)]
fn has_telemetry() -> bool {
    WEIR_TELEMETRY.load() != 0
}

#[inline(always)]
fn has_filter(direction: Direction) -> bool {
    let constant = match direction {
        Direction::Ingress => &WEIR_FILTER_IN,
        Direction::Egress => &WEIR_FILTER_OUT,
    };
    constant.load() != 0
}

/// Never called: the verifier rejects a program that could panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
