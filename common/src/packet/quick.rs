//! What most packets are, read in a straight line.

use super::transport::number;
use super::{Frame, IPV4, IPV6, Marks, Packet};
use crate::{Addresses, Protocol, Reach};

const ETHERNET_LEN: u32 = 14;
const V4_LEN: u32 = 20;
const V6_LEN: u32 = 40;
const TCP_LEN: u32 = 20;
const UDP_LEN: u32 = 8;

/// Not zero where more fragments follow, or some came before; as it lies in the header's second word.
const FRAGMENT: u32 = 0x3fff_u32.to_be();

/// Reads a packet as [`parse`](super::parse) does, if it is TCP or UDP, whole and well-formed, in
/// IPv4 without options or IPv6 without extension headers, and without a tag. `None` of any other.
///
/// All offsets are constants, and one comparison stands for many bounds: a few instructions for
/// nearly all packets.
#[inline(always)]
pub fn parse_quick(frame: &impl Frame) -> Option<(Packet, Addresses)> {
    // From two on, words are aligned as in the headers. As many as any of the packets has.
    let [_, _, link, first, second, third, source, destination, ports, udp] = frame.words(2)?;
    let available = frame.full_len().wrapping_sub(ETHERNET_LEN);
    match (link >> 16) as u16 {
        IPV4 => {
            let first = u32::from_be(first);
            let total = first & 0xffff;
            if first >> 24 != 0x45 || second & FRAGMENT != 0 || total > available {
                return None;
            }
            let number = third >> 8 & 0xff;
            let ip = Ip { marks: Marks::V4, number, at: ETHERNET_LEN + V4_LEN };
            let packet = ip.carried(frame, total.checked_sub(V4_LEN)?, ports, udp)?;
            Some((packet, Addresses::v4([source, destination])))
        }
        IPV6 => {
            let [s0, s1, s2, s3, d0, d1, d2, d3, ports, udp] = frame.words(22)?;
            let second = u32::from_be(second);
            let len = second >> 16;
            if first & 0xf0 != 0x60 || len > available.checked_sub(V6_LEN)? {
                return None;
            }
            let number = second >> 8 & 0xff;
            let ip = Ip { marks: Marks::V6, number, at: ETHERNET_LEN + V6_LEN };
            let packet = ip.carried(frame, len, ports, udp)?;
            Some((packet, Addresses::v6([s0, s1, s2, s3, d0, d1, d2, d3])))
        }
        _ => None,
    }
}

/// What an IP header says.
struct Ip {
    marks: Marks,
    number: u32,
    /// Where its payload begins.
    at: u32,
}

impl Ip {
    /// The packet, if it carries UDP or TCP that fits into `len` bytes. `ports` and `udp` are the
    /// first two words of the payload.
    #[inline(always)]
    fn carried(self, frame: &impl Frame, len: u32, ports: u32, udp: u32) -> Option<Packet> {
        let (protocol, bits, header) = match self.number {
            number::UDP => {
                let said = u32::from_be(udp) >> 16;
                if said < UDP_LEN || said > len {
                    return None;
                }
                (Protocol::Udp, 0, UDP_LEN)
            }
            number::TCP => {
                let [word] = frame.words(self.at as usize + 12)?;
                let word = u32::from_be(word);
                let header = (word >> 28) * 4;
                if header < TCP_LEN || header > len {
                    return None;
                }
                (Protocol::Tcp, Marks::of_tcp(word >> 16 & 0xff), header)
            }
            _ => return None,
        };
        Some(Packet {
            marks: self.marks.carrying(protocol).reaching(Reach::Whole).with(bits),
            ports: u32::from_be(ports),
            network: ETHERNET_LEN,
            header_len: self.at + header,
        })
    }
}
