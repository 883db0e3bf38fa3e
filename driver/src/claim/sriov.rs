//! What the physical function is told of a virtual one that a pod gets.

use std::ops::RangeInclusive;

use super::reader::{Leaf, Spot};
use crate::model::{Problems, VfLinkState, VfVlan, VlanProtocol};

pub(super) const FIELDS: [&str; 6] =
    ["vlan", "trust", "spoofCheck", "minTxRateMbps", "maxTxRateMbps", "linkState"];
pub(super) const VLAN_FIELDS: [&str; 3] = ["id", "qos", "protocol"];
/// 0 is no VLAN, which takes one away that was set before; 4095 is reserved (IEEE 802.1Q).
pub(super) const VLAN_ID: RangeInclusive<u16> = 0..=4094;
/// Three bits of the tag.
pub(super) const QOS: RangeInclusive<u8> = 0..=7;
/// The kernel hands an `int` to drivers (`ndo_set_vf_rate`); 0 is no limit.
pub(super) const RATE: RangeInclusive<u32> = 0..=2_147_483_647;
pub(super) const PROTOCOLS: [(&str, VlanProtocol); 2] =
    [("802.1Q", VlanProtocol::Dot1Q), ("802.1ad", VlanProtocol::Dot1Ad)];
pub(super) const LINK_STATES: [(&str, VfLinkState); 3] = [
    ("auto", VfLinkState::Auto),
    ("enable", VfLinkState::Enable),
    ("disable", VfLinkState::Disable),
];

/// What one source says.
#[derive(Debug, Default)]
pub(super) struct SriovLayer {
    pub(super) vlan: Leaf<VfVlan>,
    pub(super) trust: Leaf<bool>,
    pub(super) spoof_check: Leaf<bool>,
    pub(super) min_rate: Leaf<u32>,
    pub(super) max_rate: Leaf<u32>,
    pub(super) link_state: Leaf<VfLinkState>,
}

impl SriovLayer {
    pub(super) fn read(spot: &Spot<'_>, problems: &mut Problems) -> Self {
        let Some(fields) = spot.object(&FIELDS, problems) else {
            return Self::default();
        };
        Self {
            vlan: Leaf::read(fields.field("vlan"), |spot| vlan(spot, problems)),
            trust: Leaf::read(fields.field("trust"), |spot| spot.flag(problems)),
            spoof_check: Leaf::read(fields.field("spoofCheck"), |spot| spot.flag(problems)),
            min_rate: Leaf::read(fields.field("minTxRateMbps"), |spot| {
                spot.integer(RATE, problems)
            }),
            max_rate: Leaf::read(fields.field("maxTxRateMbps"), |spot| {
                spot.integer(RATE, problems)
            }),
            link_state: Leaf::read(fields.field("linkState"), |spot| {
                spot.word(&LINK_STATES, problems)
            }),
        }
    }
}

fn vlan(spot: &Spot<'_>, problems: &mut Problems) -> Option<VfVlan> {
    let fields = spot.object(&VLAN_FIELDS, problems)?;
    let id = fields.required("id", problems).and_then(|spot| spot.integer(VLAN_ID, problems));
    let qos = Leaf::read(fields.field("qos"), |spot| spot.integer(QOS, problems)).or(0);
    let protocol = Leaf::read(fields.field("protocol"), |spot| spot.word(&PROTOCOLS, problems));
    let vlan = VfVlan { id: id?, qos: qos?, protocol: protocol.or(VlanProtocol::Dot1Q)? };
    // Drivers take "no VLAN" only so.
    if vlan.id == 0 && vlan != VfVlan::default() {
        return spot.refuse("id 0 is no VLAN, so it has neither qos nor protocol", problems);
    }
    Some(vlan)
}
