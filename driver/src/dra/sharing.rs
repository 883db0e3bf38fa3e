//! Devices that several claims may share, as the API wants to have them described.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, DeviceCapacity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::model::{Device, IfName};

/// Which interfaces may be shared, and by how many claims each.
pub type Shares = BTreeMap<IfName, u32>;

/// What claims consume of a device that `count` of them may share: one of its shares each, and of its
/// bandwidth, in bits per second, what they ask for. Who asks for none gets an equal part, so that
/// the last share is not left without. Where nobody knows the link's speed, no bandwidth is accounted.
///
/// The scheduler keeps this account; nothing here enforces it.
pub(super) fn capacity(
    device: &Device,
    driver: &str,
    count: u32,
) -> BTreeMap<String, DeviceCapacity> {
    let mut all = BTreeMap::new();
    let one = || Quantity("1".to_owned());
    let shares = DeviceCapacity {
        value: Quantity(count.to_string()),
        request_policy: Some(CapacityRequestPolicy {
            default: Some(one()),
            valid_values: Some(vec![one()]),
            valid_range: None,
        }),
    };
    all.insert(format!("{driver}/shares"), shares);
    if let Some(mbps) = device.speed_mbps.filter(|mbps| *mbps > 0) {
        let bandwidth = DeviceCapacity {
            value: megabits(mbps),
            request_policy: Some(CapacityRequestPolicy {
                default: Some(megabits((mbps / count.max(1)).max(1))),
                valid_range: Some(CapacityRequestPolicyRange {
                    min: megabits(1),
                    max: Some(megabits(mbps)),
                    step: Some(megabits(1)),
                }),
                valid_values: None,
            }),
        };
        all.insert(format!("{driver}/bandwidth"), bandwidth);
    }
    all
}

/// In the form in which the API server would write it, or else each of our writes would look altered.
fn megabits(mbps: u32) -> Quantity {
    let mut number = mbps;
    let mut suffixes = ["M", "G", "T"].into_iter();
    let mut suffix = suffixes.next().unwrap_or_default();
    for larger in suffixes {
        if number == 0 || !number.is_multiple_of(1000) {
            break;
        }
        (number, suffix) = (number / 1000, larger);
    }
    Quantity(format!("{number}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::device;

    #[test]
    fn quantities_are_written_in_their_canonical_form() {
        let written = [1, 25, 1000, 2500, 100_000, 400_000, 1_000_000].map(|mbps| megabits(mbps).0);
        assert_eq!(written, ["1M", "25M", "1G", "2500M", "100G", "400G", "1T"]);
    }

    #[test]
    fn whoever_asks_for_nothing_gets_an_equal_part() {
        let fast = Device { speed_mbps: Some(25_000), ..device("eth1") };
        let capacity = capacity(&fast, "weir.dev", 8);
        let bandwidth = &capacity["weir.dev/bandwidth"];
        assert_eq!(bandwidth.value.0, "25G");
        let policy = bandwidth.request_policy.as_ref().unwrap();
        assert_eq!(policy.default.as_ref().unwrap().0, "3125M");
        assert_eq!(capacity["weir.dev/shares"].value.0, "8");
    }

    #[test]
    fn a_link_without_a_speed_is_shared_by_count_alone() {
        for speed_mbps in [None, Some(0)] {
            let slow = Device { speed_mbps, ..device("eth1") };
            let capacity = capacity(&slow, "weir.dev", 8);
            assert_eq!(capacity.keys().collect::<Vec<_>>(), ["weir.dev/shares"]);
        }
    }
}
