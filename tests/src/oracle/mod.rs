//! A second opinion on what the programs do with a packet: an interpreter of filters as they are
//! written, on headers that the crate `etherparse` has read. It shares no code with `common`, is as
//! plain as can be, and slow.
//!
//! The rules that it follows, and that `common` must follow too:
//!
//! 1. *Link.* Up to two VLAN tags (0x8100, 0x88a8) are skipped. What lies under a third is unknown: it may
//!    be IP or not, and counts as not IP. A frame that ends in its Ethernet header or in a tag is malformed
//!    and unknown. Other ethertypes than IPv4's and IPv6's are foreign: they pass, whatever the filter.
//! 2. *IP.* A header that cannot be (too short, another version, a length below its own or beyond the
//!    frame) is malformed, and nothing is known of the packet, not even its version, but that it counts
//!    as other IP. A length of zero is right only where more than 65535 bytes follow. What lies behind
//!    the IP packet is padding and not read.
//! 3. *Extension headers* are IPv6's hop-by-hop options, routing, fragment, authentication and
//!    destination options, at most eight of them in any order; in IPv4 these numbers are payloads like
//!    any other. Behind a ninth nothing is known but the addresses, without it being malformed. One
//!    that does not fit into the packet is malformed, and then too nothing but the addresses is known.
//!    An authentication header is as long as it says, also where that is too short for one.
//! 4. *Fragments.* A fragment header, or IPv4's fields, with an offset of zero and nothing to follow
//!    mean a whole packet. A later fragment has no transport header. Its protocol is what its header
//!    names, unknown where that is an extension header of IPv6. That a packet is a fragment is known
//!    from the header that says so on; that it is none, once all extension headers are read.
//! 5. *Transport.* TCP (20 bytes, and its own length), UDP (8), SCTP (12), ICMP in IPv4 and ICMPv6 in IPv6
//!    (8): what does not fit into the IP packet is malformed; its protocol is known, its ports or type are
//!    not. UDP's length is zero, or at least 8 and, but for a fragment, not beyond the packet.
//! 6. *Neighbour discovery* (ICMPv6 types 133 to 137, hop limit 255, no fragment) passes like what is
//!    foreign.
//! 7. *Rules.* The first that matches and does not only count decides. A criterion that a packet cannot
//!    answer leaves it open whether the rule matches; a deny rule matches then, others do not. A later
//!    fragment surely has no ports, no ICMP type and no ACK bit. ICMP is surely not in IPv6, nor ICMPv6 in
//!    IPv4.
//! 8. *Verdict.* What is malformed counts as that, whether it passes or not.
//! 9. *Replies.* Where no rule of a stateful direction decides, a packet passes that answers one which was
//!    let through the other way and was no reply itself: one of TCP, UDP or SCTP with its ends swapped, or
//!    an echo of ICMP with its addresses swapped and the same identifier. A reset, and a SYN with ACK, let
//!    no replies through, nor does what has no transport header.
//! 10. *Rates.* What a rule lets through is paid for after it has passed: as long as no more than the
//!     burst is owed, the next packet passes, whatever its size.

mod decide;
mod judged;
mod memory;
pub mod random;
mod read;

use common::{Direction, Protocol, TcpEvent, Verdict};
use driver::model::{DirectionFilter, Filter};

pub use self::judged::{Kept, judged};
pub use self::memory::Memory;

/// What should become of a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing of the packet")]
pub struct Answer {
    pub passes: bool,
    pub verdict: Verdict,
    /// The rules whose counts rise, by their places in the direction's list, in order.
    pub hits: Vec<usize>,
    /// As what it counts.
    pub protocol: Protocol,
    /// Known to be part of a fragmented packet.
    pub fragment: bool,
    pub tagged: bool,
    pub tcp: Vec<TcpEvent>,
    /// Passes only because it answers another.
    pub reply: bool,
}

/// What an answer depends on beside the packet and the filter.
pub trait Past {
    /// Whether the rate of a rule has room for the packet.
    fn admits(&mut self, rule: usize) -> bool;
    /// Whether the packet answers one that was let through the other way.
    fn is_reply(&mut self) -> bool;
}

/// Limits that are never reached, and nothing that could be answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Past for Quiet {
    fn admits(&mut self, _rule: usize) -> bool {
        true
    }

    fn is_reply(&mut self) -> bool {
        false
    }
}

/// What should become of `frame`, which goes in `direction`.
pub fn answer(
    frame: &[u8],
    filter: Option<&Filter>,
    direction: Direction,
    past: &mut impl Past,
) -> Answer {
    let seen = read::read(frame);
    let rules = filter.and_then(|filter| of(filter, direction));
    let decided = decide::decide(&seen, rules, past);
    Answer {
        passes: decided.passes,
        verdict: if seen.malformed { Verdict::Malformed } else { decided.verdict },
        hits: decided.hits,
        protocol: seen.counted,
        fragment: seen.is_fragment(),
        tagged: seen.tagged,
        tcp: seen.tcp_events(),
        reply: decided.reply,
    }
}

fn of(filter: &Filter, direction: Direction) -> Option<&DirectionFilter> {
    match direction {
        Direction::Ingress => filter.ingress.as_ref(),
        Direction::Egress => filter.egress.as_ref(),
    }
}

#[cfg(test)]
mod tests;
