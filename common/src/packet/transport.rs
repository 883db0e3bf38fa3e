//! The protocols that IP carries.

use super::{Frame, Marks, Packet};
use crate::class::Class;
use crate::{Family, Protocol, Reach};

/// Where the payload of an IP packet is, and what it is.
pub(super) struct Payload {
    /// What is known so far: family and fragment.
    pub(super) marks: Marks,
    pub(super) family: Family,
    /// The protocol's number, see [`number`].
    pub(super) number: u32,
    pub(super) at: usize,
    /// The first byte that no longer belongs to the IP packet; inside the frame.
    pub(super) end: u32,
    pub(super) hop_limit: u32,
}

impl Payload {
    /// `len` bytes of header fit into the IP packet. That they can be read is another matter.
    #[inline(always)]
    const fn fits(&self, len: u32) -> bool {
        self.at as u32 + len <= self.end
    }
}

/// Protocol numbers (IANA).
pub(super) mod number {
    use crate::{Family, Protocol};

    pub(in super::super) const HOP_BY_HOP: u32 = 0;
    pub(in super::super) const ICMP: u32 = 1;
    pub(in super::super) const TCP: u32 = 6;
    pub(in super::super) const UDP: u32 = 17;
    pub(in super::super) const ROUTING: u32 = 43;
    pub(in super::super) const FRAGMENT: u32 = 44;
    pub(in super::super) const AUTHENTICATION: u32 = 51;
    pub(in super::super) const ICMPV6: u32 = 58;
    pub(in super::super) const DESTINATION: u32 = 60;
    pub(in super::super) const SCTP: u32 = 132;

    #[inline(always)]
    pub(in super::super) const fn protocol(number: u32, family: Family) -> Protocol {
        match (number, family) {
            (TCP, _) => Protocol::Tcp,
            (UDP, _) => Protocol::Udp,
            (SCTP, _) => Protocol::Sctp,
            (ICMP, Family::V4) => Protocol::Icmp,
            (ICMPV6, Family::V6) => Protocol::Icmpv6,
            _ => Protocol::OtherIp,
        }
    }
}

const TCP_LEN: u32 = 20;
const UDP_LEN: u32 = 8;
const SCTP_LEN: u32 = 12;
const ICMP_LEN: u32 = 8;

/// Router solicitation to redirect (RFC 4861).
const NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u32> = 133..=137;
/// What has crossed no router; receivers discard neighbour discovery with any other hop limit.
const ON_LINK: u32 = 255;

/// Reads the header of what an IP packet carries.
///
/// A first fragment must hold all of it: one that is cut so short that it does not is malformed
/// (RFC 1858, RFC 8200 section 4.5).
#[inline(always)]
pub(super) fn transport(frame: &impl Frame, payload: &Payload) -> Packet {
    let protocol = number::protocol(payload.number, payload.family);
    let marks = payload.marks.carrying(protocol);
    let read = match protocol {
        Protocol::Tcp => tcp(frame, payload),
        Protocol::Udp => udp(frame, payload),
        Protocol::Sctp => sctp(frame, payload),
        Protocol::Icmp | Protocol::Icmpv6 => icmp(frame, payload),
        _ => Some(Transport::default()),
    };
    let Some(read) = read else {
        return Packet::with(marks.reaching(Reach::Protocol).malformed());
    };
    Packet {
        marks: marks.reaching(Reach::Whole).with(read.bits),
        ports: read.ports,
        header_len: read.header_len,
        network: 0,
    }
}

/// What a transport header adds to a [`Packet`].
#[derive(Default)]
struct Transport {
    bits: u32,
    ports: u32,
    header_len: u32,
}

impl Transport {
    /// The first word of headers that begin with ports.
    #[inline(always)]
    const fn with_ports(word: u32, header_len: u32) -> Self {
        Self { bits: 0, ports: u32::from_be(word), header_len }
    }
}

#[inline(always)]
fn tcp(frame: &impl Frame, payload: &Payload) -> Option<Transport> {
    let [ports, _, _, flags] = frame.words(payload.at)?;
    let flags = u32::from_be(flags);
    let header = (flags >> 28) * 4;
    if header < TCP_LEN || !payload.fits(header) {
        return None;
    }
    let flags = flags >> 16 & 0xff;
    Some(Transport {
        bits: Marks::of_tcp(flags),
        ..Transport::with_ports(ports, payload.at as u32 + header)
    })
}

#[inline(always)]
fn udp(frame: &impl Frame, payload: &Payload) -> Option<Transport> {
    let [ports, length] = frame.words(payload.at)?;
    let length = u32::from_be(length) >> 16;
    // Zero stands for "too long to say" (RFC 2675); a first fragment tells the length of the whole.
    let may_exceed = length == 0 || payload.marks.has(Class::FRAGMENT);
    if !payload.fits(UDP_LEN) || !may_exceed && !payload.fits(length) {
        return None;
    }
    if length != 0 && length < UDP_LEN {
        return None;
    }
    Some(Transport::with_ports(ports, payload.at as u32 + UDP_LEN))
}

#[inline(always)]
fn sctp(frame: &impl Frame, payload: &Payload) -> Option<Transport> {
    let [ports] = frame.words(payload.at)?;
    payload.fits(SCTP_LEN).then(|| Transport::with_ports(ports, 0))
}

#[inline(always)]
fn icmp(frame: &impl Frame, payload: &Payload) -> Option<Transport> {
    let [first, second] = frame.words(payload.at)?;
    if !payload.fits(ICMP_LEN) {
        return None;
    }
    let kind = u32::from_be(first) >> 24;
    let is_neighbour_discovery = matches!(payload.family, Family::V6)
        && NEIGHBOUR_DISCOVERY.contains(&kind)
        && payload.hop_limit == ON_LINK
        && !payload.marks.has(Class::FRAGMENT);
    let bits = if is_neighbour_discovery { Marks::NEIGHBOUR_DISCOVERY } else { 0 };
    let identifier = u32::from_be(second) & 0xffff_0000;
    Some(Transport { bits, ports: identifier | kind, header_len: 0 })
}
