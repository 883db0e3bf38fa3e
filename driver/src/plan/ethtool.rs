//! What a claim wants of the driver's settings against what the driver has: names resolved, limits
//! checked, nothing set that is so already.

use std::collections::BTreeMap;

use crate::model::{EthtoolSetting, EthtoolState, EthtoolWishes, Problems};

/// Names that ethtool(8) gives to groups of features, long and short, and the kernel's names that
/// they stand for; a `*` at the end stands for anything. From ethtool's manual and
/// `netdev_features_strings` (net/ethtool/common.c, Linux 6.12).
const GROUPS: [(&str, &str, &[&str]); 12] = [
    ("rx-checksumming", "rx", &["rx-checksum"]),
    ("tx-checksumming", "tx", &["tx-checksum-*"]),
    ("scatter-gather", "sg", &["tx-scatter-gather", "tx-scatter-gather-fraglist"]),
    (
        "tcp-segmentation-offload",
        "tso",
        &[
            "tx-tcp-segmentation",
            "tx-tcp-ecn-segmentation",
            "tx-tcp-mangleid-segmentation",
            "tx-tcp6-segmentation",
        ],
    ),
    ("udp-fragmentation-offload", "ufo", &["tx-udp-fragmentation"]),
    ("generic-segmentation-offload", "gso", &["tx-generic-segmentation"]),
    ("generic-receive-offload", "gro", &["rx-gro"]),
    ("large-receive-offload", "lro", &["rx-lro"]),
    ("rx-vlan-offload", "rxvlan", &["rx-vlan-hw-parse"]),
    ("tx-vlan-offload", "txvlan", &["tx-vlan-hw-insert"]),
    ("ntuple-filters", "ntuple", &["rx-ntuple-filter"]),
    ("receive-hashing", "rxhash", &["rx-hashing"]),
];

/// What to set for `wishes` on a device that is as `state`, in the order in which it can be set.
///
/// # Errors
///
/// Everything that the device does not have or cannot have so, each with its path.
pub fn settings(
    wishes: &EthtoolWishes,
    state: &EthtoolState,
) -> Result<Vec<EthtoolSetting>, Problems> {
    let mut problems = Problems::default();
    let features = features(&wishes.features, state, &mut problems);
    let flags = flags(&wishes.private_flags, state, &mut problems);
    let limit = |max: &BTreeMap<String, u32>, name: &str| max.get(name).copied();
    let rings = numbers("rings", &wishes.rings, &state.rings, &mut problems, |name| {
        limit(&state.rings_max, name)
    });
    let channels = numbers("channels", &wishes.channels, &state.channels, &mut problems, |name| {
        limit(&state.channels_max, name)
    });
    let none = |_: &str| None;
    let coalesce = numbers("coalesce", &wishes.coalesce, &state.coalesce, &mut problems, none);
    // Queues first: what else is set may be for each of them.
    let settings = [
        EthtoolSetting::Channels(channels),
        EthtoolSetting::Rings(rings),
        EthtoolSetting::Coalesce(coalesce),
        EthtoolSetting::PrivateFlags(flags),
        EthtoolSetting::Features(features),
    ];
    problems.or(settings.into_iter().filter(|setting| !setting.is_empty()).collect())
}

/// What brings a device back to `before`.
pub(super) fn restoring(before: &EthtoolState) -> Vec<EthtoolSetting> {
    let EthtoolState { features, private_flags, rings, channels, coalesce, .. } = before.clone();
    let settings = [
        EthtoolSetting::Channels(channels),
        EthtoolSetting::Rings(rings),
        EthtoolSetting::Coalesce(coalesce),
        EthtoolSetting::PrivateFlags(private_flags),
        EthtoolSetting::Features(features),
    ];
    settings.into_iter().filter(|setting| !setting.is_empty()).collect()
}

fn features(
    wishes: &BTreeMap<String, bool>,
    state: &EthtoolState,
    problems: &mut Problems,
) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::<String, bool>::new();
    for (wished, &on) in wishes {
        let path = format!("ethtool.features.{wished}");
        let meant = |all: &BTreeMap<String, bool>| -> Vec<(String, bool)> {
            let all = all.iter().filter(|(name, _)| means(wished, name));
            all.map(|(name, is)| (name.clone(), *is)).collect()
        };
        let (changeable, fixed) = (meant(&state.features), meant(&state.fixed_features));
        for (name, _) in &changeable {
            if found.insert(name.clone(), on).is_some_and(|other| other != on) {
                problems.add(path.clone(), format!("{name} is wished on and off"));
            }
        }
        // Of a group it is enough that some can be changed.
        if changeable.is_empty() {
            match fixed.first() {
                None => problems.add(path, "the device has no such feature"),
                Some((_, is)) if *is != on => {
                    let word = if on { "off" } else { "on" };
                    problems.add(path, format!("the device has it fixed to {word}"));
                }
                Some(_) => {}
            }
        }
    }
    found.retain(|name, on| state.features.get(name) != Some(on));
    found
}

