//! Which packets were let through one way, so that their answers are let through the other.
//!
//! A table shared by all CPUs, since packet and answer seldom meet on one. It has a fixed size: a
//! conversation has four places, and takes the one that is forgotten first. Written without locks:
//! what two CPUs write at once fails its check and counts as absent, so at worst an answer is denied
//! until the next packet that it answers.

use crate::class::Class;
use crate::counters::tcp;
use crate::{Addresses, Direction, Family, Packet, Protocol};

/// How long an answer is waited for after the last packet of a TCP connection, in seconds.
pub const TCP_SECONDS: u64 = 900;
/// The same of any other conversation, and of a connection that its first side has closed or reset.
pub const OTHER_SECONDS: u64 = 60;

/// One remembered conversation. All zero where none is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Conversation {
    /// As in the packets of the way that was let through first.
    pub addresses: Addresses,
    /// Source port in the upper half, destination port in the lower; of ICMP the identifier in
    /// both.
    pub ports: u32,
    /// Protocol, family, and in bit 9 the direction of those packets.
    pub kind: u32,
    /// `jiffies` from which on it is forgotten.
    pub until: u64,
    /// A hash of what tells it from others.
    pub check: u64,
    /// 1 where the side that was let through first has ended it.
    pub ended: u64,
}

/// Conversations with the same hash: a value of the map `weir_state`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bucket(pub [Conversation; 4]);

