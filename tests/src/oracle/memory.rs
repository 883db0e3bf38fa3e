//! What the oracle remembers of packets, where a filter asks for it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use common::{Direction, Protocol};
use driver::model::{Action, DirectionFilter, Filter, Rate};

use super::read::{self, Content, Datagram, Head, Load};
use super::{Answer, Past, answer, of};

/// Conversations and what limits have let through. Time stands still in it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    talks: HashSet<Talk>,
    /// Bytes by rule.
    taken: HashMap<(Direction, usize), u64>,
}

/// Packets of one protocol between two ends; those of an echo have its identifier.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Talk {
    protocol: Protocol,
    /// The way of the packet that began it, and its ends.
    direction: Direction,
    from: (IpAddr, u16),
    to: (IpAddr, u16),
}

impl Memory {
    /// What should become of `frame` after all that was asked before.
    pub fn answer(&mut self, frame: &[u8], filter: &Filter, direction: Direction) -> Answer {
        let talk = Talk::of(frame, direction);
        let mut now = Now {
            is_reply: talk.is_some_and(|(talk, _)| self.talks.contains(&talk.answered())),
            bytes: frame.len() as u64,
            rules: of(filter, direction),
            direction,
            taken: &mut self.taken,
        };
        let answer = answer(frame, Some(filter), direction, &mut now);
        let is_asked = of(filter, opposite(direction)).is_some_and(|filter| filter.stateful);
        if let Some((talk, true)) = talk
            && is_asked
            && answer.passes
            && !answer.reply
        {
            self.talks.insert(talk);
        }
        answer
    }
}

/// One packet.
struct Now<'a> {
    is_reply: bool,
    bytes: u64,
    rules: Option<&'a DirectionFilter>,
    direction: Direction,
    taken: &'a mut HashMap<(Direction, usize), u64>,
}

impl Past for Now<'_> {
    fn admits(&mut self, rule: usize) -> bool {
        let action = self.rules.map(|filter| filter.rules[rule].action);
        let Some(Action::RateLimit(limit)) = action else { return true };
        // At one bit in a second nothing comes back while a test lasts. Other rates are never
        // reached.
        if limit.rate != Rate::BitsPerSecond(1) {
            return true;
        }
        let taken = self.taken.entry((self.direction, rule)).or_default();
        let is_within = *taken <= limit.burst / 8;
        if is_within {
            *taken += self.bytes;
        }
        is_within
    }

    fn is_reply(&mut self) -> bool {
        self.is_reply
    }
}

impl Talk {
    /// What a packet belongs to, if anything, and whether it may begin it.
    fn of(frame: &[u8], direction: Direction) -> Option<(Self, bool)> {
        let seen = read::read(frame);
        let Content::Ip(Datagram { source, destination, load, .. }) = seen.content else {
            return None;
        };
        let Load::Known(protocol, head) = load else { return None };
        let (from, to, begins) = match head {
            Head::Ports { source, destination, flags } => {
                let begins = flags.is_none_or(|flags| !(flags.rst || flags.syn && flags.ack));
                (source, destination, begins)
            }
            Head::Icmp { kind: 0 | 8, identifier } if protocol == Protocol::Icmp => {
                (identifier, identifier, true)
            }
            Head::Icmp { kind: 128 | 129, identifier } if protocol == Protocol::Icmpv6 => {
                (identifier, identifier, true)
            }
            Head::Icmp { .. } | Head::None => return None,
        };
        let talk = Self { protocol, direction, from: (source, from), to: (destination, to) };
        Some((talk, begins))
    }

    /// What began with a packet that this one answers.
    fn answered(self) -> Self {
        Self { direction: opposite(self.direction), from: self.to, to: self.from, ..self }
    }
}

/// The other way.
pub(super) fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}
