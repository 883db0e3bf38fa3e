//! What the pod gets in the place of the device: an interface upon it.

use std::ops::RangeInclusive;

use super::reader::{Leaf, Object, Spot};
use crate::model::{IpvlanMode, MacvlanMode, Problems, SubinterfaceKind};

pub(super) const FIELDS: [&str; 3] = ["type", "mode", "vlanId"];
/// 0 is a priority without a network, 4095 is reserved (IEEE 802.1Q).
pub(super) const VLAN_ID: RangeInclusive<u16> = 1..=4094;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Type {
    Macvlan,
    Ipvlan,
    Vlan,
}

pub(super) const TYPES: [(&str, Type); 3] =
    [("macvlan", Type::Macvlan), ("ipvlan", Type::Ipvlan), ("vlan", Type::Vlan)];
pub(super) const MACVLAN_MODES: [(&str, MacvlanMode); 4] = [
    ("bridge", MacvlanMode::Bridge),
    ("private", MacvlanMode::Private),
    ("vepa", MacvlanMode::Vepa),
    ("passthru", MacvlanMode::Passthru),
];
pub(super) const IPVLAN_MODES: [(&str, IpvlanMode); 3] =
    [("l2", IpvlanMode::L2), ("l3", IpvlanMode::L3), ("l3s", IpvlanMode::L3s)];

pub(super) fn read(spot: &Spot<'_>, problems: &mut Problems) -> Option<SubinterfaceKind> {
    let fields = spot.object(&FIELDS, problems)?;
    let kind = fields.required("type", problems)?.word(&TYPES, problems)?;
    match kind {
        Type::Macvlan => {
            let mode = mode(&fields, &MACVLAN_MODES, problems);
            refuse(&fields, "vlanId", "goes with type vlan only", problems)?;
            Some(SubinterfaceKind::Macvlan { mode: mode? })
        }
        Type::Ipvlan => {
            let mode = mode(&fields, &IPVLAN_MODES, problems);
            refuse(&fields, "vlanId", "goes with type vlan only", problems)?;
            Some(SubinterfaceKind::Ipvlan { mode: mode? })
        }
        Type::Vlan => {
            let vlan_id = fields
                .required("vlanId", problems)
                .and_then(|spot| spot.integer(VLAN_ID, problems));
            refuse(&fields, "mode", "goes with type macvlan or ipvlan only", problems)?;
            Some(SubinterfaceKind::Vlan { vlan_id: vlan_id? })
        }
    }
}

fn mode<T: Copy + Default>(
    fields: &Object<'_>,
    modes: &[(&str, T)],
    problems: &mut Problems,
) -> Option<T> {
    Leaf::read(fields.field("mode"), |spot| spot.word(modes, problems)).or(T::default())
}

fn refuse(fields: &Object<'_>, field: &str, message: &str, problems: &mut Problems) -> Option<()> {
    match fields.field(field) {
        Some(spot) => spot.refuse(message, problems),
        None => Some(()),
    }
}
