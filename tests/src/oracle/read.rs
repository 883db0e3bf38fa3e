//! What can be known of a frame.

use std::net::IpAddr;

use common::{Protocol, TcpEvent};
use etherparse::{
    EtherType, Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice,
    Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice, TcpHeaderSlice, UdpHeaderSlice,
};

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) tagged: bool,
    pub(super) malformed: bool,
    pub(super) counted: Protocol,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// Surely not IP.
    Foreign,
    /// It may be anything.
    Unknown,
    Ip(Datagram),
}

#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hop_limit: u8,
    /// `None` where it is not known.
    pub(super) piece: Option<Piece>,
    pub(super) load: Load,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Piece {
    Whole,
    First,
    Later,
}

/// What an IP packet carries.
#[derive(Debug)]
pub(super) enum Load {
    Unknown,
    /// Its protocol is known, its header is not.
    Damaged(Protocol),
    Known(Protocol, Head),
}

/// What rules may ask of a transport header.
#[derive(Debug)]
pub(super) enum Head {
    /// There is none, or none that rules ask for.
    None,
    Ports {
        source: u16,
        destination: u16,
        flags: Option<Flags>,
    },
    Icmp {
        kind: u8,
        /// Of an echo; in others these bytes mean something else.
        identifier: u16,
    },
}

#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "so many flags has TCP, and more")]
pub(super) struct Flags {
    pub(super) ack: bool,
    pub(super) syn: bool,
    fin: bool,
    pub(super) rst: bool,
}

impl Seen {
    pub(super) fn is_fragment(&self) -> bool {
        let Content::Ip(datagram) = &self.content else { return false };
        matches!(datagram.piece, Some(Piece::First | Piece::Later))
    }

    pub(super) fn is_neighbour_discovery(&self) -> bool {
        let Content::Ip(datagram) = &self.content else { return false };
        let Load::Known(Protocol::Icmpv6, Head::Icmp { kind: 133..=137, .. }) = datagram.load
        else {
            return false;
        };
        datagram.hop_limit == 255 && datagram.piece == Some(Piece::Whole)
    }

    pub(super) fn tcp_events(&self) -> Vec<TcpEvent> {
        let Content::Ip(datagram) = &self.content else { return Vec::new() };
        let Load::Known(_, Head::Ports { flags: Some(flags), .. }) = datagram.load else {
            return Vec::new();
        };
        let Flags { ack, syn, fin, rst } = flags;
        let all = [
            (syn && !ack, TcpEvent::Syn),
            (syn && ack, TcpEvent::SynAck),
            (fin, TcpEvent::Fin),
            (rst, TcpEvent::Rst),
        ];
        all.into_iter().filter_map(|(is, event)| is.then_some(event)).collect()
    }
}

pub(super) fn read(frame: &[u8]) -> Seen {
    let mut seen = Seen {
        tagged: false,
        malformed: false,
        counted: Protocol::NotIp,
        content: Content::Unknown,
    };
    let Ok(ethernet) = Ethernet2HeaderSlice::from_slice(frame) else {
        return Seen { malformed: true, ..seen };
    };
    let (mut ether_type, mut rest) = (ethernet.ether_type(), &frame[14..]);
    for _ in 0..2 {
        if !is_tag(ether_type) {
            break;
        }
        seen.tagged = true;
        let Ok(tag) = SingleVlanHeaderSlice::from_slice(rest) else {
            return Seen { malformed: true, ..seen };
        };
        (ether_type, rest) = (tag.ether_type(), &rest[4..]);
    }
    let datagram = match ether_type {
        EtherType::IPV4 => read_v4(rest),
        EtherType::IPV6 => read_v6(rest),
        EtherType::ARP => {
            return Seen { counted: Protocol::Arp, content: Content::Foreign, ..seen };
        }
        other if is_tag(other) => return seen,
        _ => return Seen { content: Content::Foreign, ..seen },
    };
    let Some((malformed, datagram)) = datagram else {
        return Seen { malformed: true, counted: Protocol::OtherIp, ..seen };
    };
    let counted = match datagram.load {
        Load::Unknown => Protocol::OtherIp,
        Load::Damaged(protocol) | Load::Known(protocol, _) => protocol,
    };
    Seen { malformed, counted, content: Content::Ip(datagram), ..seen }
}

fn is_tag(ether_type: EtherType) -> bool {
    [EtherType::VLAN_TAGGED_FRAME, EtherType::PROVIDER_BRIDGING].contains(&ether_type)
}

/// `len` as a header says it, of what has `available` bytes.
fn said(len: u16, available: usize) -> usize {
    if len == 0 && available > 0xffff { available } else { len.into() }
}

/// Whether it is malformed, and what is known; `None` where nothing is.
fn read_v4(bytes: &[u8]) -> Option<(bool, Datagram)> {
    let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
    let own_len = header.slice().len();
    let payload = bytes.get(..said(header.total_len(), bytes.len()))?.get(own_len..)?;
    let piece = match (header.fragments_offset().value(), header.more_fragments()) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later,
    };
    let protocol = match header.protocol() {
        IpNumber::ICMP => Protocol::Icmp,
        number => of_both(number),
    };
    let (malformed, load) = read_load(protocol, payload, piece);
    Some((
        malformed,
        Datagram {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            hop_limit: header.ttl(),
            piece: Some(piece),
            load,
        },
    ))
}