/// Whether the word that a claim has for a feature means the one that the kernel calls `name`.
fn means(wished: &str, name: &str) -> bool {
    if wished == name {
        return true;
    }
    let group = GROUPS.iter().find(|(long, short, _)| wished == *long || wished == *short);
    group.is_some_and(|(_, _, names)| {
        names.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
    })
}

fn flags(
    wishes: &BTreeMap<String, bool>,
    state: &EthtoolState,
    problems: &mut Problems,
) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    for (name, on) in wishes {
        match state.private_flags.get(name) {
            None => problems
                .add(format!("ethtool.privateFlags.{name}"), "the device has no such private flag"),
            Some(is) if is != on => drop(found.insert(name.clone(), *on)),
            Some(_) => {}
        }
    }
    found
}

fn numbers(
    group: &str,
    wishes: &BTreeMap<String, u32>,
    now: &BTreeMap<String, u32>,
    problems: &mut Problems,
    max: impl Fn(&str) -> Option<u32>,
) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for (name, &wished) in wishes {
        let path = format!("ethtool.{group}.{name}");
        match (now.get(name), max(name)) {
            (None, _) => problems.add(path, "the device does not let it be set"),
            (_, Some(max)) if wished > max => {
                problems.add(path, format!("{wished} is above {max}, the device's limit"));
            }
            (Some(is), _) if *is != wished => drop(found.insert(name.clone(), wished)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bools(entries: &[(&str, bool)]) -> BTreeMap<String, bool> {
        entries.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect()
    }

    fn numbers(entries: &[(&str, u32)]) -> BTreeMap<String, u32> {
        entries.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    fn nic() -> EthtoolState {
        EthtoolState {
            features: bools(&[
                ("rx-gro", true),
                ("tx-tcp-segmentation", true),
                ("tx-tcp6-segmentation", true),
                ("tx-checksum-ipv4", true),
            ]),
            fixed_features: bools(&[("rx-lro", false), ("tx-checksum-sctp", true)]),
            private_flags: bools(&[("legacy-rx", false)]),
            rings: numbers(&[("rx", 256), ("tx", 256)]),
            rings_max: numbers(&[("rx", 4096), ("tx", 4096)]),
            channels: numbers(&[("combined", 2)]),
            channels_max: numbers(&[("combined", 8)]),
            coalesce: numbers(&[("rxUsecs", 3)]),
        }
    }

    fn wishing(features: &[(&str, bool)]) -> EthtoolWishes {
        EthtoolWishes { features: bools(features), ..EthtoolWishes::default() }
    }

    fn refused(wishes: &EthtoolWishes) -> String {
        settings(wishes, &nic()).unwrap_err().to_string()
    }

    #[test]
    fn a_group_of_features_means_those_that_the_device_has() {
        let both = bools(&[("tx-tcp-segmentation", false), ("tx-tcp6-segmentation", false)]);
        for name in ["tso", "tcp-segmentation-offload"] {
            let set = settings(&wishing(&[(name, false)]), &nic()).unwrap();
            assert_eq!(set, [EthtoolSetting::Features(both.clone())], "{name}");
        }
        let set = settings(&wishing(&[("tx", false)]), &nic()).unwrap();
        assert_eq!(set, [EthtoolSetting::Features(bools(&[("tx-checksum-ipv4", false)]))]);
    }

    #[test]
    fn what_is_so_already_is_not_set() {
        let wishes = EthtoolWishes {
            rings: numbers(&[("rx", 256)]),
            ..wishing(&[("gro", true), ("rx-lro", false)])
        };
        assert_eq!(settings(&wishes, &nic()), Ok(Vec::new()));
    }

    #[test]
    fn what_the_device_cannot_do_is_told_all_at_once() {
        let wishes = EthtoolWishes {
            private_flags: bools(&[("turbo", true)]),
            rings: numbers(&[("rx", 5000), ("rxMini", 1)]),
            channels: numbers(&[("combined", 4)]),
            ..wishing(&[("lro", true), ("warp", true)])
        };
        assert_eq!(
            refused(&wishes),
            "ethtool.features.lro: the device has it fixed to off; \
             ethtool.features.warp: the device has no such feature; \
             ethtool.privateFlags.turbo: the device has no such private flag; \
             ethtool.rings.rx: 5000 is above 4096, the device's limit; \
             ethtool.rings.rxMini: the device does not let it be set"
        );
    }

    #[test]
    fn one_feature_cannot_be_on_and_off() {
        let wishes = wishing(&[("tso", false), ("tx-tcp-segmentation", true)]);
        assert!(refused(&wishes).contains("tx-tcp-segmentation is wished on and off"));
    }
}
