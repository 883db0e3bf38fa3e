//! Settings of the device's driver.

use std::ops::RangeInclusive;

use super::dranet::{Dialect, Fields};
use super::merge::{Entries, Entry};
use super::reader::{Leaf, Spot, quote};
use crate::model::{CHANNELS, COALESCE, Problems, RINGS};

pub(super) const FIELDS: Fields = Fields {
    ours: &["features", "privateFlags", "rings", "channels", "coalesce"],
    dranet: &["features", "privateFlags"],
};
/// Longest name of a feature or flag: `ETH_GSTRING_LEN` less the terminating NUL
/// (`linux/ethtool.h`).
pub(super) const LONGEST_NAME: usize = 31;
/// As many as a feature mask of the kernel has bits (`netdev_features_t`), and more flags than any
/// driver has: they are one word (`ethtool_get_flags`).
pub(super) const MOST_NAMES: usize = 64;
/// Descriptors of a ring that has to have some; the two for odd frames need none.
pub(super) const DESCRIPTORS: RangeInclusive<u32> = 1..=u32::MAX;
pub(super) const ODD_DESCRIPTORS: RangeInclusive<u32> = 0..=u32::MAX;
/// A queue's number has 16 bits in the kernel (`skb_get_queue_mapping()`).
pub(super) const QUEUES: RangeInclusive<u32> = 0..=65_535;
pub(super) const AMOUNT: RangeInclusive<u32> = 0..=u32::MAX;

#[derive(Debug, Default)]
pub(super) struct EthtoolLayer {
    pub(super) features: Leaf<Entries<String, bool>>,
    pub(super) private_flags: Leaf<Entries<String, bool>>,
    pub(super) rings: Leaf<Entries<String, u32>>,
    pub(super) channels: Leaf<Entries<String, u32>>,
    pub(super) coalesce: Leaf<Entries<String, u32>>,
}

impl EthtoolLayer {
    pub(super) fn read(spot: &Spot<'_>, dialect: Dialect, problems: &mut Problems) -> Self {
        let Some(ethtool) = dialect.object(spot, FIELDS, problems) else {
            return Self::default();
        };
        let field = |name| ethtool.field(name);
        Self {
            features: Leaf::read(field("features"), |spot| flags(spot, problems)),
            private_flags: Leaf::read(field("privateFlags"), |spot| flags(spot, problems)),
            rings: Leaf::read(field("rings"), |spot| numbers(spot, &RINGS, descriptors, problems)),
            channels: Leaf::read(field("channels"), |spot| channels(spot, problems)),
            coalesce: Leaf::read(field("coalesce"), |spot| {
                numbers(spot, &COALESCE, coalescing, problems)
            }),
        }
    }
}

/// What values a setting of a group has.
pub(super) enum Values {
    Number(RangeInclusive<u32>),
    /// On or off.
    Flag,
}

pub(super) type ValuesOf = fn(&str) -> Values;

pub(super) fn descriptors(name: &str) -> Values {
    Values::Number(if matches!(name, "rx" | "tx") { DESCRIPTORS } else { ODD_DESCRIPTORS })
}

pub(super) fn queues(_: &str) -> Values {
    Values::Number(QUEUES)
}

pub(super) fn coalescing(name: &str) -> Values {
    if matches!(name, "adaptiveRx" | "adaptiveTx") { Values::Flag } else { Values::Number(AMOUNT) }
}

fn flags(spot: &Spot<'_>, problems: &mut Problems) -> Option<Entries<String, bool>> {
    let map = spot.any_object(problems)?;
    let said = map.entries().count();
    if said > MOST_NAMES {
        return spot.refuse(format_args!("{said} names are more than {MOST_NAMES}"), problems);
    }
    let mut flags = Entries::new();
    for (name, spot) in map.entries() {
        let is_printable = |b: u8| b.is_ascii_graphic() || b == b' ';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_printable) {
            let rule = format!("1 to {LONGEST_NAME} printable ASCII characters");
            spot.refuse::<()>(format_args!("{} is no name: {rule}", quote(name)), problems);
            continue;
        }
        if let Some(value) = spot.flag(problems) {
            flags.insert(name.to_owned(), Entry { path: spot.path, value });
        }
    }
    (flags.len() == said).then_some(flags)
}

fn numbers(
    spot: &Spot<'_>,
    names: &[&str],
    values_of: ValuesOf,
    problems: &mut Problems,
) -> Option<Entries<String, u32>> {
    let group = spot.object(names, problems)?;
    let said = group.entries().count();
    let mut numbers = Entries::new();
    for (name, spot) in group.entries().filter(|(name, _)| names.contains(name)) {
        let value = match values_of(name) {
            Values::Number(range) => spot.integer(range, problems),
            Values::Flag => spot.flag(problems).map(u32::from),
        };
        if let Some(value) = value {
            numbers.insert(name.to_owned(), Entry { path: spot.path, value });
        }
    }
    (numbers.len() == said).then_some(numbers)
}

/// A direction without any queue is refused by the kernel (`ethnl_set_channels()` in
/// `net/ethtool/channels.c`, Linux 6.18); where the numbers here alone say that, it is told now.
fn channels(spot: &Spot<'_>, problems: &mut Problems) -> Option<Entries<String, u32>> {
    let channels = numbers(spot, &CHANNELS, queues, problems)?;
    let is_zero = |name: &str| channels.get(name).is_some_and(|entry| entry.value == 0);
    for direction in ["rx", "tx"] {
        if is_zero("combined") && is_zero(direction) {
            let message =
                format!("combined and {direction} are 0, so nothing has a queue for {direction}");
            return spot.refuse(message, problems);
        }
    }
    Some(channels)
}
