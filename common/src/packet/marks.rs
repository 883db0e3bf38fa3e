//! All that is said of a packet in bits, folded into one word.

use crate::{Class, Fragment, Protocol, Reach};

/// Bits about a packet. The lowest nine are its [`Class`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Marks(pub(crate) u32);

const _: () = assert!(Class::ESTABLISHED == 0x10);

impl Marks {
    /// Its family is known.
    const IP: u32 = 1 << 9;
    pub(crate) const MALFORMED: u32 = 1 << 10;
    pub(crate) const NEIGHBOUR_DISCOVERY: u32 = 1 << 11;
    /// Has extension headers that were not followed yet.
    pub(crate) const DEFERRED: u32 = 1 << 12;
    /// Under a VLAN tag.
    pub(crate) const TAGGED: u32 = 1 << 13;
    /// The flags of the TCP header.
    pub(crate) const TCP_FLAGS_SHIFT: u32 = 16;

    #[inline(always)]
    pub(crate) const fn new(reach: Reach, protocol: Protocol) -> Self {
        Self(Class::NOTHING.0 as u32).carrying(protocol).reaching(reach)
    }

    /// Nothing but that it is IPv4.
    pub(crate) const V4: Self = Self(Self::IP);
    /// Nothing but that it is IPv6.
    pub(crate) const V6: Self = Self(Self::IP | Class::V6);

    #[inline(always)]
    pub(crate) const fn carrying(self, protocol: Protocol) -> Self {
        Self(self.0 & !Class::PROTOCOL | protocol as u32)
    }

    #[inline(always)]
    pub(crate) const fn reaching(self, reach: Reach) -> Self {
        Self(self.0 & !Class::REACH | (reach as u32) << Class::REACH_SHIFT)
    }

    #[inline(always)]
    pub(crate) const fn fragment(self, fragment: Fragment) -> Self {
        Self(self.0 & !Class::FRAGMENT | (fragment as u32) << Class::FRAGMENT_SHIFT)
    }

    /// The first fragment of a packet, or a whole one.
    #[inline(always)]
    pub(crate) const fn first_if(self, is_fragment: bool) -> Self {
        if is_fragment { self.fragment(Fragment::First) } else { self }
    }

    /// The bits that a TCP header with this byte of flags adds.
    #[inline(always)]
    pub(crate) const fn of_tcp(flags: u32) -> u32 {
        // ACK is where a class has it.
        flags << Self::TCP_FLAGS_SHIFT | flags & Class::ESTABLISHED
    }

    #[inline(always)]
    pub(crate) const fn malformed(self) -> Self {
        self.with(Self::MALFORMED)
    }

    #[inline(always)]
    pub(crate) const fn with(self, bits: u32) -> Self {
        Self(self.0 | bits)
    }

    #[inline(always)]
    pub(crate) const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Surely IP.
    #[inline(always)]
    pub(crate) const fn is_ip(self) -> bool {
        self.has(Self::IP)
    }

    #[inline(always)]
    pub(crate) const fn class(self) -> Class {
        Class(self.0 as u16 & Class::MASK)
    }
}
