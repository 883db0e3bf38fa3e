//! The way to headers that are not in the first piece of a packet, or behind IPv6 extension headers.
//!
//! Seldom taken, so kept apart from the rest, and in *global* functions: the verifier checks those
//! on their own, whatever the arguments, and takes what they return for unknown. Inlined, or as
//! functions of the usual kind, it would check them again for each way that leads to them, and all
//! that follows again for each way out of them.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use common::{Addresses, Packet};

use crate::frame::Reloaded;

/// A packet and its addresses, which are zero where there are none.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    pub(crate) packet: Packet,
    pub(crate) addresses: Addresses,
}

/// Reads `headers` again, from a socket buffer.
#[inline(always)]
pub(crate) fn skb(skb: *mut __sk_buff, len: u32, mut headers: Headers) -> Headers {
    weir_far_skb(skb, len, &raw mut headers);
    headers
}

/// Reads `headers` again, from XDP.
#[inline(always)]
pub(crate) fn xdp(xdp: *mut xdp_md, len: u32, mut headers: Headers) -> Headers {
    weir_far_xdp(xdp, len, &raw mut headers);
    headers
}

#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_far_skb(skb: *mut __sk_buff, len: u32, headers: *mut Headers) -> u32 {
    read(&Reloaded::skb(skb, len), headers)
}

#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_far_xdp(xdp: *mut xdp_md, len: u32, headers: *mut Headers) -> u32 {
    read(&Reloaded::xdp(xdp, len), headers)
}

/// A global function returns a number, whatever it has to say.
#[inline(always)]
fn read(frame: &Reloaded, to: *mut Headers) -> u32 {
    if !to.is_null() {
        let packet = common::parse(frame);
        let addresses = packet.addresses(frame).unwrap_or(Addresses::NONE);
        // SAFETY: both callers above pass headers of their own. The verifier knows their size from
        // the argument's type, and nothing else: hence the comparison.
        unsafe { to.write(Headers { packet, addresses }) };
    }
    0
}
