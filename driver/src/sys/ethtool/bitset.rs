//! Sets of named bits (`Documentation/networking/ethtool-netlink.rst`, "Bit sets").
//!
//! Always in the verbose form, which names each bit: names are what a claim says, and the same bit
//! may have another number in the next kernel.

use std::collections::BTreeMap;

use crate::sys::generic::{Attribute, Writer};

// `enum`s of `include/uapi/linux/ethtool_netlink.h`.
const NOMASK: u16 = 1;
const BITS: u16 = 3;
const BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// Bits by name: those that a list names, or those that a mask covers with their values.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Bitset {
    /// A list of bits that are set, rather than values under a mask.
    pub(super) is_list: bool,
    pub(super) bits: BTreeMap<String, bool>,
}

impl Bitset {
    pub(super) fn decode(attribute: Attribute<'_>) -> Self {
        let mut bitset = Self::default();
        for part in attribute.nested() {
            match part.kind {
                NOMASK => bitset.is_list = true,
                BITS => {
                    let bits = part.nested().filter(|bit| bit.kind == BIT);
                    bitset.bits.extend(bits.filter_map(bit));
                }
                _ => {}
            }
        }
        if bitset.is_list {
            // In a list there is no value: what is named is set.
            bitset.bits.values_mut().for_each(|is_set| *is_set = true);
        }
        bitset
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.bits.get(name).copied().unwrap_or(false)
    }
}

fn bit(attribute: Attribute<'_>) -> Option<(String, bool)> {
    let mut name = None;
    let mut is_set = false;
    for part in attribute.nested() {
        match part.kind {
            BIT_NAME => name = part.text(),
            BIT_VALUE => is_set = true,
            _ => {}
        }
    }
    // Bits that have fallen out of use have a place and no name.
    Some((name.filter(|name| !name.is_empty())?.to_owned(), is_set))
}

/// The bits that are to be changed, as a value and a mask.
pub(super) fn encode(kind: u16, bits: &BTreeMap<String, bool>, writer: &mut Writer) {
    writer.nest(kind, |set| {
        set.nest(BITS, |list| {
            for (name, is_set) in bits {
                list.nest(BIT, |bit| {
                    bit.put_text(BIT_NAME, name);
                    if *is_set {
                        bit.put(BIT_VALUE, &[]);
                    }
                });
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::generic::find;

    #[test]
    fn bits_read_back_as_written() {
        let bits = BTreeMap::from([("rx-gro".to_owned(), true), ("tx-lockless".to_owned(), false)]);
        let mut writer = Writer::default();
        encode(4, &bits, &mut writer);
        let bytes = writer.finish();
        let bitset = Bitset::decode(find(&bytes, 4).unwrap());
        assert_eq!(bitset, Bitset { is_list: false, bits });
        assert!(bitset.has("rx-gro") && !bitset.has("tx-lockless") && !bitset.has("other"));
    }

    #[test]
    fn what_a_list_names_is_set() {
        let mut writer = Writer::default();
        writer.nest(4, |set| {
            set.put(NOMASK, &[]);
            set.nest(BITS, |list| list.nest(BIT, |bit| bit.put_text(BIT_NAME, "rx-gro")));
        });
        let bytes = writer.finish();
        assert!(Bitset::decode(find(&bytes, 4).unwrap()).has("rx-gro"));
    }
}
