//! Reads headers, in the kernel and in tests alike.
//!
//! A [`Frame`] is anything that hands out words with a bounds check: packet memory or a helper's
//! copy in `ebpf`, a slice in tests. What comes out is a [`Packet`]: four words, so that a program
//! keeps it in registers, and each way out of the parser sets few of them.
//!
//! What is looked at: Ethernet with up to two VLAN tags, IPv4 with options, IPv6 with up to
//! [`MAX_EXTENSIONS`] extension headers, TCP, UDP, SCTP, ICMP and ICMPv6. Tunnels (GRE, IP in IP,
//! MPLS, `PPPoE` …) are not looked into, ESP cannot be.

mod ip;
mod marks;
mod quick;
mod transport;

use crate::{Addresses, Class, Family, Fragment, Protocol, Reach};

pub use self::ip::MAX_EXTENSIONS;
use self::marks::Marks;
pub use self::quick::parse_quick;

/// A packet, starting at its link-layer header.
///
/// Words come as they lie in memory, so in network byte order whatever the host's is.
pub trait Frame: Copy {
    /// Whether IPv6 extension headers are followed here. Where they are not, a packet that has some
    /// asks to be read again by a frame that does ([`Packet::is_deferred`]).
    ///
    /// In the kernel that is packet memory. Each path along the extension headers ends at another
    /// offset, and for packet memory the verifier checks all that follows once for each; for
    /// offsets that are handed to a helper it does not care. Few packets have any.
    const FOLLOWS: bool;

    /// Bytes of the whole packet, including what [`halves`](Self::halves) and
    /// [`words`](Self::words) cannot reach.
    fn full_len(&self) -> u32;

    /// `N` 16-bit words from `offset`, or `None` where the packet is too short.
    fn halves<const N: usize>(&self, offset: usize) -> Option<[u16; N]>;

    /// `N` 32-bit words from `offset`, or `None` where the packet is too short.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
}

/// What the headers say.
///
/// Aligned for the kernel: where it lies on a program's stack, the compiler copies it by 64-bit
/// words, and the verifier wants those aligned.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    marks: Marks,
    /// Source and destination, in host byte order; identifier and type of ICMP; zero where there
    /// are none.
    ports: u32,
    /// Where the network header is.
    network: u32,
    /// Bytes of all headers, up to the payload of TCP and UDP; zero for other packets.
    pub header_len: u32,
}

impl Packet {
    #[inline(always)]
    const fn with(marks: Marks) -> Self {
        Self { marks, ports: 0, network: 0, header_len: 0 }
    }

    /// Everything that rules compare but addresses and ports.
    #[inline(always)]
    pub const fn class(&self) -> Class {
        self.marks.class()
    }

    /// How far the headers could be read.
    #[inline(always)]
    pub const fn reach(&self) -> Reach {
        self.class().reach()
    }

    /// For counting. Known in part also where it could not be read in full: an IP packet of unknown
    /// content is [`Protocol::OtherIp`].
    #[inline(always)]
    pub const fn protocol(&self) -> Protocol {
        self.class().counted_protocol()
    }

    /// `None` for what is not IP, and where nothing could be read.
    #[inline(always)]
    pub const fn family(&self) -> Option<Family> {
        if self.marks.is_ip() { self.class().family() } else { None }
    }

    /// Meant only where the packet [has addresses](Self::has_addresses).
    #[inline(always)]
    pub const fn is_v6(&self) -> bool {
        self.marks.has(Class::V6)
    }

    /// IP, and read at least as far as the addresses.
    #[inline(always)]
    pub const fn has_addresses(&self) -> bool {
        self.marks.is_ip() && self.marks.has(Class::REACH)
    }

