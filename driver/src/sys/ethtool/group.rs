//! Numbers that ethtool groups into one message: rings, channels, interrupt coalescing.

use std::collections::BTreeMap;

use crate::model::{CHANNELS, COALESCE, RINGS};
use crate::sys::generic::{Attribute, Writer, attributes};

/// One number: its name, its attribute, the attribute of its limit, and its width.
pub(super) struct Entry {
    pub(super) name: &'static str,
    kind: u16,
    limit: Option<u16>,
    width: Width,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Width {
    Byte,
    Word,
}

/// A group and the messages that read and set it.
pub(super) struct Group {
    pub(super) noun: &'static str,
    pub(super) get: u8,
    pub(super) set: u8,
    pub(super) entries: &'static [Entry],
}

const fn limited(name: &'static str, kind: u16, limit: u16) -> Entry {
    Entry { name, kind, limit: Some(limit), width: Width::Word }
}

const fn free(name: &'static str, kind: u16, width: Width) -> Entry {
    Entry { name, kind, limit: None, width }
}

// Message types and attributes are those of `include/uapi/linux/ethtool_netlink.h` (Linux 6.1; later
// ones only add some).

pub(super) const RING_SIZES: Group = Group {
    noun: "ring",
    get: 15,
    set: 16,
    entries: &[
        limited(RINGS[0], 6, 2),
        limited(RINGS[1], 7, 3),
        limited(RINGS[2], 8, 4),
        limited(RINGS[3], 9, 5),
    ],
};

pub(super) const QUEUES: Group = Group {
    noun: "channel",
    get: 17,
    set: 18,
    entries: &[
        limited(CHANNELS[0], 6, 2),
        limited(CHANNELS[1], 7, 3),
        limited(CHANNELS[2], 8, 4),
        limited(CHANNELS[3], 9, 5),
    ],
};

pub(super) const INTERRUPTS: Group = Group {
    noun: "coalescing parameter",
    get: 19,
    set: 20,
    entries: &[
        free(COALESCE[0], 2, Width::Word),
        free(COALESCE[1], 3, Width::Word),
        free(COALESCE[2], 6, Width::Word),
        free(COALESCE[3], 7, Width::Word),
        free(COALESCE[4], 11, Width::Byte),
        free(COALESCE[5], 12, Width::Byte),
    ],
};

/// The numbers of a group and their limits.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Numbers {
    pub values: BTreeMap<String, u32>,
    pub limits: BTreeMap<String, u32>,
}

impl Group {
    /// What a reply says; nothing of what it does not name.
    pub(super) fn decode(&self, reply: &[u8]) -> Numbers {
        let mut numbers = Numbers::default();
        for attribute in attributes(reply) {
            for entry in self.entries {
                if attribute.kind == entry.kind
                    && let Some(value) = entry.read(attribute)
                {
                    numbers.values.insert(entry.name.to_owned(), value);
                }
                if Some(attribute.kind) == entry.limit
                    && let Some(limit) = attribute.u32()
                {
                    numbers.limits.insert(entry.name.to_owned(), limit);
                }
            }
        }
        numbers
    }

    /// The names that are no entry of this group are the caller's to refuse.
    pub(super) fn encode(&self, values: &BTreeMap<String, u32>, writer: &mut Writer) {
        for entry in self.entries {
            if let Some(value) = values.get(entry.name) {
                match entry.width {
                    Width::Word => writer.put_u32(entry.kind, *value),
                    Width::Byte => writer.put(entry.kind, &[u8::from(*value != 0)]),
                }
            }
        }
    }
}

impl Entry {
    fn read(&self, attribute: Attribute<'_>) -> Option<u32> {
        match self.width {
            Width::Word => attribute.u32(),
            Width::Byte => attribute.u8().map(u32::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_as_written() {
        for group in [RING_SIZES, QUEUES, INTERRUPTS] {
            let values: BTreeMap<_, _> =
                group.entries.iter().map(|entry| (entry.name.to_owned(), 1)).collect();
            let mut writer = Writer::default();
            group.encode(&values, &mut writer);
            assert_eq!(group.decode(&writer.finish()).values, values, "{}", group.noun);
        }
    }

    #[test]
    fn limits_are_told_apart_from_values() {
        let mut writer = Writer::default();
        writer.put_u32(2, 4096);
        writer.put_u32(6, 512);
        let numbers = RING_SIZES.decode(&writer.finish());
        assert_eq!(numbers.values, BTreeMap::from([("rx".to_owned(), 512)]));
        assert_eq!(numbers.limits, BTreeMap::from([("rx".to_owned(), 4096)]));
    }
}
