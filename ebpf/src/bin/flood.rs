//! For the benchmark alone: gives each packet other addresses and ports, and hands it to the program
//! under test by a tail call.
//!
//! A test run repeats one packet, which every cache likes. With a mask of zero the same work is done
//! and the packet stays the same, so that the difference is what a flood costs.

#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "the lower half of a random number")]
#![expect(clippy::needless_pass_by_value, reason = "the macros hand contexts over by value")]

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP};
use aya_ebpf::btf_maps::{PerCpuArray, ProgramArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// Which bits of source, destination and ports change.
#[unsafe(no_mangle)]
static FLOOD_MASK: Global<u32> = Global::new(0);

#[btf_map(name = "flood_next")]
static NEXT: ProgramArray<1> = ProgramArray::new();

/// The generator's state.
#[btf_map(name = "flood_state")]
static STATE: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Source, destination and ports of IPv4 without options, behind the Ethernet header.
const TUPLE: usize = 26;

/// None of the helpers that are called asks for a GPL-compatible program.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[xdp]
fn weir_flood(ctx: XdpContext) -> u32 {
    let start = ctx.data() + TUPLE;
    if start + size_of::<[u32; 3]>() > ctx.data_end() {
        return XDP_DROP;
    }
    let Some(state) = STATE.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: this CPU's own copy, and nobody else writes it.
    let number = unsafe {
        let number = next(*state);
        *state = number;
        number
    };
    let mask = FLOOD_MASK.load();
    let tuple = start as *mut u32;
    let words = [0x0101_a8c0, 0x0201_a8c0, 0xb512_3412];
    let mut number = number.wrapping_mul(0x2545_f491_4f6c_dd1d);
    for (n, word) in words.into_iter().enumerate() {
        // SAFETY: three words from `start` on are inside the packet, as compared above.
        unsafe { tuple.add(n).write_unaligned(word ^ number as u32 & mask) };
        number = number.rotate_left(21);
    }
    // SAFETY: nothing here waits to be dropped.
    unsafe { NEXT.tail_call(&ctx, 0) };
    XDP_ABORTED
}

/// Marsaglia's xorshift. Zero, which it could not leave, is where the map begins.
const fn next(state: u64) -> u64 {
    let mut state = if state == 0 { 0x9e37_79b9_7f4a_7c15 } else { state };
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}

/// Never called: the verifier rejects a program that could panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
