//! Random packets: mostly right, and about the networks and ports of a filter, so that tests reach
//! what lies deep in both.

use common::Direction;
use driver::model::{Filter, PortRange};
use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::rules::{PORTS, TYPES, stray_v4, stray_v6};
use super::{once_in, one};

/// An endless row of packets.
#[derive(Clone, Debug)]
pub struct Packets {
    rng: Rng,
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
    ports: Vec<u16>,
    types: Vec<u8>,
    frame: Vec<u8>,
}

/// No frame is shorter, unless the shortest is asked for: the kernel's test runs want a whole
/// Ethernet header.
const SHORTEST: usize = 14;

impl Packets {
    /// Packets that meet the rules of `filter`.
    pub fn new(rng: Rng, filter: &Filter) -> Self {
        let mut packets = Self {
            rng,
            v4: Vec::new(),
            v6: Vec::new(),
            ports: PORTS.to_vec(),
            types: TYPES.to_vec(),
            frame: Vec::new(),
        };
        let directions = [&filter.ingress, &filter.egress];
        for rule in directions.into_iter().flatten().flat_map(|direction| &direction.rules) {
            for network in rule.sources.iter().chain(&rule.destinations) {
                match network {
                    IpNet::V4(network) => packets.v4.push(*network),
                    IpNet::V6(network) => packets.v6.push(*network),
                }
            }
            for &PortRange { first, last } in
                rule.source_ports.iter().chain(&rule.destination_ports)
            {
                packets.ports.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)]);
            }
            packets.types.extend(&rule.icmp_types);
        }
        packets
    }

    /// The next one, of at least 14 bytes, and the way it goes.
    pub fn draw(&mut self) -> (&[u8], Direction) {
        let direction = one(&mut self.rng, &Direction::ALL);
        self.frame.clear();
        match self.rng.u32(..32) {
            0 => self.noise(),
            1..26 => self.well_formed(),
            26..30 => self.spoiled(),
            _ => self.cut(),
        }
        if self.frame.len() < SHORTEST {
            self.frame.resize(SHORTEST, 0);
        }
        (&self.frame, direction)
    }

    fn noise(&mut self) {
        let length = self.rng.usize(..120);
        self.frame.resize_with(length, || self.rng.u8(..));
    }

    fn spoiled(&mut self) {
        self.well_formed();
        for _ in 0..self.rng.u32(1..3) {
            // The first bytes decide nothing, those in the middle most.
            let at = self.rng.usize(12..self.frame.len().min(100));
            self.frame[at] =
                if self.rng.bool() { self.rng.u8(..) } else { one(&mut self.rng, &[0, 0xff]) };
        }
    }

    fn cut(&mut self) {
        self.well_formed();
        let length = self.rng.usize(..self.frame.len());
        self.frame.truncate(length);
    }

    fn well_formed(&mut self) {
        self.frame.extend([2; 12]);
        let tags = one(&mut self.rng, &[0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3]);
        for tag in 0..tags {
            let tag_type = if tag == 0 && self.rng.bool() { 0x88a8_u16 } else { 0x8100 };
            self.push16(tag_type);
            self.push16(1);
        }
        match self.rng.u32(..32) {
            0 => self.other(),
            1..18 => self.v4(),
            _ => self.v6(),
        }
        if once_in(&mut self.rng, 4) {
            let padding = self.rng.usize(..20);
            self.frame.resize(self.frame.len() + padding, 0);
        }
    }

    fn push16(&mut self, value: u16) {
        self.frame.extend(value.to_be_bytes());
    }

    /// Writes `value` over what is at `at`.
    fn put16(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).unwrap_or(u16::MAX);
        self.frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn zeros(&mut self, count: usize) {
        self.frame.resize(self.frame.len() + count, 0);
    }

    fn other(&mut self) {
        let ether_type = one(&mut self.rng, &[0x0806_u16, 0x0806, 0x88cc, 0x8847, 0x8864, 0x0026]);
        self.push16(ether_type);
        self.zeros(46);
    }

    fn v4(&mut self) {
        self.push16(0x0800);
        let at = self.frame.len();
        let words = if once_in(&mut self.rng, 5) { self.rng.u8(6..=15) } else { 5 };
        self.frame.extend([0x40 | words, 0, 0, 0, 0, 1]);
        let fragment = one(
            &mut self.rng,
            &[0_u16, 0, 0, 0, 0x4000, 0x4000, 0x4000, 0x8000, 0x2000, 0x2001, 0x0003, 0x1fff],
        );
        self.push16(fragment);
        let number = self.number();
        self.frame.extend([64, number, 0, 0]);
        for _ in 0..2 {
            let address = self.v4_address();
            self.frame.extend(address.to_be_bytes());
        }
        self.zeros(usize::from(words) * 4 - 20);
        self.transport(number);
        self.put16(at + 2, self.frame.len() - at);
    }

    fn v6(&mut self) {
        self.push16(0x86dd);
        let at = self.frame.len();
        self.frame.extend([0x60, 0, 0, 0, 0, 0]);
        let count = match self.rng.u32(..8) {
            0 => self.rng.usize(..10),
            1 => self.rng.usize(..3),
            _ => 0,
        };
        let number = self.number();
        let hop_limit = one(&mut self.rng, &[64, 64, 255]);
        self.frame.extend([number, hop_limit]);
        for _ in 0..2 {
            let address = self.v6_address();
            self.frame.extend(address.to_be_bytes());
        }
        self.extensions(at + 6, count, number);
        self.transport(number);
        self.put16(at + 4, self.frame.len() - at - 40);
    }

    /// Headers that end with the protocol `number`; `names` is where the first is named.
    fn extensions(&mut self, mut names: usize, count: usize, number: u8) {
        for _ in 0..count {
            let kind = one(&mut self.rng, &[0_u8, 43, 60, 60, 51, 44]);
            self.frame[names] = kind;
            names = self.frame.len();
            let length = self.rng.u8(..3);
            match kind {
                44 => {
                    let fragment = one(&mut self.rng, &[0_u16, 0, 1, 1, 8, 9, 0xfff8, 6]);
                    self.frame.extend([number, 0]);
                    self.push16(fragment);
                    self.zeros(4);
                }
                51 => {
                    self.frame.extend([number, length + 2]);
                    self.zeros((usize::from(length) + 4) * 4 - 2);
                }
                _ => {
                    self.frame.extend([number, length]);
                    self.zeros((usize::from(length) + 1) * 8 - 2);
                }
            }
        }
    }

    fn number(&mut self) -> u8 {
        one(&mut self.rng, &[6, 6, 6, 17, 17, 17, 132, 1, 58, 58, 1, 47, 50, 135])
    }

    fn transport(&mut self, number: u8) {
        let at = self.frame.len();
        if matches!(number, 1 | 58) {
            let kind = one(&mut self.rng, &self.types);
            self.frame.extend([kind, 0, 0, 0]);
            let identifier = self.rng.u16(..);
            self.push16(identifier);
            self.push16(1);
        } else {
            for _ in 0..2 {
                let port = self.port();
                self.push16(port);
            }
            self.zeros(match number {
                6 => 16,
                17 => 4,
                _ => 8,
            });
        }
        if number == 6 {
            let words = if once_in(&mut self.rng, 4) { self.rng.u8(5..=15) } else { 5 };
            self.frame[at + 12] = words << 4;
            self.frame[at + 13] =
                one(&mut self.rng, &[0x02, 0x10, 0x12, 0x18, 0x11, 0x04, 0x14, 0x29, 0x00, 0xff]);
            self.zeros(usize::from(words) * 4 - 20);
        }
        let data = if once_in(&mut self.rng, 64) { 1400 } else { self.rng.usize(..24) };
        self.zeros(data);
        if number == 17 && !once_in(&mut self.rng, 16) {
            self.put16(at + 4, self.frame.len() - at);
        }
    }

    fn port(&mut self) -> u16 {
        if once_in(&mut self.rng, 6) { self.rng.u16(..) } else { one(&mut self.rng, &self.ports) }
    }

    /// In a network of the filter, or right behind it, or anywhere.
    fn v4_address(&mut self) -> u32 {
        if self.v4.is_empty() || once_in(&mut self.rng, 4) {
            return stray_v4(&mut self.rng);
        }
        let network = one(&mut self.rng, &self.v4);
        let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
        match self.rng.u32(..4) {
            0 => first,
            1 => last,
            2 if once_in(&mut self.rng, 2) => last.wrapping_add(1),
            _ => first | self.rng.u32(..) & (last - first),
        }
    }

    fn v6_address(&mut self) -> u128 {
        if self.v6.is_empty() || once_in(&mut self.rng, 4) {
            return stray_v6(&mut self.rng);
        }
        let network = one(&mut self.rng, &self.v6);
        let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
        match self.rng.u32(..4) {
            0 => first,
            1 => last,
            2 if once_in(&mut self.rng, 2) => last.wrapping_add(1),
            _ => first | self.rng.u128(..) & (last - first),
        }
    }
}
