//! IPv4 and IPv6, up to the protocol that they carry.

use super::transport::{Payload, number};
use super::{Frame, Marks, Reach};
use crate::{Family, Protocol};

/// Most IPv6 extension headers that are followed; what lies behind more of them is unknown.
pub const MAX_EXTENSIONS: usize = 8;

const V4_LEN: u32 = 20;
const V6_LEN: u32 = 40;

/// A length field cannot say more; a larger packet (BIG TCP, RFC 2675) says zero instead.
const MAX_LENGTH_FIELD: u32 = 0xffff;

/// What is to be read next, or the marks of a packet of which there is no more to be known.
pub(super) type Headers = Result<Payload, Marks>;

const UNREAD: Marks = Marks::new(Reach::Link, Protocol::OtherIp);

#[inline(always)]
pub(super) fn v4(frame: &impl Frame, at: usize) -> Headers {
    let Some([first, second, third, _, _]) = frame.words(at) else {
        return Err(UNREAD.malformed());
    };
    let available = frame.full_len().wrapping_sub(at as u32);
    let first = u32::from_be(first);
    let header = (first >> 24 & 0x0f) * 4;
    let total = match first & 0xffff {
        0 if available > MAX_LENGTH_FIELD => available,
        total => total,
    };
    if first >> 28 != 4 || header < V4_LEN || total < header || total > available {
        return Err(UNREAD.malformed());
    }
    let third = u32::from_be(third);
    // Not zero where more fragments follow, or some came before.
    let fragment = u32::from_be(second) & 0x3fff;
    let marks = Marks::NONE.of(Family::V4).with_if(Marks::FRAGMENT, fragment != 0);
    let number = third >> 16 & 0xff;
    if fragment & 0x1fff != 0 {
        return Err(later_fragment(marks, Family::V4, number));
    }
    Ok(Payload {
        marks,
        family: Family::V4,
        number,
        at: at + header as usize,
        end: at as u32 + total,
        hop_limit: third >> 24,
    })
}

#[inline(always)]
pub(super) fn v6(frame: &impl Frame, at: usize) -> Headers {
    let Some([first, second, _, _, _, _, _, _, _, _]) = frame.words(at) else {
        return Err(UNREAD.malformed());
    };
    let available = frame.full_len().wrapping_sub(at as u32 + V6_LEN);
    let second = u32::from_be(second);
    let payload_len = match second >> 16 {
        0 if available > MAX_LENGTH_FIELD => available,
        len => len,
    };
    if u32::from_be(first) >> 28 != 6 || payload_len > available {
        return Err(UNREAD.malformed());
    }
    let payload = Payload {
        marks: Marks::NONE.of(Family::V6),
        family: Family::V6,
        number: second >> 8 & 0xff,
        at: at + V6_LEN as usize,
        end: at as u32 + V6_LEN + payload_len,
        hop_limit: second & 0xff,
    };
    if !is_extension(payload.number) {
        return Ok(payload);
    }
    let walk = follow(*frame, payload.number, payload.at as u32, payload.end);
    let marks = payload.marks.with_if(Marks::FRAGMENT, walk.is_fragment != 0);
    let unknown = marks.carrying(Protocol::OtherIp).reaching(Reach::Addresses);
    match walk.outcome {
        Outcome::Payload => {
            let at = reachable(walk.at);
            Ok(Payload { marks, number: walk.number, at, ..payload })
        }
        Outcome::LaterFragment => Err(later_fragment(marks, Family::V6, walk.number)),
        Outcome::CutOff => Err(unknown.malformed()),
        Outcome::TooMany => Err(unknown),
    }
}

/// Where the way along the extension headers ended. Words only, and aligned like a
/// [`Packet`](super::Packet): it crosses a call in the kernel by way of the stack.
#[repr(C, align(8))]
struct Walk {
    outcome: Outcome,
    /// Not zero where there was a fragment header that means it.
    is_fragment: u32,
    /// Of what is behind the extension headers, and where that is.
    number: u32,
    at: u32,
}

#[repr(u32)]
enum Outcome {
    Payload,
    LaterFragment,
    CutOff,
    TooMany,
}

/// Follows extension headers to what is behind them.
///
/// A function of its own also in the kernel: few packets have any, and the others shall not pay
/// for it with their instruction cache.
#[cold]
#[inline(never)]
fn follow<F: Frame>(frame: F, number: u32, at: u32, end: u32) -> Walk {
    let mut walk = Walk { outcome: Outcome::Payload, is_fragment: 0, number, at };
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(walk.number) {
            return walk;
        }
        let Some([first, second]) = frame.halves(reachable(walk.at)) else {
            return Walk { outcome: Outcome::CutOff, ..walk };
        };
        let first = u32::from(u16::from_be(first));
        let len = match walk.number {
            number::FRAGMENT => 8,
            number::AUTHENTICATION => ((first & 0xff) + 2) * 4,
            _ => ((first & 0xff) + 1) * 8,
        };
        if walk.at + len > end {
            return Walk { outcome: Outcome::CutOff, ..walk };
        }
        let is_fragment_header = walk.number == number::FRAGMENT;
        walk.number = first >> 8;
        walk.at += len;
        if is_fragment_header {
            // An offset of zero with no more to follow is a whole packet (RFC 6946).
            let offset_and_more = u32::from(u16::from_be(second)) & 0xfff9;
            walk.is_fragment |= offset_and_more;
            if offset_and_more & 0xfff8 != 0 {
                return Walk { outcome: Outcome::LaterFragment, ..walk };
            }
        }
    }
    if is_extension(walk.number) {
        walk.outcome = Outcome::TooMany;
    }
    walk
}

/// The mask loses nothing, extension headers end below [`MAX_EXTENSIONS`] times 2 KiB. It shows the
/// verifier that an offset into the packet is well below 64 KiB.
#[inline(always)]
const fn reachable(at: u32) -> usize {
    (at & 0x7fff) as usize
}

/// A fragment other than the first: it has no ports, and that is all there is to know. Only where
/// its first fragment begins with an extension header, the protocol remains unknown.
#[inline(always)]
fn later_fragment(marks: Marks, family: Family, number: u32) -> Marks {
    if matches!(family, Family::V6) && is_extension(number) {
        return marks.carrying(Protocol::OtherIp).reaching(Reach::Addresses);
    }
    marks.carrying(number::protocol(number, family)).reaching(Reach::Whole)
}

#[inline(always)]
const fn is_extension(number: u32) -> bool {
    matches!(
        number,
        number::HOP_BY_HOP
            | number::ROUTING
            | number::FRAGMENT
            | number::AUTHENTICATION
            | number::DESTINATION
    )
}
