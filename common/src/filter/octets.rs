//! Loops over octets, written out: the verifier removes octets that no rule asks for, and what is
//! left has no counter, no branch, and offsets that are constants.

/// Does `body` for each octet of an IPv4 address.
macro_rules! each_octet_v4 {
    ($n:ident => $body:expr) => {
        each_octet_v4!($n => $body; 0 1 2 3)
    };
    ($n:ident => $body:expr; $($octet:literal)+) => {
        $({
            const OCTET: usize = $octet;
            let $n = OCTET;
            $body
        })+
    };
}

/// Does `body` for each octet of an IPv6 address.
macro_rules! each_octet_v6 {
    ($n:ident => $body:expr) => {
        each_octet_v4!($n => $body;
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
}
