//! All that is compared as a whole about a packet, folded into one word.

use crate::{Family, Protocol};

/// How far into a packet its headers could be read. Each reach includes those before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reach {
    /// Nothing is known: it may be IP or not.
    Link,
    /// Family and addresses, but not what follows: an extension header was cut off, or there were
    /// more of them than we follow.
    Addresses,
    /// The protocol too, but its header is cut off or cannot be.
    Protocol,
    /// Everything that there is. A fragment other than the first has no ports, and that is known.
    Whole,
}

/// Bits about a packet, or what a rule wants them to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Marks(pub(crate) u32);

impl Marks {
    /// One for IPv4, two for IPv6, so that zero is neither.
    pub(crate) const FAMILY: u32 = 0x3;
    /// A [`Protocol`].
    pub(crate) const PROTOCOL: u32 = 0x70;
    const PROTOCOL_SHIFT: u32 = 4;
    pub(crate) const PORTS: u32 = 1 << 8;
    pub(crate) const READ_ADDRESSES: u32 = 1 << Self::READ_ADDRESSES_BIT;
    pub(crate) const READ_ADDRESSES_BIT: u32 = 9;
    pub(crate) const READ_PROTOCOL: u32 = 1 << Self::READ_PROTOCOL_BIT;
    pub(crate) const READ_PROTOCOL_BIT: u32 = 10;
    pub(crate) const READ_WHOLE: u32 = 1 << Self::READ_WHOLE_BIT;
    pub(crate) const READ_WHOLE_BIT: u32 = 11;
    pub(crate) const READ: u32 = Self::READ_ADDRESSES | Self::READ_PROTOCOL | Self::READ_WHOLE;
    pub(crate) const MALFORMED: u32 = 1 << 12;
    pub(crate) const FRAGMENT: u32 = 1 << 13;
    pub(crate) const NEIGHBOUR_DISCOVERY: u32 = 1 << 14;
    pub(crate) const DEFERRED: u32 = 1 << 15;

    pub(crate) const NONE: Self = Self(0);

    #[inline(always)]
    pub(crate) const fn new(reach: Reach, protocol: Protocol) -> Self {
        Self::NONE.carrying(protocol).reaching(reach)
    }

    #[inline(always)]
    pub(crate) const fn of(self, family: Family) -> Self {
        Self(self.0 & !Self::FAMILY | (family as u32 + 1))
    }

    #[inline(always)]
    pub(crate) const fn carrying(self, protocol: Protocol) -> Self {
        Self(self.0 & !Self::PROTOCOL | (protocol as u32) << Self::PROTOCOL_SHIFT)
    }

    #[inline(always)]
    pub(crate) const fn reaching(self, reach: Reach) -> Self {
        let read = match reach {
            Reach::Link => 0,
            Reach::Addresses => Self::READ_ADDRESSES,
            Reach::Protocol => Self::READ_ADDRESSES | Self::READ_PROTOCOL,
            Reach::Whole => Self::READ,
        };
        self.with(read)
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
    pub(crate) const fn without(self, bits: u32) -> Self {
        Self(self.0 & !bits)
    }

    #[inline(always)]
    pub(crate) const fn with_if(self, bit: u32, condition: bool) -> Self {
        if condition { self.with(bit) } else { self }
    }

    #[inline(always)]
    pub(crate) const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// All ones where `bit` is set, zero where not; without a branch, for the loop over rules.
    #[inline(always)]
    pub(crate) const fn all_if(self, bit: u32) -> u32 {
        (self.0 >> bit & 1).wrapping_neg()
    }

    #[inline(always)]
    pub(crate) const fn reach(self) -> Reach {
        if self.has(Self::READ_WHOLE) {
            Reach::Whole
        } else if self.has(Self::READ_PROTOCOL) {
            Reach::Protocol
        } else if self.has(Self::READ_ADDRESSES) {
            Reach::Addresses
        } else {
            Reach::Link
        }
    }

    #[inline(always)]
    pub(crate) const fn family(self) -> Option<Family> {
        match self.0 & Self::FAMILY {
            1 => Some(Family::V4),
            2 => Some(Family::V6),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) const fn protocol(self) -> Protocol {
        match (self.0 & Self::PROTOCOL) >> Self::PROTOCOL_SHIFT {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            2 => Protocol::Sctp,
            3 => Protocol::Icmp,
            4 => Protocol::Icmpv6,
            5 => Protocol::Arp,
            6 => Protocol::OtherIp,
            _ => Protocol::NotIp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_read_back_as_set() {
        for protocol in Protocol::ALL {
            for reach in [Reach::Link, Reach::Addresses, Reach::Protocol, Reach::Whole] {
                for family in Family::ALL {
                    let marks = Marks::new(reach, protocol).of(family);
                    assert_eq!(
                        (marks.reach(), marks.protocol(), marks.family()),
                        (reach, protocol, Some(family))
                    );
                }
            }
        }
    }
}
