//! What of a device can be counted, and devices that several claims may share.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, DeviceCapacity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::model::{Device, IfName};

/// Which interfaces may be shared, and by how many claims each.
pub type Shares = BTreeMap<IfName, u32>;

/// What there is of a device that can be counted: its bandwidth in bits per second, where anybody knows
/// the link's speed, and the virtual functions that could still be made.
///
/// Of a device that `count` claims may share, each consumes one of its shares, and of its bandwidth what
/// it asks for. Who asks for none gets an equal part, so that the last share is not left without. How
/// many virtual functions are left is not told there: whoever asks for no part of a capacity without
/// a policy is given all of it.
///
/// The scheduler keeps this account; nothing here enforces it.
pub(super) fn capacity(
    device: &Device,
    domain: &str,
    count: Option<u32>,
) -> BTreeMap<String, DeviceCapacity> {
    let mut all = BTreeMap::new();
    let mut add = |name: &str, value, request_policy| {
        all.insert(format!("{domain}/{name}"), DeviceCapacity { value, request_policy });
    };
    if let Some(mbps) = device.speed_mbps.filter(|mbps| *mbps > 0) {
        add("bandwidth", megabits(mbps), count.map(|count| equal_parts(mbps, count)));
    }
    match count {
        Some(count) => {
            let one = || quantity(1);
            let policy = CapacityRequestPolicy {
                default: Some(one()),
                valid_values: Some(vec![one()]),
                valid_range: None,
            };
            add("shares", quantity(count.into()), Some(policy));
        }
        None => {
            if let Some(sriov) = device.sriov {
                let left = sriov.total_vfs.saturating_sub(sriov.num_vfs);
                add("virtualFunctions", quantity(left.into()), None);
            }
        }
    }
    all
}

fn equal_parts(mbps: u32, count: u32) -> CapacityRequestPolicy {
    CapacityRequestPolicy {
        default: Some(megabits((mbps / count.max(1)).max(1))),
        valid_range: Some(CapacityRequestPolicyRange {
            min: megabits(1),
            max: Some(megabits(mbps)),
            step: Some(megabits(1)),
        }),
        valid_values: None,
    }
}

fn megabits(mbps: u32) -> Quantity {
    quantity(u64::from(mbps) * 1_000_000)
}

/// In the form in which the API server would write it, or else each of our writes would look altered:
/// with the largest suffix that leaves a whole number (`CanonicalizeBytes` in
/// `k8s.io/apimachinery/pkg/api/resource`, Kubernetes 1.36).
fn quantity(amount: u64) -> Quantity {
    let mut number = amount;
    let mut suffix = "";
    for larger in ["k", "M", "G", "T", "P", "E"] {
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
    use crate::model::Sriov;

    #[test]
    fn quantities_are_written_in_their_canonical_form() {
        let written = [1, 25, 1000, 2500, 100_000, 400_000, 1_000_000].map(|mbps| megabits(mbps).0);
        assert_eq!(written, ["1M", "25M", "1G", "2500M", "100G", "400G", "1T"]);
        let amounts = |count, total_vfs| {
            let sriov = Some(Sriov { total_vfs, num_vfs: 0 });
            let all = capacity(&Device { sriov, ..device("eth1") }, "weir.dev", count);
            all.into_values().map(|it| it.value.0).collect::<Vec<_>>()
        };
        assert_eq!(amounts(Some(1000), 0), ["10G", "1k"]);
        assert_eq!(amounts(None, 2000), ["10G", "2k"]);
        assert_eq!(amounts(None, 1024), ["10G", "1024"]);
        assert_eq!(amounts(None, 0), ["10G", "0"]);
    }

    #[test]
    fn whoever_asks_for_nothing_gets_an_equal_part() {
        let fast = Device { speed_mbps: Some(25_000), ..device("eth1") };
        let capacity = capacity(&fast, "weir.dev", Some(8));
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
            let capacity = capacity(&slow, "weir.dev", Some(8));
            assert_eq!(capacity.keys().collect::<Vec<_>>(), ["weir.dev/shares"]);
        }
    }

    #[test]
    fn what_is_not_shared_has_plain_amounts() {
        let sriov = Some(Sriov { total_vfs: 64, num_vfs: 4 });
        let fast = Device { speed_mbps: Some(25_000), sriov, ..device("eth1") };
        let amounts = |count| {
            let all = capacity(&fast, "net.example", count).into_iter();
            all.map(|(name, it)| (name, it.value.0, it.request_policy.is_some()))
                .collect::<Vec<_>>()
        };
        let of = |name: &str, value: &str, policy| {
            (format!("net.example/{name}"), value.to_owned(), policy)
        };
        assert_eq!(
            amounts(None),
            [of("bandwidth", "25G", false), of("virtualFunctions", "60", false)]
        );
        assert_eq!(amounts(Some(2)), [of("bandwidth", "25G", true), of("shares", "2", true)]);
    }
}
