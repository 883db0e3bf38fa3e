//! IPv4 and IPv6, up to the protocol that they carry.

use core::hint::black_box;

use super::transport::{Payload, number};
use super::{Frame, Marks};
use crate::{Family, Fragment, Protocol, Reach};

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
    let marks = Marks::V4.first_if(fragment != 0);
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
pub(super) fn v6<F: Frame>(frame: &F, at: usize) -> Headers {
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
        marks: Marks::V6,
        family: Family::V6,
        number: second >> 8 & 0xff,
        at: at + V6_LEN as usize,
        end: at as u32 + V6_LEN + payload_len,
        hop_limit: second & 0xff,
    };
    if !is_extension(payload.number) {
        return Ok(payload);
    }
    if F::FOLLOWS { follow(frame, payload) } else { Err(UNREAD.with(Marks::DEFERRED)) }
}

/// Follows extension headers to what is behind them.
#[inline(always)]
fn follow(frame: &impl Frame, mut payload: Payload) -> Headers {
    // Opaque to the compiler, which would write the loop out and make it eight times as long.
    for _ in 0..black_box(MAX_EXTENSIONS) {
        if !is_extension(payload.number) {
            return Ok(payload);
        }
        let unknown = payload.marks.carrying(Protocol::OtherIp).reaching(Reach::Addresses);
        let Some([first, second]) = frame.halves(payload.at) else {
            return Err(unknown.malformed());
        };
        let first = u32::from(u16::from_be(first));
        let len = match payload.number {
            number::FRAGMENT => 8,
            number::AUTHENTICATION => ((first & 0xff) + 2) * 4,
            _ => ((first & 0xff) + 1) * 8,
        };
        if payload.at as u32 + len > payload.end {
            return Err(unknown.malformed());
        }
        let is_fragment_header = payload.number == number::FRAGMENT;
        payload.number = first >> 8;
        payload.at += len as usize;
        if is_fragment_header {
            // An offset of zero with no more to follow is a whole packet (RFC 6946).
            let offset_and_more = u16::from_be(second) & 0xfff9;
            payload.marks = payload.marks.first_if(offset_and_more != 0);
            if offset_and_more & 0xfff8 != 0 {
                return Err(later_fragment(payload.marks, Family::V6, payload.number));
            }
        }
    }
    if is_extension(payload.number) {
        return Err(payload.marks.carrying(Protocol::OtherIp).reaching(Reach::Addresses));
    }
    Ok(payload)
}

/// A fragment other than the first: it has no ports, and that is all there is to know. Only where
/// its first fragment begins with an extension header, the protocol remains unknown.
#[inline(always)]
fn later_fragment(marks: Marks, family: Family, number: u32) -> Marks {
    let marks = marks.fragment(Fragment::Later);
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
