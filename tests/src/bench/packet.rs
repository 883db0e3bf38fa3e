//! The packets that programs are run on: the smallest that Ethernet carries.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Where packets of the benchmark go, and those of a flood with a mask of zero come from.
pub(super) const DESTINATION: u8 = 2;
pub(super) const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
pub(super) const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub(super) const PORT: u16 = 4789;

const SOURCE_PORT: u16 = 0x1234;
/// Without the checksum at the end.
const LEAST: usize = 60;

/// UDP to 192.168.1.2.
pub(super) fn v4(source: Ipv4Addr) -> Vec<u8> {
    let mut packet = ethernet(0x0800);
    packet.extend([0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend([192, 168, 1, DESTINATION]);
    udp(packet)
}

/// UDP to `fd00::2`.
pub(super) fn v6(source: Ipv6Addr) -> Vec<u8> {
    let mut packet = ethernet(0x86dd);
    packet.extend([0x60, 0, 0, 0, 0, 12, 17, 64]);
    packet.extend(source.octets());
    packet.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(DESTINATION)).octets());
    udp(packet)
}

fn ethernet(kind: u16) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    packet.extend(kind.to_be_bytes());
    packet
}

fn udp(mut packet: Vec<u8>) -> Vec<u8> {
    packet.extend(SOURCE_PORT.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend([0, 12, 0, 0, 0xde, 0xad, 0xbe, 0xef]);
    packet.resize(packet.len().max(LEAST), 0);
    packet
}