fn read_v6(bytes: &[u8]) -> Option<(bool, Datagram)> {
    let header = Ipv6HeaderSlice::from_slice(bytes).ok()?;
    let behind = &bytes[40..];
    let payload = behind.get(..said(header.payload_length(), behind.len()))?;
    let (malformed, piece, load) = read_chain(header.next_header(), payload);
    Some((
        malformed,
        Datagram {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            hop_limit: header.hop_limit(),
            piece,
            load,
        },
    ))
}

/// Reads extension headers and what follows them.
fn read_chain(first: IpNumber, payload: &[u8]) -> (bool, Option<Piece>, Load) {
    let (mut number, mut rest) = (first, payload);
    let mut piece = None;
    for _ in 0..8 {
        let header = match number {
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let Ok(header) = Ipv6FragmentHeaderSlice::from_slice(rest) else {
                    return (true, piece, Load::Unknown);
                };
                let (next, behind) = (header.next_header(), &rest[8..]);
                if header.fragment_offset().value() != 0 {
                    let load = match next {
                        next if is_extension(next) => Load::Unknown,
                        next => Load::Known(of_v6(next), Head::None),
                    };
                    return (false, Some(Piece::Later), load);
                }
                if header.more_fragments() {
                    piece = Some(Piece::First);
                }
                Some((next, behind))
            }
            IpNumber::AUTHENTICATION_HEADER => authentication(rest),
            other if is_extension(other) => Ipv6RawExtHeaderSlice::from_slice(rest)
                .ok()
                .map(|header| (header.next_header(), &rest[header.slice().len()..])),
            _ => break,
        };
        let Some(next) = header else { return (true, piece, Load::Unknown) };
        (number, rest) = next;
    }
    if is_extension(number) {
        return (false, piece, Load::Unknown);
    }
    let piece = piece.unwrap_or(Piece::Whole);
    let (malformed, load) = read_load(of_v6(number), rest, piece);
    (malformed, Some(piece), load)
}

/// What follows an authentication header: its length is in words of four bytes, less two.
fn authentication(bytes: &[u8]) -> Option<(IpNumber, &[u8])> {
    let [next, words, ..] = bytes else { return None };
    Some((IpNumber(*next), bytes.get((usize::from(*words) + 2) * 4..)?))
}

fn is_extension(number: IpNumber) -> bool {
    [
        IpNumber::IPV6_HEADER_HOP_BY_HOP,
        IpNumber::IPV6_ROUTE_HEADER,
        IpNumber::IPV6_FRAGMENTATION_HEADER,
        IpNumber::AUTHENTICATION_HEADER,
        IpNumber::IPV6_DESTINATION_OPTIONS,
    ]
    .contains(&number)
}

fn of_v6(number: IpNumber) -> Protocol {
    if number == IpNumber::IPV6_ICMP { Protocol::Icmpv6 } else { of_both(number) }
}

fn of_both(number: IpNumber) -> Protocol {
    match number {
        IpNumber::TCP => Protocol::Tcp,
        IpNumber::UDP => Protocol::Udp,
        IpNumber::SCTP => Protocol::Sctp,
        _ => Protocol::OtherIp,
    }
}

/// Whether it is malformed, and what is known of it.
fn read_load(protocol: Protocol, bytes: &[u8], piece: Piece) -> (bool, Load) {
    if piece == Piece::Later {
        return (false, Load::Known(protocol, Head::None));
    }
    let head = match protocol {
        Protocol::Tcp => tcp(bytes),
        Protocol::Udp => udp(bytes, piece),
        Protocol::Sctp => sctp(bytes),
        Protocol::Icmp | Protocol::Icmpv6 => (bytes.len() >= 8).then(|| Head::Icmp {
            kind: bytes[0],
            identifier: u16::from_be_bytes([bytes[4], bytes[5]]),
        }),
        _ => Some(Head::None),
    };
    match head {
        Some(head) => (false, Load::Known(protocol, head)),
        None => (true, Load::Damaged(protocol)),
    }
}

fn tcp(bytes: &[u8]) -> Option<Head> {
    let header = TcpHeaderSlice::from_slice(bytes).ok()?;
    let flags =
        Flags { ack: header.ack(), syn: header.syn(), fin: header.fin(), rst: header.rst() };
    Some(Head::Ports {
        source: header.source_port(),
        destination: header.destination_port(),
        flags: Some(flags),
    })
}

fn udp(bytes: &[u8], piece: Piece) -> Option<Head> {
    let header = UdpHeaderSlice::from_slice(bytes).ok()?;
    let may_be = match usize::from(header.length()) {
        0 => true,
        len => len >= 8 && (len <= bytes.len() || piece == Piece::First),
    };
    may_be.then(|| Head::Ports {
        source: header.source_port(),
        destination: header.destination_port(),
        flags: None,
    })
}

fn sctp(bytes: &[u8]) -> Option<Head> {
    let header = bytes.get(..12)?;
    Some(Head::Ports {
        source: u16::from_be_bytes([header[0], header[1]]),
        destination: u16::from_be_bytes([header[2], header[3]]),
        flags: None,
    })
}
