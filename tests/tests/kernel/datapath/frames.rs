//! Packets, byte by byte.

/// Bytes from hexadecimal text; white space is for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A frame after its two addresses, filled up to the 60 bytes that Ethernet asks for.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    let mut frame = short_frame(text);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The same without filling up.
pub(crate) fn short_frame(text: &str) -> Vec<u8> {
    let mut frame = hex("02 00 00 00 00 01  02 00 00 00 00 02");
    frame.extend(hex(text));
    frame
}

/// 10.0.0.1:4660 to 10.0.0.2:80, four bytes of payload.
pub(crate) const UDP4: &str = "0800
    45 00 00 20  00 01 00 00  40 11 00 00  0a 00 00 01  0a 00 00 02
    12 34 00 50  00 0c 00 00  de ad be ef";

/// The same with two VLAN tags.
pub(crate) const UDP4_IN_QINQ: &str = "88a8 0064 8100 00c8 0800
    45 00 00 20  00 01 00 00  40 11 00 00  0a 00 00 01  0a 00 00 02
    12 34 00 50  00 0c 00 00  de ad be ef";

/// The same with three.
pub(crate) const UDP4_IN_THREE_TAGS: &str = "88a8 0064 8100 00c8 8100 012c 0800
    45 00 00 20  00 01 00 00  40 11 00 00  0a 00 00 01  0a 00 00 02
    12 34 00 50  00 0c 00 00  de ad be ef";

/// A SYN to port 443, with four bytes of IP options.
pub(crate) const TCP4_WITH_OPTIONS: &str = "0800
    46 00 00 2c  00 01 40 00  40 06 00 00  0a 00 00 01  0a 00 00 02  94 04 00 00
    12 34 01 bb  00 00 00 01  00 00 00 00  50 02 ff ff  00 00 00 00";

/// An echo request.
pub(crate) const ICMP4: &str = "0800
    45 00 00 1c  00 01 00 00  40 01 00 00  0a 00 00 01  0a 00 00 02
    08 00 00 00  00 01 00 01";

/// The first fragment of a UDP datagram to port 80: eight bytes of header, eight of payload.
pub(crate) const FIRST_FRAGMENT: &str = "0800
    45 00 00 24  00 01 20 00  40 11 00 00  0a 00 00 01  0a 00 00 02
    12 34 00 50  01 00 00 00  de ad be ef  de ad be ef";

/// A later one.
pub(crate) const LATER_FRAGMENT: &str = "0800
    45 00 00 1c  00 01 00 02  40 11 00 00  0a 00 00 01  0a 00 00 02
    00 50 00 50  00 50 00 50";

/// Cut off inside the UDP header.
pub(crate) const CUT_OFF: &str = "0800
    45 00 00 18  00 01 00 00  40 11 00 00  0a 00 00 01  0a 00 00 02
    12 34 00 50";

/// A total length that the frame does not have.
pub(crate) const TOO_LONG: &str = "0800
    45 00 05 dc  00 01 00 00  40 11 00 00  0a 00 00 01  0a 00 00 02
    12 34 00 50  00 0c 00 00  de ad be ef";

/// `fd00::1` to `fd00::2`, port 80.
pub(crate) const UDP6: &str = "86dd
    60 00 00 00  00 0c 11 40
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 01
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02
    12 34 00 50  00 0c 00 00  de ad be ef";

/// TCP to port 443 behind hop-by-hop, destination and routing headers.
pub(crate) const TCP6_BEHIND_EXTENSIONS: &str = "86dd
    60 00 00 00  00 2c 00 40
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 01
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02
    3c 00 01 04 00 00 00 00  2b 00 01 04 00 00 00 00  06 00 00 00 00 00 00 00
    12 34 01 bb  00 00 00 01  00 00 00 00  50 02 ff ff  00 00 00 00";

/// A fragment header that says nothing (RFC 6946), then UDP to port 80.
pub(crate) const ATOMIC_FRAGMENT6: &str = "86dd
    60 00 00 00  00 14 2c 40
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 01
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02
    11 00 00 00 00 00 00 07
    12 34 00 50  00 0c 00 00  de ad be ef";

/// A later fragment, of UDP.
pub(crate) const LATER_FRAGMENT6: &str = "86dd
    60 00 00 00  00 10 2c 40
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 01
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02
    11 00 00 08 00 00 00 07  00 50 00 50  00 50 00 50";

/// Nine destination headers before UDP to port 80: one more than we follow.
pub(crate) const TOO_MANY_EXTENSIONS: &str = "86dd
    60 00 00 00  00 54 3c 40
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 01
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02
    3c 00 01 04 00 00 00 00  3c 00 01 04 00 00 00 00  3c 00 01 04 00 00 00 00
    3c 00 01 04 00 00 00 00  3c 00 01 04 00 00 00 00  3c 00 01 04 00 00 00 00
    3c 00 01 04 00 00 00 00  3c 00 01 04 00 00 00 00  11 00 01 04 00 00 00 00
    12 34 00 50  00 0c 00 00  de ad be ef";

/// A neighbour solicitation from the link.
pub(crate) const NEIGHBOUR_SOLICITATION: &str = "86dd
    60 00 00 00  00 18 3a ff
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 01
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02
    87 00 00 00  00 00 00 00
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02";

/// The same from behind a router.
pub(crate) const FAR_SOLICITATION: &str = "86dd
    60 00 00 00  00 18 3a fe
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 01
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02
    87 00 00 00  00 00 00 00
    fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02";

pub(crate) const ARP: &str = "0806
    00 01 08 00 06 04 00 01  02 00 00 00 00 02  0a 00 00 01  00 00 00 00 00 00  0a 00 00 02";

/// LLDP.
pub(crate) const NOT_IP: &str = "88cc 02 07 04 02 00 00 00 00 02";
