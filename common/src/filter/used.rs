//! What a filter looks at: a constant at load, so that the verifier removes the rest.

/// Features of one direction's filter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Used(pub u64);

impl Used {
    pub const NONE: Self = Self(0);

    /// There is a filter at all. The other bits are zero where not.
    pub const FILTER: Self = Self(1);
    /// More than [`NARROW`](super::NARROW) entries: rows instead of words.
    pub const WIDE: Self = Self(1 << 1);
    /// Some rule counts.
    pub const COUNT: Self = Self(1 << 2);
    /// Some rule has a rate limit.
    pub const LIMIT: Self = Self(1 << 3);
    pub const SOURCE_PORTS: Self = Self(1 << 4);
    /// Or ICMP types.
    pub const DESTINATION_PORTS: Self = Self(1 << 5);
    /// Replies to what went the other way are accepted.
    pub const STATEFUL: Self = Self(1 << 6);
    /// Some rule is there at all.
    pub const RULES: Self = Self(1 << 7);

    /// What no rule decides is denied.
    pub const DENY: Self = Self(1 << 48);

    /// Some octet of some address is looked at, or replies are.
    pub const ADDRESSED: Self = Self(0x0000_ffff_ffff_ff00 | Self::STATEFUL.0);

    const V4_SHIFT: usize = 8;
    const V6_SHIFT: usize = 16;

    /// Octet `n` of IPv4 addresses: of the source up to 3, of the destination from 4.
    #[inline(always)]
    pub const fn v4(n: usize) -> Self {
        Self(1 << (Self::V4_SHIFT + n))
    }

    /// Octet `n` of IPv6 addresses: of the source up to 15, of the destination from 16.
    #[inline(always)]
    pub const fn v6(n: usize) -> Self {
        Self(1 << (Self::V6_SHIFT + n))
    }

    /// A bit for each octet of IPv4 addresses, as in [`Self::v4`].
    #[inline(always)]
    pub(crate) const fn octets_v4(self) -> u32 {
        (self.0 >> Self::V4_SHIFT) as u32 & 0xff
    }

    /// A bit for each octet of IPv6 addresses, as in [`Self::v6`].
    #[inline(always)]
    pub(crate) const fn octets_v6(self) -> u32 {
        (self.0 >> Self::V6_SHIFT) as u32
    }

    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}
