//! Source and destination of an IP packet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Family;

/// Both addresses of a packet, octet after octet as they lie in it. Those of IPv4 are the first
/// word: four octets of the source, four of the destination, and the other words are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Addresses(pub [u64; 4]);

// Octets are taken out of words by shifting.
const _: () = assert!(cfg!(target_endian = "little"));

impl Addresses {
    pub const NONE: Self = Self([0; 4]);

    #[inline(always)]
    pub(crate) const fn v4([source, destination]: [u32; 2]) -> Self {
        Self([join(source, destination), 0, 0, 0])
    }

    #[inline(always)]
    pub(crate) const fn v6([s0, s1, s2, s3, d0, d1, d2, d3]: [u32; 8]) -> Self {
        Self([join(s0, s1), join(s2, s3), join(d0, d1), join(d2, d3)])
    }

    /// Octet `n` of IPv4: of the source up to 3, of the destination from 4.
    #[inline(always)]
    pub(crate) const fn octet_v4(&self, n: usize) -> usize {
        (self.0[0] >> (8 * n)) as usize & 0xff
    }

    /// Octet `n` of IPv6: of the source up to 15, of the destination from 16.
    #[inline(always)]
    pub(crate) const fn octet_v6(&self, n: usize) -> usize {
        (self.0[n / 8] >> (8 * (n % 8))) as usize & 0xff
    }

    pub fn source(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from((self.0[0] as u32).to_le_bytes())),
            Family::V6 => v6(self.0[0], self.0[1]),
        }
    }

    pub fn destination(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(((self.0[0] >> 32) as u32).to_le_bytes())),
            Family::V6 => v6(self.0[2], self.0[3]),
        }
    }

    /// The other way round.
    #[inline(always)]
    #[must_use]
    pub const fn swapped(&self, family: Family) -> Self {
        let [w0, w1, w2, w3] = self.0;
        match family {
            Family::V4 => Self([w0.rotate_left(32), 0, 0, 0]),
            Family::V6 => Self([w2, w3, w0, w1]),
        }
    }

    /// A hash of the addresses and `rest`. Which bits of the input decide which of the output can
    /// only be told by who knows a secret in `rest`.
    #[inline(always)]
    pub(crate) const fn mixed(&self, rest: u64, is_v6: bool) -> u32 {
        // Odd numbers without a pattern (fractions of the golden ratio, of the roots of 2 and 3).
        const K0: u64 = 0x9e37_79b9_7f4a_7c15;
        const K1: u64 = 0xb504_f333_f9de_6485;
        const K2: u64 = 0xddb3_d742_c265_539d;
        let [w0, w1, w2, w3] = self.0;
        let mut hash = (w0 ^ rest).wrapping_mul(K0);
        if is_v6 {
            hash ^= hash >> 32;
            hash = (hash ^ w1 ^ w2.rotate_left(29)).wrapping_mul(K1);
            hash ^= hash >> 32;
            hash = (hash ^ w3).wrapping_mul(K0);
        }
        hash ^= hash >> 32;
        hash = (hash ^ rest).wrapping_mul(K2);
        (hash >> 32) as u32
    }
}

fn v6(first: u64, second: u64) -> IpAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&first.to_le_bytes());
    octets[8..].copy_from_slice(&second.to_le_bytes());
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// The 64-bit word of two 32-bit words that lie next to each other.
#[inline(always)]
const fn join(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}
