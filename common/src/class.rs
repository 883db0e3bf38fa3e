//! What a filter compares about a packet as a whole: everything but addresses and ports.

use crate::{Family, Fragment, Protocol};

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

/// One of the [`COUNT`](Self::COUNT) classes of packets that rules cannot tell apart but by
/// addresses, ports and ICMP types.
///
/// Each question below has three answers: yes or no where the packet tells, and `None` where it
/// could not be read that far.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Class(pub(crate) u16);

impl Class {
    pub const COUNT: usize = 512;

    pub(crate) const MASK: u16 = 0x1ff;
    /// A [`Protocol`].
    pub(crate) const PROTOCOL: u32 = 0x7;
    /// IPv6; where not, and the addresses could be read, IPv4.
    pub(crate) const V6: u32 = 1 << 3;
    /// TCP with ACK.
    pub(crate) const ESTABLISHED: u32 = 1 << 4;
    /// A [`Fragment`].
    pub(crate) const FRAGMENT: u32 = 0x60;
    pub(crate) const FRAGMENT_SHIFT: u32 = 5;
    /// A [`Reach`].
    pub(crate) const REACH: u32 = 0x180;
    pub(crate) const REACH_SHIFT: u32 = 7;

    pub(crate) const NOTHING: Self = Self(0);

    /// All classes, in the order of their indices. Some never occur.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::MASK).map(Self)
    }

    /// Below [`COUNT`](Self::COUNT).
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize & Self::MASK as usize
    }

    #[inline(always)]
    pub const fn reach(self) -> Reach {
        match self.0 as u32 >> Self::REACH_SHIFT & 3 {
            0 => Reach::Link,
            1 => Reach::Addresses,
            2 => Reach::Protocol,
            _ => Reach::Whole,
        }
    }

    /// `None` where nothing could be read. A packet that is known not to be IP is asked nothing.
    #[inline(always)]
    pub const fn family(self) -> Option<Family> {
        match self.reach() {
            Reach::Link => None,
            _ if self.has(Self::V6) => Some(Family::V6),
            _ => Some(Family::V4),
        }
    }

    #[inline(always)]
    pub const fn protocol(self) -> Option<Protocol> {
        match self.reach() {
            Reach::Link | Reach::Addresses => None,
            Reach::Protocol | Reach::Whole => Some(self.counted_protocol()),
        }
    }

    /// As what a packet is counted: what its protocol is where it is known, otherwise a guess.
    #[inline(always)]
    pub(crate) const fn counted_protocol(self) -> Protocol {
        match self.0 as u32 & Self::PROTOCOL {
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

    /// That it is one is known as soon as it is seen; that it is none, only once all extension
    /// headers are read.
    #[inline(always)]
    pub const fn fragment(self) -> Option<Fragment> {
        match (self.reach(), self.0 as u32 >> (Self::FRAGMENT_SHIFT) & 3) {
            (Reach::Link, _) | (Reach::Addresses, 0) => None,
            (_, 0) => Some(Fragment::No),
            (_, 1) => Some(Fragment::First),
            _ => Some(Fragment::Later),
        }
    }

    /// TCP with the ACK bit, and not a later fragment, which has no such bit.
    pub const fn is_established(self) -> Option<bool> {
        match (self.reach(), self.counted_protocol()) {
            (Reach::Whole, _) => Some(self.has(Self::ESTABLISHED)),
            (Reach::Protocol, protocol) if !matches!(protocol, Protocol::Tcp) => Some(false),
            _ => None,
        }
    }

    /// The transport header was read, so ports or the ICMP type decide where its protocol has
    /// some. `Some(false)`: there is no such header, in a later fragment. `None`: it may be there,
    /// but could not be read.
    pub const fn has_transport(self) -> Option<bool> {
        match (self.reach(), self.fragment()) {
            (_, Some(Fragment::Later)) => Some(false),
            (Reach::Whole, _) => Some(true),
            _ => None,
        }
    }

    const fn has(self, bits: u32) -> bool {
        self.0 as u32 & bits != 0
    }
}

impl Fragment {
    /// A later fragment, as it is written in a class.
    pub(crate) const LATER_BITS: u32 = (Self::Later as u32) << Class::FRAGMENT_SHIFT;
}
