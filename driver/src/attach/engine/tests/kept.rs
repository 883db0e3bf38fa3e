//! The laws of a policy that outlives the node's boot.

use super::policy::{apply, policy, prepare_with_rules, rules};
use super::*;
use crate::model::{Action, HookWish, Selection};
use crate::testing::rule;

/// A node that restarted while both devices were in a pod under an operator's policy.
fn rebooted() -> Bench {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare_with_rules(engine);
        attach(engine).unwrap();
        apply(engine).map(drop).unwrap();
    });
    bench.reboot();
    bench
}

#[test]
fn a_policy_is_in_force_again_when_its_claim_is_prepared_after_a_reboot() {
    let bench = rebooted();
    // The driver starts twice before kubelet comes, and the node restarts once more.
    bench.run(None, |_| ()).unwrap();
    bench.run(None, |_| ()).unwrap();
    bench.reboot();
    bench.run(None, prepare_with_rules).unwrap();
    assert_eq!(bench.agreed(), rules(&["incident", "web"], 1));
    assert!(bench.records().iter().all(|record| record.policy == Some(policy("incident"))));
    bench.run(None, |engine| attach(engine).map(drop).unwrap()).unwrap();
    assert_eq!(bench.agreed(), rules(&["incident", "web"], 1));
}

#[test]
fn a_policy_is_not_lost_with_a_prepare_that_fails_or_is_cut_short() {
    let faults = [Fault::FailAt(1), Fault::DieBefore(1), Fault::DieAfter(2)];
    for fault in faults {
        let bench = rebooted();
        let failed = bench.run(Some(fault), |engine| prepare(engine).map(drop));
        assert!(!matches!(failed, Some(Ok(()))), "{fault:?}");
        bench.run(None, prepare_with_rules).unwrap();
        assert_eq!(bench.agreed(), rules(&["incident", "web"], 1), "{fault:?}");
    }
}

#[test]
fn what_was_cleared_or_unprepared_does_not_come_back() {
    let uid = claim("claim-a").uid;
    let ends: [fn(&mut Engine<FakeNode>); 4] = [
        |engine| {
            prepare_with_rules(engine);
            engine.set_policy(&Selection::All, None).map(drop).unwrap();
        },
        |engine| assert!(engine.set_policy(&Selection::All, None).unwrap().changed.is_empty()),
        |engine| engine.unprepare(&claim("claim-a").uid).unwrap(),
        |engine| {
            prepare_with_rules(engine);
            engine.unprepare(&claim("claim-a").uid).unwrap();
        },
    ];
    for end in ends {
        let bench = rebooted();
        bench.run(None, end).unwrap();
        bench.reboot();
        bench.run(None, prepare_with_rules).unwrap();
        assert_eq!(bench.agreed(), rules(&["web"], 1));
        bench.run(None, |engine| engine.unprepare(&uid).unwrap()).unwrap();
    }
}

#[test]
fn a_policy_is_for_the_claim_that_it_was_laid_over() {
    let bench = rebooted();
    bench.run(None, |engine| engine.prepare(&wanted(claim("claim-b"))).map(drop).unwrap()).unwrap();
    assert_eq!(bench.agreed(), rules(&[], 1));
}

#[test]
fn a_device_is_not_prepared_without_the_policy_that_it_had() {
    let bench = rebooted();
    bench.run(None, |engine| {
        let mut crowded = wanted(claim("claim-a"));
        for device in &mut crowded.devices {
            let rules = (0..4096).map(|number| rule(&format!("r{number}"), Action::Allow));
            device.wishes.ebpf.filter = Some(crate::model::Filter {
                ingress: Some(DirectionFilter {
                    default_action: crate::model::DefaultAction::Allow,
                    stateful: false,
                    rules: rules.collect(),
                }),
                egress: None,
            });
        }
        let mut bare = wanted(claim("claim-a"));
        bare.devices[0].wishes.ebpf.hook = HookWish::None;
        for wanted in [crowded, bare] {
            let error = engine.prepare(&wanted).unwrap_err();
            assert_eq!(error.reason(), "kept_policy", "{error}");
            assert!(error.to_string().contains("weir policy clear --claim uid-claim-a"), "{error}");
            assert!(untouched(&bench.node.snapshot()));
        }
        let of_claim = Selection::Claim("uid-claim-a".to_owned());
        assert!(engine.set_policy(&of_claim, None).unwrap().changed.is_empty());
        prepare(engine).unwrap();
    });
    assert_eq!(bench.agreed(), rules(&[], 1));
}
