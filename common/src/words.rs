//! The closed sets: each value has a number for the maps and a word for people.

/// A closed set: `u8` numbers from zero without gaps, and a word for each.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All values, in the order of their numbers.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// One word, for labels, tables and JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words! {
    /// The way that a packet goes, as the pod sees it; also the index into both maps.
    Direction {
        Ingress = "ingress",
        Egress = "egress",
    }
}

words! {
    /// What became of a packet; also an index into [`Counters`](crate::Counters).
    Verdict {
        Allowed = "allowed",
        DeniedByRule = "denied_rule",
        DeniedByDefault = "denied_default",
        /// A rule with a limit matched, and there was more than that.
        DeniedByRate = "denied_rate",
        /// Cut off inside a header, or with lengths that cannot be. Whether it passed depends on
        /// the filter (see [`judge`](crate::judge)); it is counted here either way.
        Malformed = "malformed",
    }
}

words! {
    /// What a packet carries; also an index into [`Counters`](crate::Counters).
    Protocol {
        Tcp = "tcp",
        Udp = "udp",
        Sctp = "sctp",
        /// ICMP in IPv4. In IPv6 its number means nothing and counts as [`OtherIp`](Self::OtherIp).
        Icmp = "icmp",
        /// ICMPv6 in IPv6. In IPv4 its number means nothing and counts as
        /// [`OtherIp`](Self::OtherIp).
        Icmpv6 = "icmpv6",
        Arp = "arp",
        /// IP with another payload, or one that could not be reached.
        OtherIp = "other_ip",
        NotIp = "not_ip",
    }
}

words! {
    /// What a rule does with a packet, or the default with what no rule matched.
    Action {
        Allow = "allow",
        Deny = "deny",
        /// Allows as much as a rate permits, and denies the rest.
        RateLimit = "rateLimit",
        /// Counts, and leaves the decision to the rules behind it.
        Count = "count",
    }
}

words! {
    /// What the flags of a TCP header say about a connection; also an index into
    /// [`Counters`](crate::Counters). A packet may be more than one of them.
    TcpEvent {
        /// SYN without ACK.
        Syn = "syn",
        SynAck = "syn_ack",
        Fin = "fin",
        Rst = "rst",
    }
}

words! {
    /// What a packet has to do with fragmentation.
    Fragment {
        /// A whole packet.
        No = "no",
        First = "first",
        /// Not the first one, so without transport header.
        Later = "later",
    }
}

words! {
    /// An IP version.
    Family {
        V4 = "ipv4",
        V6 = "ipv6",
    }
}

impl Protocol {
    /// Whether its headers carry ports.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }
}
