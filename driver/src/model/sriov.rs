//! What a physical function of SR-IOV is told about one of its virtual functions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{IfIndex, IfName, MacAddr, PciAddress};

/// A virtual function, as the interface of its physical one knows it.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VfPlace {
    pub pf: IfName,
    /// The interface that it was, whatever has its name by then.
    pub pf_index: IfIndex,
    /// As in `ip link set … vf 0`.
    pub number: u32,
}

impl fmt::Display for VfPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtual function {} of {}", self.number, self.pf)
    }
}

/// Settings of a virtual function that only its physical one can make. What is `None` is not said:
/// in a wish it stays as it is, of a function it is what the driver does not tell.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VfSettings {
    /// All zeroes leave it to the function. Never in a claim's `sriov`, which has
    /// `interface.hardwareAddr` for it.
    pub mac: Option<MacAddr>,
    pub vlan: Option<VfVlan>,
    pub trust: Option<bool>,
    pub spoof_check: Option<bool>,
    /// In megabits per second (10^6 bit/s); 0 is no limit.
    pub min_tx_rate_mbps: Option<u32>,
    pub max_tx_rate_mbps: Option<u32>,
    pub link_state: Option<VfLinkState>,
}

/// The VLAN that everything of a virtual function is in, without its knowing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VfVlan {
    /// 0 is none.
    pub id: u16,
    /// 0 to 7.
    pub qos: u8,
    pub protocol: VlanProtocol,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum VlanProtocol {
    #[default]
    #[serde(rename = "802.1Q")]
    Dot1Q,
    #[serde(rename = "802.1ad")]
    Dot1Ad,
}

/// Whether a virtual function sees a carrier.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum VfLinkState {
    /// As the physical function.
    #[default]
    Auto,
    Enable,
    Disable,
}

impl VfSettings {
    /// Leaves the choice of its address to the function.
    pub fn no_mac() -> Self {
        Self { mac: Some(MacAddr::default()), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What of these settings a function that is as `now` does not have yet.
    #[must_use]
    pub fn lacking(&self, now: &Self) -> Self {
        fn other<T: Copy + PartialEq>(wished: Option<T>, now: Option<T>) -> Option<T> {
            wished.filter(|_| wished != now)
        }
        Self {
            mac: other(self.mac, now.mac),
            vlan: other(self.vlan, now.vlan),
            trust: other(self.trust, now.trust),
            spoof_check: other(self.spoof_check, now.spoof_check),
            min_tx_rate_mbps: other(self.min_tx_rate_mbps, now.min_tx_rate_mbps),
            max_tx_rate_mbps: other(self.max_tx_rate_mbps, now.max_tx_rate_mbps),
            link_state: other(self.link_state, now.link_state),
        }
    }

    /// What a function that is as `now` has in place of these settings.
    #[must_use]
    pub fn replacing(&self, now: &Self) -> Self {
        Self {
            mac: self.mac.and(now.mac),
            vlan: self.vlan.and(now.vlan),
            trust: self.trust.and(now.trust),
            spoof_check: self.spoof_check.and(now.spoof_check),
            min_tx_rate_mbps: self.min_tx_rate_mbps.and(now.min_tx_rate_mbps),
            max_tx_rate_mbps: self.max_tx_rate_mbps.and(now.max_tx_rate_mbps),
            link_state: self.link_state.and(now.link_state),
        }
    }

    /// The field of the claim that is set here and that a function that is as `now` knows nothing
    /// of.
    pub fn unknown_to(&self, now: &Self) -> Option<&'static str> {
        let fields = [
            ("interface.hardwareAddr", self.mac.is_some() && now.mac.is_none()),
            ("sriov.vlan", self.vlan.is_some() && now.vlan.is_none()),
            ("sriov.trust", self.trust.is_some() && now.trust.is_none()),
            ("sriov.spoofCheck", self.spoof_check.is_some() && now.spoof_check.is_none()),
            (
                "sriov.minTxRateMbps",
                self.min_tx_rate_mbps.is_some() && now.min_tx_rate_mbps.is_none(),
            ),
            (
                "sriov.maxTxRateMbps",
                self.max_tx_rate_mbps.is_some() && now.max_tx_rate_mbps.is_none(),
            ),
            ("sriov.linkState", self.link_state.is_some() && now.link_state.is_none()),
        ];
        fields.into_iter().find(|(_, is_unknown)| *is_unknown).map(|(field, _)| field)
    }
}

/// What a physical function was told for an attachment, and what is put back after it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VfRecord {
    pub place: VfPlace,
    pub set: VfSettings,
    /// The same settings as they were.
    pub before: VfSettings,
    /// The interface's own address, where the physical function was told another one.
    pub own_mac: Option<MacAddr>,
}

/// An RDMA device. Its index stays the same in whatever namespace it is; its name can be changed
/// there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RdmaPlace {
    pub name: String,
    pub index: u32,
}

/// A physical function, as sysfs tells of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PfState {
    pub address: PciAddress,
    pub driver: Option<String>,
    /// Its interfaces on the host.
    pub interfaces: Vec<IfName>,
    /// What the host needs one of these interfaces for, if anything.
    pub needed: Option<String>,
    /// Four hexadecimal digits each.
    pub vendor: Option<String>,
    pub device: Option<String>,
    pub total_vfs: u32,
    pub num_vfs: u32,
    pub vfs: Vec<VfUse>,
}

/// What can be seen of whether a virtual function is in use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VfUse {
    pub address: PciAddress,
    pub driver: Option<String>,
    /// Whether an RDMA device is on it.
    pub has_rdma: bool,
    /// Its interfaces on the host, and whether each is up.
    pub interfaces: Vec<(IfName, bool)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(trust: Option<bool>, rate: Option<u32>) -> VfSettings {
        VfSettings { trust, max_tx_rate_mbps: rate, ..VfSettings::default() }
    }

    #[test]
    fn only_what_differs_is_lacking_and_only_what_is_set_is_replaced() {
        let (wished, now) = (settings(Some(true), Some(100)), settings(Some(true), Some(0)));
        assert_eq!(wished.lacking(&now), settings(None, Some(100)));
        assert_eq!(settings(None, Some(100)).replacing(&now), settings(None, Some(0)));
    }

    #[test]
    fn a_setting_that_the_driver_does_not_tell_is_not_known_to_it() {
        let now = settings(None, Some(0));
        assert_eq!(settings(Some(false), None).unknown_to(&now), Some("sriov.trust"));
        assert_eq!(settings(None, Some(1)).unknown_to(&now), None);
    }
}
