//! The way to headers that are not in the first piece of a packet, or behind IPv6 extension headers.
//!
//! Seldom taken, so kept apart from the rest, and in *global* functions: the verifier checks those
//! on their own, whatever the arguments, and takes what they return for unknown. Inlined, or as
//! functions of the usual kind, it would check them again for each way that leads to them, and all
//! that follows again for each way out of them.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use common::{Address, Direction, Packet};

use crate::frame::Reloaded;

/// Reads `packet` again, from a socket buffer.
#[inline(always)]
pub(crate) fn skb(skb: *mut __sk_buff, len: u32, mut packet: Packet) -> Packet {
    weir_far_skb(skb, len, &raw mut packet);
    packet
}

/// Reads `packet` again, from XDP.
#[inline(always)]
pub(crate) fn xdp(xdp: *mut xdp_md, len: u32, mut packet: Packet) -> Packet {
    weir_far_xdp(xdp, len, &raw mut packet);
    packet
}

/// The address at the far end of a packet whose IP header is not in the first piece.
#[cold]
#[inline(never)]
pub(crate) fn peer(frame: Reloaded, packet: Packet, direction: Direction) -> Option<Address> {
    packet.peer(&frame, direction)
}

#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_far_skb(skb: *mut __sk_buff, len: u32, packet: *mut Packet) -> u32 {
    write(packet, common::parse(&Reloaded::skb(skb, len)))
}

#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weir_far_xdp(xdp: *mut xdp_md, len: u32, packet: *mut Packet) -> u32 {
    write(packet, common::parse(&Reloaded::xdp(xdp, len)))
}

/// A global function returns a number, whatever it has to say.
#[inline(always)]
fn write(to: *mut Packet, packet: Packet) -> u32 {
    if !to.is_null() {
        // SAFETY: both callers above pass a `Packet` of their own. The verifier knows its size from
        // the argument's type, and nothing else: hence the comparison.
        unsafe { to.write(packet) };
    }
    0
}