const _: () = assert!(size_of::<Conversation>() == 64 && size_of::<Bucket>() == 256);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` and made of integers only; the assertion above leaves no room for padding.
unsafe impl aya::Pod for Bucket {}

/// Bit of [`Conversation::kind`] for what went out first.
const EGRESS: u32 = 1 << 9;

/// What tells one conversation from another, as seen by a packet that goes its first way.
#[derive(Clone, Copy)]
pub struct Opening {
    addresses: Addresses,
    ports: u32,
    kind: u32,
    hash: u32,
    check: u64,
    seconds: u64,
    /// Of a TCP segment.
    flags: u32,
}

impl Opening {
    /// The conversation that a packet opens, or carries on. `None` where none can be: it was not read
    /// in full, is a later fragment, or its protocol has neither ports nor echoes, or it is the answer
    /// to a connection (SYN with ACK).
    #[inline(always)]
    pub fn by(
        packet: &Packet,
        addresses: &Addresses,
        direction: Direction,
        seed: u64,
    ) -> Option<Self> {
        let flags = packet.tcp_flags();
        if flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK {
            return None;
        }
        let ports = conversation_ports(packet)?;
        Some(Self::new(packet, *addresses, ports, direction, seed))
    }

    /// The conversation in which a packet would be an answer.
    #[inline(always)]
    pub fn answered_by(
        packet: &Packet,
        addresses: &Addresses,
        direction: Direction,
        seed: u64,
    ) -> Option<Self> {
        let opened = match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let family = if packet.is_v6() { Family::V6 } else { Family::V4 };
        let ports = conversation_ports(packet)?.rotate_left(16);
        Some(Self::new(packet, addresses.swapped(family), ports, opened, seed))
    }

    #[inline(always)]
    fn new(
        packet: &Packet,
        addresses: Addresses,
        ports: u32,
        direction: Direction,
        seed: u64,
    ) -> Self {
        let kind = u32::from(packet.class().0) & (Class::PROTOCOL | Class::V6);
        let kind = match direction {
            Direction::Ingress => kind,
            Direction::Egress => kind | EGRESS,
        };
        let rest = u64::from(ports) | u64::from(kind) << 32;
        let hash = addresses.mixed(rest ^ seed, packet.is_v6());
        let check = u64::from(addresses.mixed(rest.wrapping_add(seed.rotate_left(17)), true));
        let seconds = match packet.protocol() {
            Protocol::Tcp => TCP_SECONDS,
            _ => OTHER_SECONDS,
        };
        // Zero is for places where nothing is.
        Self {
            addresses,
            ports,
            kind,
            hash,
            check: check | 1 << 32,
            seconds,
            flags: packet.tcp_flags(),
        }
    }

    /// Where it belongs; the caller takes as many of the lower bits as it has buckets.
    #[inline(always)]
    pub const fn hash(&self) -> u32 {
        self.hash
    }

    #[inline(always)]
    fn is_at(&self, place: &Conversation) -> bool {
        let ([p0, p1, p2, p3], [a0, a1, a2, a3]) = (place.addresses.0, self.addresses.0);
        place.check == self.check
            && place.ports == self.ports
            && place.kind == self.kind
            && p0 == a0
            && p1 == a1
            && p2 == a2
            && p3 == a3
    }
}

impl Bucket {
    /// Remembers a conversation, that it goes on, or that it has ended. A place that is fresh enough is
    /// not written, so that CPUs do not take the memory from each other with every packet.
    #[inline(always)]
    pub fn remember(&mut self, opening: &Opening, now: u64, hz: u64) {
        let mut oldest = 0;
        let mut oldest_until = u64::MAX;
        for (n, place) in self.0.iter_mut().enumerate() {
            if opening.is_at(place) {
                if opening.flags & (tcp::FIN | tcp::RST) != 0 && place.ended == 0 {
                    place.ended = 1;
                    place.until = now.wrapping_add(OTHER_SECONDS * hz);
                } else if opening.flags & tcp::SYN != 0 {
                    place.ended = 0;
                }
                place.refresh(opening, now, hz);
                return;
            }
            if place.until < oldest_until {
                (oldest, oldest_until) = (n, place.until);
            }
        }
        if opening.flags & tcp::RST != 0 {
            return;
        }
        if let Some(place) = self.0.get_mut(oldest & 3) {
            // In whichever order another CPU sees this: what is half of one conversation and half of
            // another is neither, see `is_at`.
            place.addresses = opening.addresses;
            place.ports = opening.ports;
            place.kind = opening.kind;
            place.until = now.wrapping_add(opening.seconds * hz);
            place.ended = 0;
            place.check = opening.check;
        }
    }

    /// Whether the conversation is remembered. If so it is remembered for longer, but for a packet that
    /// ends it.
    #[inline(always)]
    pub fn recall(&mut self, opening: &Opening, now: u64, hz: u64) -> bool {
        for place in &mut self.0 {
            if opening.is_at(place) {
                if place.until <= now {
                    return false;
                }
                if opening.flags & (tcp::FIN | tcp::RST) == 0 {
                    place.refresh(opening, now, hz);
                }
                return true;
            }
        }
        false
    }
}

impl Conversation {
    #[inline(always)]
    fn refresh(&mut self, opening: &Opening, now: u64, hz: u64) {
        let seconds = if self.ended == 0 { opening.seconds } else { OTHER_SECONDS };
        let until = now.wrapping_add(seconds * hz);
        if until > self.until.wrapping_add(hz) {
            self.until = until;
        }
    }
}

/// Source and destination port; of ICMP echoes the identifier in both.
#[inline(always)]
fn conversation_ports(packet: &Packet) -> Option<u32> {
    if packet.is_echo() {
        let id = packet.raw_ports() >> 16;
        return Some(id << 16 | id);
    }
    packet.ports()?;
    Some(packet.raw_ports())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 100;
    const NOW: u64 = 1 << 32;

    /// A segment with these flags, from the pod.
    fn sent(flags: u8) -> Opening {
        let mut frame = [0; 54];
        frame[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
        frame[26..38].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 80]);
        frame[46..48].copy_from_slice(&[0x50, flags]);
        let (packet, addresses) = crate::parse_quick(&frame.as_slice()).expect("plain TCP");
        Opening::by(&packet, &addresses, Direction::Egress, 7).expect("it opens or goes on")
    }

    /// How many seconds after `NOW` an answer is let in at last.
    fn lasts(bucket: &Bucket) -> u64 {
        let passes = |seconds: &u64| bucket.clone().recall(&sent(0x10), NOW + seconds * HZ, HZ);
        (0..2000).take_while(passes).count() as u64
    }

    #[test]
    fn a_connection_is_remembered_until_a_while_after_its_end() {
        let (syn, ack, fin, rst) = (sent(2), sent(0x10), sent(0x11), sent(4));
        let mut bucket = Bucket::default();
        bucket.remember(&rst, NOW, HZ);
        assert_eq!(lasts(&bucket), 0, "a reset opens nothing");
        bucket.remember(&syn, NOW, HZ);
        assert_eq!(lasts(&bucket), TCP_SECONDS);
        for end in [&fin, &rst] {
            bucket.remember(end, NOW, HZ);
            bucket.remember(&ack, NOW, HZ);
            assert_eq!(lasts(&bucket), OTHER_SECONDS);
            assert!(bucket.recall(&ack, NOW + 50 * HZ, HZ), "the far end may go on");
            assert_eq!(lasts(&bucket), 50 + OTHER_SECONDS);
            bucket.remember(&syn, NOW, HZ);
            assert_eq!(lasts(&bucket), TCP_SECONDS, "it begins anew");
        }
    }

    #[test]
    fn four_conversations_have_room_and_the_first_to_be_forgotten_gives_way() {
        let mut bucket = Bucket::default();
        let of = |port: u32| Opening { ports: port, ..sent(2) };
        for port in 0..5 {
            bucket.remember(&of(port), NOW + u64::from(port), HZ);
        }
        let known = |port| bucket.clone().recall(&of(port), NOW + 9, HZ);
        assert_eq!(
            (0..5).map(known).collect::<std::vec::Vec<_>>(),
            [false, true, true, true, true]
        );
    }
}
