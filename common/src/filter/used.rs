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

    /// At most `octets` leading octets of the addresses at one end are looked at. A prefix is what
    /// leads, so there is no octet that is looked at behind one that is not.
    pub const fn leading(end: End, octets: usize) -> Self {
        Self((octets as u64) << end.shift())
    }

    /// How many leading octets of the addresses at one end are looked at.
    ///
    /// A number that is compared with others, not a bit for each octet: with the constant known, all
    /// that is left of a comparison is nothing, and of a bit that is taken out of a word the taking.
    #[inline(always)]
    pub const fn octets(self, end: End) -> u32 {
        (self.0 >> end.shift()) as u32 & 0x1f
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

/// The addresses of one family at one end of packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    SourceV4,
    DestinationV4,
    SourceV6,
    DestinationV6,
}

impl End {
    const fn shift(self) -> u32 {
        match self {
            Self::SourceV4 => 8,
            Self::DestinationV4 => 16,
            Self::SourceV6 => 24,
            Self::DestinationV6 => 32,
        }
    }
}
