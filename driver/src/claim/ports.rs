//! Ports and ranges of them.

use super::reader::{Spot, quote};
use crate::model::{PortRange, Problems};

/// One item of a list of ports: a number, or a text with a number or two.
pub(super) fn ports(spot: &Spot<'_>, problems: &mut Problems) -> Option<PortRange> {
    if let Some(number) = spot.value.as_number() {
        return match number.as_u64().and_then(port) {
            Some(port) => Some(PortRange { first: port, last: port }),
            None => spot.refuse(format_args!("{number} {NO_PORT}"), problems),
        };
    }
    let Some(text) = spot.value.as_str() else {
        return spot.refuse_type("a port or a range of ports", problems);
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (decimal(first).and_then(port), decimal(last).and_then(port)) {
        (Some(first), Some(last)) if first <= last => Some(PortRange { first, last }),
        (Some(first), Some(last)) => spot.refuse(format_args!("{first} is above {last}"), problems),
        (None, _) => spot.refuse(format_args!("{} {NO_PORT}", quote(first)), problems),
        (_, None) => spot.refuse(format_args!("{} {NO_PORT}", quote(last)), problems),
    }
}

const NO_PORT: &str = "is not a port (1 to 65535)";

fn port(number: u64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// Digits only: `str::parse` would take a sign as well.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