    /// Everything that there is was read.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        matches!(self.reach(), Reach::Whole)
    }

    /// Cut off inside a header, or with lengths that cannot be.
    #[inline(always)]
    pub const fn is_malformed(&self) -> bool {
        self.marks.has(Marks::MALFORMED)
    }

    /// Has extension headers, and the frame does not follow them: nothing is known yet.
    #[inline(always)]
    pub const fn is_deferred(&self) -> bool {
        self.marks.has(Marks::DEFERRED)
    }

    /// Part of a fragmented packet, first or not.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.marks.has(Class::FRAGMENT)
    }

    /// Has a VLAN tag in the frame.
    #[inline(always)]
    pub const fn is_tagged(&self) -> bool {
        self.marks.has(Marks::TAGGED)
    }

    /// ICMPv6 types 133 to 137 from the link itself: without them an IPv6 interface is dead.
    #[inline(always)]
    pub const fn is_neighbour_discovery(&self) -> bool {
        self.marks.has(Marks::NEIGHBOUR_DISCOVERY)
    }

    /// Surely no IP packet, so no rule of ours is about it.
    #[inline(always)]
    pub const fn is_foreign(&self) -> bool {
        self.is_whole() && !self.marks.is_ip()
    }

    /// Source and destination port, in host byte order.
    #[inline(always)]
    pub const fn ports(&self) -> Option<(u16, u16)> {
        if self.has_transport() && self.protocol().has_ports() {
            Some(((self.ports >> 16) as u16, (self.ports & 0xffff) as u16))
        } else {
            None
        }
    }

    /// Of ICMP and ICMPv6.
    #[inline(always)]
    pub const fn icmp_type(&self) -> Option<u8> {
        if self.has_transport() && matches!(self.protocol(), Protocol::Icmp | Protocol::Icmpv6) {
            Some(self.ports as u8)
        } else {
            None
        }
    }

    /// An echo request or reply of ICMP or ICMPv6.
    #[inline(always)]
    pub(crate) const fn is_echo(&self) -> bool {
        match (self.protocol(), self.icmp_type()) {
            (Protocol::Icmp, Some(kind)) => matches!(kind, 0 | 8),
            (_, Some(kind)) => matches!(kind, 128 | 129),
            (_, None) => false,
        }
    }

    /// The flags byte of a TCP header; zero for all else.
    #[inline(always)]
    pub const fn tcp_flags(&self) -> u32 {
        self.marks.0 >> Marks::TCP_FLAGS_SHIFT
    }

    /// Both ports, the source in the upper half; of ICMP the identifier and the type; zero where
    /// there are none.
    #[inline(always)]
    pub const fn raw_ports(&self) -> u32 {
        self.ports
    }

    #[inline(always)]
    const fn has_transport(&self) -> bool {
        self.is_whole() && self.class().0 as u32 & Class::FRAGMENT != Fragment::LATER_BITS
    }

    /// Both addresses. `None` where there are none, or where this frame does not show them.
    #[inline(always)]
    pub fn addresses(&self, frame: &impl Frame) -> Option<Addresses> {
        if !self.has_addresses() {
            return None;
        }
        // The mask loses nothing, no header is that far; it reminds the verifier.
        let network = (self.network & 0xff) as usize;
        if self.is_v6() {
            frame.words(network + 8).map(Addresses::v6)
        } else {
            frame.words(network + 12).map(Addresses::v4)
        }
    }
}

const ETHERNET_LEN: usize = 14;
const VLAN_LEN: usize = 4;

// Ethertypes as they lie in memory.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const ARP: u16 = 0x0806_u16.to_be();
const VLAN: u16 = 0x8100_u16.to_be();
const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();

/// Reads the headers of an Ethernet frame.
///
/// A VLAN tag is seldom here to be skipped: receive offload has moved it out of the packet. Under
/// more than two tags there may be anything, so nothing is said about it ([`Reach::Link`]).
#[inline(always)]
pub fn parse(frame: &impl Frame) -> Packet {
    let unread = Marks::new(Reach::Link, Protocol::NotIp);
    let mut network = ETHERNET_LEN;
    let Some([mut ethertype]) = frame.halves(network - 2) else {
        return Packet::with(unread.malformed());
    };
    let mut tagged = 0;
    if is_vlan(ethertype) {
        tagged = Marks::TAGGED;
        network += VLAN_LEN;
        let Some([inner]) = frame.halves(network - 2) else {
            return Packet::with(unread.malformed().with(tagged));
        };
        ethertype = inner;
        if is_vlan(ethertype) {
            network += VLAN_LEN;
            let Some([inner]) = frame.halves(network - 2) else {
                return Packet::with(unread.malformed().with(tagged));
            };
            ethertype = inner;
        }
    }
    let payload = match ethertype {
        IPV4 => ip::v4(frame, network),
        IPV6 => ip::v6(frame, network),
        ARP => Err(Marks::new(Reach::Whole, Protocol::Arp)),
        VLAN | SERVICE_VLAN => Err(unread),
        _ => Err(Marks::new(Reach::Whole, Protocol::NotIp)),
    };
    let packet = match payload {
        Ok(payload) => transport::transport(frame, &payload),
        Err(marks) => Packet::with(marks),
    };
    Packet { network: network as u32, marks: packet.marks.with(tagged), ..packet }
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, VLAN | SERVICE_VLAN)
}

impl Frame for &[u8] {
    const FOLLOWS: bool = true;

    fn full_len(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn halves<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        let bytes = self.get(offset..offset.checked_add(N * 2)?)?;
        let mut halves = [0; N];
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = u16::from_ne_bytes(*bytes);
        }
        Some(halves)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.get(offset..offset.checked_add(N * 4)?)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Some(words)
    }
}

#[cfg(test)]
mod tests;
