//! One rule as the programs read it, and the question that a packet puts to it.

use crate::packet::Marks;
use crate::{Action, Address, Family, Packet, Protocol};

/// What a rule asks of a packet. `None` asks nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Criteria {
    pub family: Option<Family>,
    /// Network and mask of the peer's address. Only together with a family.
    pub network: Option<(Address, Address)>,
    /// One of those with ports, ICMP or ICMPv6.
    pub protocol: Option<Protocol>,
    /// First and last destination port, in host byte order. Only together with a protocol that
    /// has ports.
    pub ports: Option<(u16, u16)>,
}

/// One rule: an element of [`Ruleset`](super::Ruleset).
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Family, protocol, whether there are ports, how much had to be readable: bits as in a
    /// packet's own marks, of which those in the mask are compared.
    pub marks: u32,
    pub marks_mask: u32,
    /// Of the peer, as in memory.
    pub address: [u64; 2],
    pub address_mask: [u64; 2],
    pub first_port: u16,
    pub last_port: u16,
    /// An [`Action`].
    pub action: u32,
}

const _: () = assert!(size_of::<Rule>() == 48 && align_of::<Rule>() == 8);

impl Rule {
    pub(super) const ZERO: Self = Self {
        marks: 0,
        marks_mask: 0,
        address: [0; 2],
        address_mask: [0; 2],
        first_port: 0,
        last_port: 0,
        action: 0,
    };

    /// The rule that does `action` with what meets `criteria`; `None` where criteria contradict
    /// each other: a network without a family, ports without a protocol that has some, a first
    /// port above the last, or a protocol that no rule can name.
    pub fn new(action: Action, criteria: &Criteria) -> Option<Self> {
        let mut rule = Self { action: action as u32, last_port: u16::MAX, ..Self::ZERO };
        let mut marks = Marks::NONE;
        let mut read = 0;
        if let Some(family) = criteria.family {
            marks = marks.of(family);
            rule.marks_mask |= Marks::FAMILY;
            read |= Marks::READ_ADDRESSES;
        }
        if let Some((network, mask)) = criteria.network {
            criteria.family?;
            let ([n0, n1], [m0, m1]) = (network.0, mask.0);
            rule.address = [n0 & m0, n1 & m1];
            rule.address_mask = [m0, m1];
        }
        if let Some(protocol) = criteria.protocol {
            if !is_nameable(protocol) {
                return None;
            }
            marks = marks.carrying(protocol);
            rule.marks_mask |= Marks::PROTOCOL;
            read |= Marks::READ_PROTOCOL;
        }
        if let Some((first, last)) = criteria.ports {
            if first > last || !criteria.protocol?.has_ports() {
                return None;
            }
            (rule.first_port, rule.last_port) = (first, last);
            marks = marks.with(Marks::PORTS);
            rule.marks_mask |= Marks::PORTS;
            read |= Marks::READ_WHOLE;
        }
        if matches!(action, Action::Allow) {
            marks = marks.with(read);
            rule.marks_mask |= read;
        }
        rule.marks = marks.0;
        Some(rule)
    }

    /// Whether the rule matches. What tells most packets from most rules comes first.
    #[inline(always)]
    pub(super) fn answers(&self, question: &Question) -> bool {
        if (self.marks ^ question.marks) & self.marks_mask & question.known_marks != 0 {
            return false;
        }
        let ([a0, a1], [m0, m1]) = (self.address, self.address_mask);
        let [q0, q1] = question.address;
        if (a0 ^ q0) & m0 & question.known_address != 0 {
            return false;
        }
        if (a1 ^ q1) & m1 & question.known_address != 0 {
            return false;
        }
        u32::from(self.first_port) & question.known_port <= question.port
            && question.port <= u32::from(self.last_port)
    }
}

/// Protocols that a rule can name: those whose number says what they are.
const fn is_nameable(protocol: Protocol) -> bool {
    protocol.has_ports() || matches!(protocol, Protocol::Icmp | Protocol::Icmpv6)
}

/// What a packet asks of each rule, prepared once.
///
/// The `known_` masks have ones where the packet could be read, so that what is unknown never
/// tells against a deny rule. Allow rules ask for the `READ` marks, which are always known.
#[derive(Clone, Copy)]
pub(super) struct Question {
    marks: u32,
    known_marks: u32,
    address: [u64; 2],
    known_address: u64,
    /// Zero where unknown or not there.
    port: u32,
    known_port: u32,
}

impl Question {
    #[inline(always)]
    pub(super) fn about(packet: &Packet, peer: Option<Address>) -> Self {
        let (marks, peer) = match peer {
            Some(Address(peer)) => (packet.marks, peer),
            None => (packet.marks.without(Marks::READ), [0; 2]),
        };
        let read_addresses = marks.all_if(Marks::READ_ADDRESSES_BIT);
        let read_protocol = marks.all_if(Marks::READ_PROTOCOL_BIT);
        let read_whole = marks.all_if(Marks::READ_WHOLE_BIT);
        Self {
            marks: marks.0,
            known_marks: Marks::READ
                | Marks::FAMILY & read_addresses
                | Marks::PROTOCOL & read_protocol
                | Marks::PORTS & read_whole,
            address: peer,
            known_address: sign_extended(read_addresses),
            port: packet.destination_port(),
            known_port: read_whole,
        }
    }
}

/// All ones stay all ones.
#[inline(always)]
const fn sign_extended(mask: u32) -> u64 {
    mask as u64 | (mask as u64) << 32
}
