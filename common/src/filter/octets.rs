//! Loops over octets, written out: the verifier removes octets that no rule asks for, and what is
//! left has no counter, no branch, and offsets that are constants.

/// Does `body` for each octet of two IPv4 addresses.
macro_rules! each_octet_v4 {
    ($n:ident => $body:expr) => {
        each_octet_v4!($n => $body; 0 1 2 3 4 5 6 7)
    };
    ($n:ident => $body:expr; $($octet:literal)+) => {
        $({
            const OCTET: usize = $octet;
            let $n = OCTET;
            $body
        })+
    };
}

/// Does `body` for each octet of two IPv6 addresses.
macro_rules! each_octet_v6 {
    ($n:ident => $body:expr) => {
        each_octet_v4!($n => $body;
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
}
