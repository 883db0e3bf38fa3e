use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::testing::frames;

fn parse_bytes(bytes: &[u8]) -> Packet {
    parse(&bytes)
}

/// A frame that leaves extension headers to others, as packet memory does in the kernel.
#[derive(Clone, Copy)]
struct Near<'a>(&'a [u8]);

impl Frame for Near<'_> {
    const FOLLOWS: bool = false;

    fn full_len(&self) -> u32 {
        self.0.full_len()
    }

    fn halves<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        self.0.halves(offset)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.0.words(offset)
    }
}

/// A frame that claims to be longer than the bytes at hand.
#[derive(Clone, Copy)]
struct Longer<'a>(&'a [u8], u32);

impl Frame for Longer<'_> {
    const FOLLOWS: bool = true;

    fn full_len(&self) -> u32 {
        self.1
    }

    fn halves<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        self.0.halves(offset)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.0.words(offset)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Also that nothing panics, whatever the bytes are.
    #[test]
    fn a_frame_cut_short_reads_the_same_or_is_malformed(
        frame in frames(),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = parse_bytes(&frame);
        let cut = parse_bytes(&frame[..cut.index(frame.len() + 1)]);
        prop_assert!(cut.is_malformed() || cut == whole, "{whole:?}\n{cut:?}");
    }

    #[test]
    fn what_is_not_deferred_reads_the_same_near_and_far(frame in frames()) {
        let near = parse(&Near(&frame));
        let far = parse_bytes(&frame);
        prop_assert!(near.is_deferred() || near == far, "{near:?}\n{far:?}");
        prop_assert!(!far.is_deferred());
        prop_assert_eq!(near.is_deferred(), near.is_deferred() && near.reach() == Reach::Link);
    }

    #[test]
    fn what_is_read_quickly_reads_the_same_slowly(frame in frames(), cut in any::<prop::sample::Index>()) {
        let cut = &frame[..cut.index(frame.len() + 1)];
        for frame in [frame.as_slice(), cut] {
            let slow = parse_bytes(frame);
            match parse_quick(&frame) {
                Some((packet, addresses)) => {
                    prop_assert_eq!(packet, slow);
                    prop_assert_eq!(Some(addresses), slow.addresses(&frame));
                }
                None => prop_assert!(
                    slow.ports().is_none()
                        || slow.protocol() == Protocol::Sctp
                        || slow.is_tagged()
                        || slow.is_fragment()
                        || has_more_headers(frame)
                        || udp_len(frame, &slow) == Some(0),
                    "{:?}", slow
                ),
            }
        }
    }

    /// What is known always goes together.
    #[test]
    fn a_packet_knows_what_its_reach_says(frame in frames()) {
        let packet = parse_bytes(&frame);
        let addresses = packet.addresses(&frame.as_slice());
        match packet.reach() {
            Reach::Link => prop_assert!(packet.family().is_none()),
            Reach::Addresses => prop_assert_eq!(packet.protocol(), Protocol::OtherIp),
            Reach::Protocol => prop_assert!(packet.is_malformed()),
            Reach::Whole => prop_assert!(!packet.is_malformed()),
        }
        prop_assert_eq!(addresses.is_some(), packet.family().is_some());
        if packet.ports().is_some() {
            prop_assert!(packet.protocol().has_ports() && packet.reach() == Reach::Whole);
        }
    }
}

/// Options of IPv4, or extension headers of IPv6, in a frame without a tag.
fn has_more_headers(frame: &[u8]) -> bool {
    match frame[14] >> 4 {
        4 => frame[14] != 0x45,
        _ => !matches!(frame[20], 6 | 17),
    }
}

/// What UDP says of its own length, in a frame without more headers. Zero stands for "too long".
fn udp_len(frame: &[u8], packet: &Packet) -> Option<u16> {
    let at = if packet.is_v6() { 58 } else { 38 };
    (packet.protocol() == Protocol::Udp).then(|| u16::from_be_bytes([frame[at], frame[at + 1]]))
}

/// From 10.0.0.1:4660 to 10.0.0.2:80.
const UDP4: [u8; 46] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, //
    0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, //
    0x12, 0x34, 0, 80, 0, 12, 0, 0, 1, 2, 3, 4,
];

/// The same frame with `bytes` from `offset` on.
fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = UDP4.to_vec();
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn ports_and_addresses_are_where_they_belong() {
    let packet = parse_bytes(&UDP4);
    let addresses = packet.addresses(&UDP4.as_slice()).unwrap();
    let host = |n| core::net::IpAddr::from([10, 0, 0, n]);
    assert_eq!(packet.ports(), Some((4660, 80)));
    assert_eq!(packet.header_len, 42);
    assert_eq!(addresses.source(Family::V4), host(1));
    assert_eq!(addresses.destination(Family::V4), host(2));
    let back = addresses.swapped(Family::V4);
    assert_eq!(back.source(Family::V4), host(2));
}

#[test]
fn lengths_that_cannot_be_are_malformed() {
    for (what, frame) in [
        ("version 5", with(14, &[0x55])),
        ("a header of 16 bytes", with(14, &[0x44])),
        ("a total below the header", with(16, &[0, 19])),
        ("a total beyond the frame", with(16, &[0, 33])),
        ("a total of zero", with(16, &[0, 0])),
        ("UDP shorter than its header", with(38, &[0, 7])),
        ("UDP longer than the packet", with(38, &[0, 13])),
    ] {
        assert!(parse_bytes(&frame).is_malformed(), "{what}");
    }
    assert!(!parse_bytes(&with(38, &[0, 0])).is_malformed(), "UDP may leave its length open");
}

/// The length fields of a packet beyond 64 KiB say zero, and only then may they.
#[test]
fn a_packet_beyond_64_kib_says_nothing_of_its_length() {
    let frame = with(16, &[0, 0]);
    assert_eq!(parse(&Longer(&frame, 100_000)).ports(), Some((4660, 80)));
    assert!(parse(&Longer(&frame, 65_000)).is_malformed());
}

/// An IPv6 packet from `fd::1` to `fd::2` with `payload`, whose first header is `next`.
fn v6(next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = UDP4[..12].to_vec();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap()]);
    frame.extend([next, hop_limit]);
    for host in [1, 2] {
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    frame.extend(payload);
    frame
}

#[test]
fn a_later_fragment_has_no_ports_and_perhaps_no_protocol() {
    const FRAGMENT: u8 = 44;
    let later = |next| parse_bytes(&v6(FRAGMENT, 64, &[next, 0, 0, 8, 0, 0, 0, 1, 0, 80, 0, 80]));
    let (udp, behind_options) = (later(17), later(60));
    assert_eq!((udp.reach(), udp.protocol()), (Reach::Whole, Protocol::Udp));
    assert_eq!(behind_options.reach(), Reach::Addresses);
    assert!(udp.is_fragment() && behind_options.is_fragment());
    assert!(udp.ports().is_none() && !udp.is_malformed() && !behind_options.is_malformed());
}

#[test]
fn neighbour_discovery_comes_from_the_link_itself() {
    const ICMPV6: u8 = 58;
    let of = |kind, hop_limit| {
        parse_bytes(&v6(ICMPV6, hop_limit, &[kind, 0, 0, 0, 0, 0, 0, 0])).is_neighbour_discovery()
    };
    assert!((133..=137).all(|kind| of(kind, 255)));
    assert!(!of(132, 255) && !of(138, 255) && !of(135, 254));
}
