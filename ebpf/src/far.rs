//! The way to the headers of all packets but the most common: first as far as the first piece of
//! the packet shows them, then, where that is too short, or where IPv6 extension headers are to be
//! followed, by the helpers that copy.
//!
//! And the way through the rows of a wide filter, and through the rules that only count, with all
//! their loops.
//!
//! Kept apart from the rest in *global* functions: the verifier checks those on their own, whatever
//! the arguments, and takes what they return for unknown. Inlined, or as functions of the usual
//! kind, it would check them again for each way that leads to them, and all that follows again for
//! each way out of them.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use common::{Addresses, Counting, Decided, Direction, Frame, Packet};

use crate::constants;
use crate::frame::{Linear, Reloaded};
use crate::ground::Maps;

/// A packet and its addresses, which are zero where there are none.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    pub(crate) packet: Packet,
    pub(crate) addresses: Addresses,
}

/// Reads the headers of a socket buffer.
#[inline(always)]
pub(crate) fn skb(skb: *mut __sk_buff, len: u32) -> Headers {
    Headers::written(len, |headers| weir_far_skb(skb, len, headers))
}

/// Reads the headers of a packet of XDP.
#[inline(always)]
pub(crate) fn xdp(xdp: *mut xdp_md, len: u32) -> Headers {
    Headers::written(len, |headers| weir_far_xdp(xdp, len, headers))
}

#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_far_skb(skb: *mut __sk_buff, len: u32, headers: *mut Headers) -> u32 {
    // SAFETY: the context is the program's own.
    let frame = unsafe { Linear::new((*skb).data as usize, (*skb).data_end as usize, len) };
    read(&frame, || Reloaded::skb(skb, len), headers)
}

#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_far_xdp(xdp: *mut xdp_md, len: u32, headers: *mut Headers) -> u32 {
    // SAFETY: the context is the program's own.
    let frame = unsafe { Linear::new((*xdp).data as usize, (*xdp).data_end as usize, len) };
    read(&frame, || Reloaded::xdp(xdp, len), headers)
}

/// A global function returns a number, whatever it has to say.
#[inline(always)]
fn read(frame: &Linear, reload: impl FnOnce() -> Reloaded, to: *mut Headers) -> u32 {
    if to.is_null() {
        return 0;
    }
    let near = Headers::of(frame);
    let headers = if frame.is_short_for(&near.packet) { Headers::of(&reload()) } else { near };
    // SAFETY: both callers above pass headers of their own. The verifier knows their size from the
    // argument's type, and nothing else: hence the comparison.
    unsafe { to.write(headers) };
    0
}

/// What a wide filter decides about a packet.
#[inline(always)]
pub(crate) fn by_rows(
    mut headers: Headers,
    direction: Direction,
    packets: u64,
    bytes: u64,
) -> Option<Decided> {
    let headers = &raw mut headers;
    let decided = match direction {
        Direction::Ingress => weir_by_rows_in(headers, packets, bytes),
        Direction::Egress => weir_by_rows_out(headers, packets, bytes),
    };
    match decided {
        ALLOW => Some(Decided::Allow),
        DENY => Some(Decided::Deny),
        OVER_RATE => Some(Decided::OverRate),
        _ => None,
    }
}

const ALLOW: u32 = Decided::Allow as u32;
const DENY: u32 = Decided::Deny as u32;
const OVER_RATE: u32 = Decided::OverRate as u32;

// One for each direction: told by an argument, the verifier would go through both.

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_by_rows_in(headers: *mut Headers, packets: u64, bytes: u64) -> u32 {
    decide(headers, Direction::Ingress, packets, bytes)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_by_rows_out(headers: *mut Headers, packets: u64, bytes: u64) -> u32 {
    decide(headers, Direction::Egress, packets, bytes)
}

#[inline(always)]
fn decide(headers: *mut Headers, direction: Direction, packets: u64, bytes: u64) -> u32 {
    // SAFETY: the caller above passes headers of its own; see `read` about the comparison.
    let Some(headers) = (unsafe { headers.as_ref() }) else { return 0 };
    let Headers { packet, addresses } = headers;
    let mut maps = Maps { direction, packets, bytes };
    let used = constants::used(direction);
    common::by_rows(packet, addresses, direction, used, &mut maps).map_or(0, |it| it as u32)
}

/// Adds a packet to what the rules of `counting` matched.
#[inline(always)]
pub(crate) fn count_each(counting: Counting, direction: Direction, packets: u64, bytes: u64) {
    let Counting { entries, word } = counting;
    match direction {
        Direction::Ingress => weir_count_in(entries, word, packets, bytes),
        Direction::Egress => weir_count_out(entries, word, packets, bytes),
    };
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_count_in(entries: u64, word: u32, packets: u64, bytes: u64) -> u32 {
    count(Counting { entries, word }, Direction::Ingress, packets, bytes)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_count_out(entries: u64, word: u32, packets: u64, bytes: u64) -> u32 {
    count(Counting { entries, word }, Direction::Egress, packets, bytes)
}

#[inline(always)]
fn count(counting: Counting, direction: Direction, packets: u64, bytes: u64) -> u32 {
    let mut maps = Maps { direction, packets, bytes };
    common::count_each(counting, direction, constants::used(direction), &mut maps);
    0
}

impl Headers {
    /// What a global function writes. The verifier wants it to be written before as well, with
    /// anything: of zeroes the compiler would make a call of `memset`, which is a loop here.
    #[inline(always)]
    fn written(anything: u32, write: impl FnOnce(*mut Self) -> u32) -> Self {
        const WORDS: usize = size_of::<Headers>() / size_of::<u64>();
        let mut headers = MaybeUninit::<Self>::uninit();
        // SAFETY: as many words as fit, at an address that is aligned for them; any bytes are
        // headers, which are made of integers.
        unsafe {
            headers.as_mut_ptr().cast::<[u64; WORDS]>().write([u64::from(anything); WORDS]);
            write(headers.as_mut_ptr());
            headers.assume_init()
        }
    }

    #[inline(always)]
    fn of(frame: &impl Frame) -> Self {
        let packet = common::parse(frame);
        let addresses = packet.addresses(frame).unwrap_or(Addresses::NONE);
        Self { packet, addresses }
    }
}
