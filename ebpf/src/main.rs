//! The programs: where they enter, and the maps that they share with user space.
//!
//! All that can be tested on the host is in `common`; here is only what touches the kernel. Each
//! attachment loads its own instance, with the constants below fixed at load: what is off is
//! removed by the verifier.
//!
//! Measuring must never cost a packet: a program drops one only because the filter says so.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths of packets, far below 2^32 on every interface"
)]
#![expect(clippy::inline_always, reason = "a call is what the hot path cannot afford")]
#![expect(clippy::needless_pass_by_value, reason = "the macros hand contexts over by value")]

mod constants;
mod far;
mod flows;
mod frame;
mod ground;
mod log;
mod maps;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use common::{Decision, Direction, FlowKey, Seen, Used};

use self::far::Headers;
use self::frame::Linear;
use self::ground::Maps;

/// Lets the next program on the interface decide (`include/uapi/linux/bpf.h`, Linux 6.6).
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

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
    let headers = quick(&frame).unwrap_or_else(|| far::xdp(ctx.ctx, len));
    let load =
        Load { packets: 1, bytes: len.into(), size: len, tagged: headers.packet.is_tagged() };
    if run(&headers, &load, Direction::Ingress) { XDP_PASS } else { XDP_DROP }
}

/// What comes in, by TCX or clsact.
#[classifier]
fn weir_ingress(ctx: TcContext) -> i32 {
    tc(&ctx, Direction::Ingress)
}

/// What goes out, by TCX or clsact.
#[classifier]
fn weir_egress(ctx: TcContext) -> i32 {
    tc(&ctx, Direction::Egress)
}

#[inline(always)]
fn tc(ctx: &TcContext, direction: Direction) -> i32 {
    if is_idle(direction) {
        return TCX_NEXT;
    }
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    let len = ctx.len();
    let frame = Linear::new(ctx.data(), ctx.data_end(), len);
    let headers = quick(&frame).unwrap_or_else(|| far::skb(skb, len));
    let load = frame::load(skb, len, &headers.packet);
    if run(&headers, &load, direction) { TCX_NEXT } else { TCX_DROP }
}

/// What a packet is on the wire. Of what GSO will split and GRO has put together, all of it.
pub(crate) struct Load {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Of one packet.
    pub(crate) size: u32,
    pub(crate) tagged: bool,
}

/// Reads the headers of what most packets are.
#[inline(always)]
fn quick(frame: &Linear) -> Option<Headers> {
    common::parse_quick(frame).map(|(packet, addresses)| Headers { packet, addresses })
}

/// Decides, counts and remembers. Answers whether the packet passes.
#[inline(always)]
fn run(headers: &Headers, load: &Load, direction: Direction) -> bool {
    let Headers { packet, addresses } = headers;
    let &Load { packets, bytes, .. } = load;
    let used = constants::used(direction);
    let mut maps = Maps { direction, packets, bytes };
    let decision = if used.has(Used::FILTER) {
        let decision = common::judge(packet, addresses, direction, used, &mut maps);
        // Here and not further down, where less would be kept of the packet.
        if !decision.passes && constants::has_log() {
            log::dropped(*headers, load, direction, decision.verdict);
        }
        decision
    } else {
        common::pass(packet)
    };
    if decision.passes && !decision.is_reply && is_asked(direction) {
        maps.remember(packet, addresses);
    }
    if constants::has_telemetry() {
        count(headers, load, direction, decision);
    }
    decision.passes
}

#[inline(always)]
fn count(headers: &Headers, load: &Load, direction: Direction, decision: Decision) {
    let Some(counters) = maps::COUNTERS.get_ptr_mut(direction as u32) else { return };
    let packet = &headers.packet;
    // SAFETY: this CPU's own copy. The programs run with soft interrupts disabled, so none of
    // them interrupts another on its CPU; user space only reads.
    let counters = unsafe { &mut *counters };
    counters.count(decision.verdict, packet.protocol(), load.packets, load.bytes);
    counters.count_size(load.size, load.packets);
    let tcp_flags = packet.tcp_flags();
    counters.count_tcp(tcp_flags);
    if packet.is_fragment() {
        counters.fragments += load.packets;
    }
    if load.tagged {
        counters.tagged += load.packets;
    }
    counters.generation = constants::generation();
    if constants::used(direction).has(Used::STATEFUL) && decision.is_reply {
        counters.replies += load.packets;
    }
    if constants::flow_places() != 0 && packet.has_addresses() {
        let seen = Seen {
            packets: load.packets,
            bytes: load.bytes,
            tcp_flags,
            verdict: decision.verdict,
            now: ground::jiffies() as u32,
        };
        let key = FlowKey::new(packet, headers.addresses, direction);
        flows::count(&key, &seen, counters);
    }
}

/// Neither counts nor filters, so nothing else is left of the program.
#[inline(always)]
fn is_idle(direction: Direction) -> bool {
    !constants::has_telemetry()
        && !constants::used(direction).has(Used::FILTER)
        && !is_asked(direction)
}

/// The filter of the other direction wants to know what passes here.
#[inline(always)]
fn is_asked(direction: Direction) -> bool {
    let other = match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    };
    constants::used(other).has(Used::STATEFUL)
}

/// Never called: the verifier rejects a program that could panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
