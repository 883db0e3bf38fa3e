//! Settings of drivers, read back by the older interface of the kernel, by ioctl.

use std::collections::BTreeMap;

use driver::model::{At, EthtoolSetting, EthtoolState, Place};
use driver::node::Node as _;
use driver::plan::{Observed, Step, Subject, Was};
use driver::sys::ethtool::{Older, ask_older};

use super::stage::{Stage, in_pod, on_host};
use crate::bench::run;

/// What the kernel answers to a command, as numbers; the first is the command.
fn ask(interface: &str, command: Older) -> [u32; 32] {
    ask_older(&interface.parse().unwrap(), command).unwrap()
}

fn map<T: Copy>(entries: &[(&str, T)]) -> BTreeMap<String, T> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn settings(stage: &mut Stage, interface: &str) -> EthtoolState {
    match stage.node.observe(&Subject::Ethtool(interface.parse().unwrap())).unwrap() {
        Observed::Ethtool(settings) => *settings,
        other => panic!("{other:?}"),
    }
}

fn host(interface: &str) -> At {
    At { place: Place::Host, interface: interface.parse().unwrap() }
}

fn set(at: &At, setting: EthtoolSetting) -> Step {
    Step::SetEthtool { at: at.clone(), setting }
}

#[test]
fn features_are_switched_and_put_back() {
    on_host(|stage| {
        let at = Stage::on_host();
        let before = settings(stage, "v0");
        assert_eq!(before.fixed_features.get("rx-ntuple-filter"), Some(&false), "{before:?}");
        for (name, command) in [
            ("rx-gro", Older::Gro),
            ("tx-generic-segmentation", Older::Gso),
            ("rx-checksum", Older::RxChecksum),
        ] {
            let was_on = ask("v0", command)[1] == 1;
            assert_eq!(before.features[name], was_on, "{name}");
            let step = set(&at, EthtoolSetting::Features(map(&[(name, !was_on)])));
            let was = stage.twice(&step);
            assert_eq!(was, Was::Ethtool(EthtoolSetting::Features(map(&[(name, was_on)]))));
            assert_eq!(ask("v0", command)[1] == 1, !was_on, "{name}");
            stage.back(&step, &was);
            assert_eq!(ask("v0", command)[1] == 1, was_on, "{name}");
        }
        assert_eq!(settings(stage, "v0"), before);
    });
}

#[test]
fn only_what_differs_is_told_of() {
    on_host(|stage| {
        let at = Stage::on_host();
        let before = settings(stage, "v0").features;
        let (gro, tso) = (before["rx-gro"], before["tx-tcp-segmentation"]);
        let both = map(&[("rx-gro", gro), ("tx-tcp-segmentation", !tso)]);
        let was = stage.twice(&set(&at, EthtoolSetting::Features(both)));
        let changed = map(&[("tx-tcp-segmentation", tso)]);
        assert_eq!(was, Was::Ethtool(EthtoolSetting::Features(changed)));
    });
}

/// Segmentation of TCP needs checksums: the kernel keeps it off and says nothing.
#[test]
fn a_feature_that_does_not_take_is_named_and_the_others_are_put_back() {
    on_host(|stage| {
        let at = Stage::on_host();
        let off = map(&[("tx-checksum-ip-generic", false), ("tx-tcp-segmentation", false)]);
        stage.twice(&set(&at, EthtoolSetting::Features(off)));
        let before = settings(stage, "v0");
        let gro = before.features["rx-gro"];
        let wished = map(&[("rx-gro", !gro), ("tx-tcp-segmentation", true)]);
        let error = stage.refused(&set(&at, EthtoolSetting::Features(wished)));
        assert!(error.message.contains("did not take tx-tcp-segmentation"), "{error}");
        assert_eq!(settings(stage, "v0"), before);
        assert_eq!((ask("v0", Older::Tso)[1], ask("v0", Older::Gro)[1] == 1), (0, gro));
    });
}

/// Nor would anybody want to: it comes by itself with what it waits for.
#[test]
fn a_feature_that_waits_for_another_one_is_off_and_is_not_put_back_on() {
    on_host(|stage| {
        let at = Stage::on_host();
        let gather = |on| set(&at, EthtoolSetting::Features(map(&[("tx-scatter-gather", on)])));
        assert_eq!(ask("v0", Older::Gso)[1], 1);
        stage.twice(&gather(false));
        let before = settings(stage, "v0");
        assert!(!before.features["tx-generic-segmentation"]);
        let step = set(&at, EthtoolSetting::Features(before.features.clone()));
        assert_eq!(stage.node.apply(&step).unwrap(), Was::Same);
        assert_eq!(ask("v0", Older::Gso)[1], 0);
        stage.twice(&gather(true));
        assert_eq!(ask("v0", Older::Gso)[1], 1);
    });
}

#[test]
fn what_cannot_be_set_is_named_and_nothing_is_changed() {
    in_pod(|stage| {
        let at = stage.in_pod();
        let features = |entries: &[(&str, bool)]| EthtoolSetting::Features(map(entries));
        for (setting, words) in [
            (features(&[("rx-gro", true), ("rx-nonsense", true)]), "no feature rx-nonsense"),
            (features(&[("rx-ntuple-filter", true)]), "feature rx-ntuple-filter cannot be changed"),
            (EthtoolSetting::PrivateFlags(map(&[("a", true)])), "no private flag a"),
            (EthtoolSetting::Rings(map(&[("rx", 64)])), "no ring rx"),
            (EthtoolSetting::Channels(map(&[("combined", 2)])), "no channel combined"),
            (EthtoolSetting::Coalesce(map(&[("rxUsecs", 2)])), "no coalescing parameter rxUsecs"),
        ] {
            let error = stage.refused(&set(&at, setting));
            assert!(error.message.contains(words), "{error}");
        }
    });
}

#[test]
fn channels_are_set_and_put_back() {
    on_host(|stage| {
        let pair = "link add v2 numrxqueues 4 numtxqueues 4 type veth peer name v3";
        run("ip", &pair.split(' ').collect::<Vec<_>>());
        let at = host("v2");
        let before = settings(stage, "v2");
        assert_eq!(before.channels_max, map(&[("rx", 4), ("tx", 4)]));
        let wished = map(&[("rx", 3), ("tx", 2)]);
        let step = set(&at, EthtoolSetting::Channels(wished));
        // The command, four limits, then what is set.
        let now = || ask("v2", Older::Channels)[5..7].to_vec();
        let had = now();
        assert_ne!(had, [3, 2]);
        let was = stage.twice(&step);
        assert_eq!(now(), [3, 2]);
        stage.back(&step, &was);
        assert_eq!(now(), had);
        assert_eq!(settings(stage, "v2"), before);
        let error = stage.refused(&set(&at, EthtoolSetting::Channels(map(&[("rx", 5)]))));
        assert!(error.message.contains("exceeds maximum"), "{error}");
    });
}

#[test]
fn coalescing_is_set_and_put_back() {
    on_host(|stage| {
        run("ip", &["tuntap", "add", "dev", "tap0", "mode", "tap"]);
        let at = host("tap0");
        let before = settings(stage, "tap0").coalesce;
        let wished = EthtoolSetting::Coalesce(map(&[("rxFrames", 32)]));
        let step = set(&at, wished);
        let had = ask("tap0", Older::Coalesce)[2];
        assert_eq!(before, map(&[("rxFrames", had)]));
        let was = stage.twice(&step);
        assert_eq!(ask("tap0", Older::Coalesce)[2], 32);
        stage.back(&step, &was);
        assert_eq!(ask("tap0", Older::Coalesce)[2], had);
    });
}
