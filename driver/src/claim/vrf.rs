//! The VRF that an interface shall be in.

use std::ops::RangeInclusive;

use super::interface;
use super::reader::{Leaf, Spot};
use crate::model::{Problems, TableId, Vrf};

/// All tables but the unspecified one.
pub(super) const TABLE: RangeInclusive<u32> = 1..=u32::MAX;
/// The kernel's own tables: default, main and local (`enum rt_class_t` in `linux/rtnetlink.h`).
const RESERVED: RangeInclusive<u32> = 253..=255;
pub(super) const FIELDS: [&str; 2] = ["name", "table"];

pub(super) fn read(spot: &Spot<'_>, problems: &mut Problems) -> Option<Vrf> {
    let vrf = spot.object(&FIELDS, problems)?;
    let name = vrf.required("name", problems).and_then(|spot| interface::name(&spot, problems));
    let table = Leaf::read(vrf.field("table"), |spot| table(spot, problems).map(Some));
    let (name, table) = (name, table.or(None)?);
    let name = name?;
    let table = table.unwrap_or_else(|| TableId(1000 + fnv1a(name.as_str()) % 1000));
    Some(Vrf { name, table })
}

fn table(spot: &Spot<'_>, problems: &mut Problems) -> Option<TableId> {
    let number = spot.integer(TABLE, problems)?;
    if RESERVED.contains(&number) {
        let message = format!("{number} is a table of the kernel, which no VRF can have");
        return spot.refuse(message, problems);
    }
    Some(TableId(number))
}

/// The hash by which DraNet, too, picks a table: FNV-1a of 32 bits.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the test vectors of the hash's authors.
    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(""), 0x811c_9dc5);
        assert_eq!(fnv1a("a"), 0xe40c_292c);
        assert_eq!(fnv1a("foobar"), 0xbf9c_f968);
    }
}
