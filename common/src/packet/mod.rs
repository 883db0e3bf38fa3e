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
mod transport;

use crate::{Direction, Family, Protocol};

pub use self::ip::MAX_EXTENSIONS;
pub(crate) use self::marks::Marks;
pub use self::marks::Reach;

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
    pub(crate) marks: Marks,
    /// Source and destination, in host byte order; zero where there are none.
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

    /// The same packet, given a `zero` of which the verifier does not know that it is one.
    ///
    /// The verifier follows each way through the parser on its own, and knows the marks that it
    /// ends with. It would so check the loop over rules once for each of some hundred ways, and
    /// give up after a million instructions. Words that it knows nothing of are all alike to it.
    #[inline(always)]
    #[must_use]
    pub const fn blurred(self, zero: u32) -> Self {
        Self { marks: Marks(self.marks.0 ^ zero), ports: self.ports ^ zero, ..self }
    }

    /// How far the headers could be read.
    #[inline(always)]
    pub const fn reach(&self) -> Reach {
        self.marks.reach()
    }

    /// For counting. Known in part also where it could not be read in full: an IP packet of unknown
    /// content is [`Protocol::OtherIp`].
    #[inline(always)]
    pub const fn protocol(&self) -> Protocol {
        self.marks.protocol()
    }

    /// `None` for what is not IP, and where nothing could be read.
    #[inline(always)]
    pub const fn family(&self) -> Option<Family> {
        self.marks.family()
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
        self.marks.has(Marks::FRAGMENT)
    }

    /// ICMPv6 types 133 to 137 from the link itself: without them an IPv6 interface is dead.
    #[inline(always)]
    pub const fn is_neighbour_discovery(&self) -> bool {
        self.marks.has(Marks::NEIGHBOUR_DISCOVERY)
    }

    /// Surely no IP packet, so no rule of ours is about it.
    #[inline(always)]
    pub const fn is_foreign(&self) -> bool {
        self.marks.has(Marks::READ_WHOLE) && !self.marks.has(Marks::FAMILY)
    }

    /// Source and destination port, in host byte order.
    #[inline(always)]
    pub const fn ports(&self) -> Option<(u16, u16)> {
        if self.marks.has(Marks::PORTS) {
            Some(((self.ports >> 16) as u16, (self.ports & 0xffff) as u16))
        } else {
            None
        }
    }

    /// In host byte order; zero where there is none.
    #[inline(always)]
    pub(crate) const fn destination_port(&self) -> u32 {
        self.ports & 0xffff
    }

    /// The address at the far end: the source of what comes in, the destination of what goes out.
    ///
    /// `None` where there is none, or where this frame does not show it.
    #[inline(always)]
    pub fn peer(&self, frame: &impl Frame, direction: Direction) -> Option<Address> {
        // The mask loses nothing, no header is that far; it reminds the verifier.
        let network = (self.network & 0xff) as usize;
        match (self.family()?, direction) {
            (Family::V4, Direction::Ingress) => frame.words(network + 12).map(Address::v4),
            (Family::V4, Direction::Egress) => frame.words(network + 16).map(Address::v4),
            (Family::V6, Direction::Ingress) => frame.words(network + 8).map(Address::v6),
            (Family::V6, Direction::Egress) => frame.words(network + 24).map(Address::v6),
        }
    }
}

/// An IP address, or the mask of one, as its bytes lie in memory. One of IPv4 has twelve zeroes
/// behind it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Address(pub [u64; 2]);

impl Address {
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        // Both orders of bytes agree on which octet comes first in memory.
        let bits = u128::from_ne_bytes(octets);
        let (low, high) = (bits as u64, (bits >> 64) as u64);
        if cfg!(target_endian = "little") { Self([low, high]) } else { Self([high, low]) }
    }

    #[inline(always)]
    const fn v4([word]: [u32; 1]) -> Self {
        Self([join(word, 0), 0])
    }

    #[inline(always)]
    const fn v6([first, second, third, fourth]: [u32; 4]) -> Self {
        Self([join(first, second), join(third, fourth)])
    }
}

/// The 64-bit word of two 32-bit words that lie next to each other.
#[inline(always)]
const fn join(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
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
    if is_vlan(ethertype) {
        network += VLAN_LEN;
        let Some([inner]) = frame.halves(network - 2) else {
            return Packet::with(unread.malformed());
        };
        ethertype = inner;
        if is_vlan(ethertype) {
            network += VLAN_LEN;
            let Some([inner]) = frame.halves(network - 2) else {
                return Packet::with(unread.malformed());
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
    Packet { network: network as u32, ..packet }
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
