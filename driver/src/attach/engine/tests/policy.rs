//! The laws of the operator's policy.

use super::*;
use crate::attach::{Changed, Ordered};
use crate::model::{
    Action, DatapathSpec, DefaultAction, Filter, OperatorPolicy, Origin, Overlay, Selection,
    Telemetry,
};
use crate::testing::rule;

/// Denies what comes in by a rule of this name.
pub(super) fn policy(name: &str) -> OperatorPolicy {
    let mut rule = rule(name, Action::Deny);
    rule.origin = Origin::Operator;
    let ingress = Overlay { default_action: None, rules: vec![rule] };
    OperatorPolicy { ingress: Some(ingress), egress: None }
}

pub(super) fn apply(engine: &mut Engine<FakeNode>) -> Result<Vec<Changed>, AttachError> {
    engine.set_policy(&of_pod(), Some(&policy("incident"))).map(|ordered| ordered.changed)
}

fn of_pod() -> Selection {
    Selection::Pod("default/pod-a".to_owned())
}

fn apply_everywhere(engine: &mut Engine<FakeNode>) -> Ordered {
    engine.set_policy(&Selection::All, Some(&policy("incident"))).unwrap()
}

/// Names of the ingress rules that a datapath carries out, and its generation.
fn in_force(spec: &DatapathSpec) -> (Vec<&str>, u32) {
    let ingress = spec.filter.as_ref().and_then(|filter| filter.ingress.as_ref());
    let rules = ingress.iter().flat_map(|direction| &direction.rules);
    (rules.map(|rule| rule.name.as_str()).collect(), spec.generation)
}

/// Both devices, with a rule of the claim's own on each.
pub(super) fn prepare_with_rules(engine: &mut Engine<FakeNode>) {
    let mut wanted = wanted(claim("claim-a"));
    for device in &mut wanted.devices {
        let ingress = DirectionFilter {
            default_action: DefaultAction::Allow,
            stateful: true,
            rules: vec![rule("web", Action::Allow)],
        };
        device.wishes.ebpf.filter = Some(Filter { ingress: Some(ingress), egress: None });
    }
    engine.prepare(&wanted).unwrap();
}

impl Bench {
    /// What runs is what is recorded, for each device; answers the rules and the generation.
    pub(super) fn agreed(&self) -> Vec<(Vec<String>, u32)> {
        let programs = self.node.snapshot().programs;
        let records = self.records();
        assert_eq!(programs.len(), records.len());
        let agreed = records.iter().map(|record| {
            assert!(record.build.is_known(), "{}", record.device.name);
            let spec = record.datapath.as_ref().unwrap();
            assert_eq!(programs[&record.id()], *spec);
            let (rules, generation) = in_force(spec);
            (rules.into_iter().map(str::to_owned).collect(), generation)
        });
        agreed.collect()
    }
}

pub(super) fn rules(names: &[&str], generation: u32) -> Vec<(Vec<String>, u32)> {
    vec![(names.iter().map(|name| (*name).to_owned()).collect(), generation); 2]
}

#[test]
fn a_policy_stands_before_the_claims_rules_until_it_is_cleared() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare_with_rules(engine);
        assert_eq!(bench.agreed(), rules(&["web"], 1));
        attach(engine).unwrap();

        assert_eq!(apply(engine).unwrap().len(), 2);
        assert_eq!(bench.agreed(), rules(&["incident", "web"], 2));
        engine.set_policy(&Selection::All, Some(&policy("second"))).unwrap();
        assert_eq!(bench.agreed(), rules(&["second", "web"], 3));

        engine.set_policy(&Selection::All, None).unwrap();
        assert_eq!(bench.agreed(), rules(&["web"], 4));
    });
    assert!(bench.records().iter().all(|record| record.policy.is_none()));
    assert_eq!(bench.phases(), ["attached"; 2]);
}

#[test]
fn a_policy_stays_through_restarts_detach_a_repeated_prepare_and_an_upgrade() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        attach(engine).unwrap();
        apply(engine).unwrap();
    });
    bench.run(None, |engine| {
        assert_eq!(bench.agreed(), rules(&["incident"], 2));
        engine.detach(&pod_a());
        prepare(engine).unwrap();
        attach(engine).unwrap();
        assert_eq!(bench.agreed(), rules(&["incident"], 2));
    });
    bench.run_build("build-2", None, |_| assert_eq!(bench.agreed(), rules(&["incident"], 2)));
    bench.run_build("build-2", None, |engine| engine.unprepare(&claim("claim-a").uid).unwrap());
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        assert_eq!(bench.agreed(), rules(&[], 1), "it went with the claim");
    });
}

#[test]
fn what_is_in_force_already_is_not_replaced() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        apply(engine).unwrap();
    });
    // The fault would strike at the first step.
    let again = bench.run(Some(Fault::DieBefore(0)), |engine| apply(engine).unwrap()).unwrap();
    assert!(again.iter().all(|changed| changed.took.is_zero()));
    assert_eq!(bench.agreed(), rules(&["incident"], 2));
}

#[test]
fn only_what_is_selected_changes() {
    let by = |selection: Selection| {
        let bench = Bench::new();
        bench.run(None, |engine| {
            prepare(engine).unwrap();
            engine.set_policy(&selection, Some(&policy("incident"))).map(|it| it.changed.len())
        })
    };
    let pod = |name: &str| Selection::Pod(name.to_owned());
    let claim = |name: &str| Selection::Claim(name.to_owned());
    let device = |name: &str| Selection::Device(name.to_owned());
    for both in [pod("default/pod-a"), pod("uid-pod-a"), claim("default/claim-a")] {
        assert!(matches!(by(both.clone()), Some(Ok(2))), "{both}");
    }
    assert!(matches!(by(claim("uid-claim-a")), Some(Ok(2))));
    assert!(matches!(by(device("eth2")), Some(Ok(1))));
    for none in [pod("pod-a"), pod("other/pod-a"), claim("default/claim-b"), device("net1")] {
        let Some(Err(error)) = by(none.clone()) else { panic!("{none}") };
        assert!(matches!(error, AttachError::NothingSelected { .. }), "{error}");
    }
}

#[test]
fn what_cannot_carry_a_policy_out_is_refused_and_named() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        let mut wanted = wanted(claim("claim-a"));
        wanted.devices[1].wishes.ebpf.telemetry = Telemetry::Off;
        engine.prepare(&wanted).unwrap();
        let error = apply(engine).unwrap_err();
        assert!(error.to_string().starts_with("device eth2 has no programs"), "{error}");
        // Everywhere means wherever there are programs.
        let Ordered { changed, refused } = apply_everywhere(engine);
        assert_eq!((changed.len(), refused.len()), (1, 0));
        let eth1 = Selection::Device("eth1".to_owned());

        attach(engine).unwrap();
        bench.node.remove_netns(netns(100).id);
        let error = engine.set_policy(&eth1, None).unwrap_err();
        assert!(matches!(error, AttachError::Unenforceable { .. }), "{error}");
        engine.detach(&pod_a());
        let error = engine.set_policy(&eth1, None).unwrap_err();
        assert!(error.to_string().ends_with("is detaching, try again"), "{error}");
    });
}

/// Whichever step fails, with or without an effect, the rules are those of before. No number names
/// two sets of rules.
#[test]
fn a_failed_policy_leaves_the_rules_as_they_were() {
    for moment in [Fault::FailAt as fn(usize) -> Fault, Fault::FailAfter] {
        for (failing, generations) in [(0, [4, 2]), (1, [4, 4])] {
            let bench = Bench::new();
            bench.run(None, |engine| {
                prepare_with_rules(engine);
                attach(engine).unwrap();
                engine.set_policy(&of_pod(), Some(&policy("first"))).unwrap();
            });
            let (mut world, mut records) = (bench.node.snapshot(), bench.records());

            let error = bench.run(Some(moment(failing)), |e| apply(e).unwrap_err()).unwrap();

            assert!(
                matches!(&error, AttachError::Step { residue, .. } if residue.is_empty()),
                "{error}"
            );
            for (record, generation) in records.iter_mut().zip(generations) {
                record.datapath.as_mut().unwrap().generation = generation;
                world.programs.get_mut(&record.id()).unwrap().generation = generation;
            }
            assert_eq!(bench.node.snapshot(), world, "step {failing}");
            assert_eq!(bench.records(), records, "step {failing}");
            bench.run(None, |engine| apply(engine).map(drop).unwrap()).unwrap();
            let agreed: Vec<_> = bench.agreed().into_iter().map(|(_, number)| number).collect();
            assert_eq!(agreed, generations.map(|generation| generation + 1));
        }
    }
}

/// Whichever cannot, and however late that is found out, the others have the policy.
#[test]
fn one_device_that_cannot_does_not_keep_the_node_from_a_policy() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare_with_rules(engine);
        let records = bench.records();
        bench.node.world().datapaths.remove(&records[0].id());
        let Ordered { changed, refused } = apply_everywhere(engine);
        assert_eq!((changed.len(), refused.len()), (1, 1));
        assert_eq!(changed[0].record.device.name, records[1].device.name);
        assert!(refused[0].to_string().starts_with("device eth1: its datapath"), "{}", refused[0]);
    });
    for failing in 0..2 {
        let bench = Bench::new();
        bench.run(None, prepare_with_rules);
        let ordered = bench.run(Some(Fault::FailAt(failing)), apply_everywhere).unwrap();
        assert_eq!((ordered.changed.len(), ordered.refused.len()), (1, 1));
        let mut expected = rules(&["incident", "web"], 2);
        expected[failing] = rules(&["web"], 3).remove(0);
        assert_eq!(bench.agreed(), expected);
    }
}

/// Whenever the driver dies while it changes a policy, the next one finishes it everywhere.
#[test]
fn a_crash_at_any_step_of_a_policy_is_finished_by_the_next_start() {
    for is_attached in [false, true] {
        crash_everywhere(|bench, fault| {
            bench.run(None, |engine| {
                prepare_with_rules(engine);
                if is_attached {
                    attach(engine).unwrap();
                }
            });
            let survived = bench.run(fault, |engine| apply(engine).map(drop).unwrap()).is_some();

            bench.run(None, |_| ());

            assert_eq!(bench.agreed(), rules(&["incident", "web"], 2), "{fault:?}");
            assert_eq!(bench.phases(), [if is_attached { "attached" } else { "prepared" }; 2]);
            survived
        });
    }
}

#[test]
fn a_policy_that_was_under_way_when_the_pod_ended_is_in_force_for_the_next() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        attach(engine).unwrap();
    });
    let died = bench.run(Some(Fault::DieBefore(0)), |engine| apply(engine).map(drop).unwrap());
    assert!(died.is_none());
    // The next start cannot replace the programs of the first device; the next attach does.
    bench.run(Some(Fault::FailAt(0)), |engine| {
        assert!(!bench.records()[0].build.is_known());
        engine.detach(&pod_a());
        attach(engine).map(drop).unwrap();
    });
    assert_eq!(bench.agreed(), rules(&["incident"], 2));
}

#[test]
fn a_pod_does_not_start_under_other_rules_than_those_recorded() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        let mut record = bench.records().remove(0);
        record.build = BuildId::default();
        engine.checkpoint.put([record]).unwrap();
        engine.node = bench.node.meeting(Some(Fault::FailAt(0)));
        let error = attach(engine).unwrap_err();
        assert!(matches!(error, AttachError::Stranded { .. }), "{error}");
        assert_eq!(bench.phases(), ["prepared"; 2]);
        attach(engine).unwrap();
    });
}

/// Leaves the programs of the first device half replaced: neither the new ones nor the former.
fn half_replaced(bench: &Bench) -> Engine<FakeNode> {
    let engine = bench.run(None, |engine| {
        prepare_with_rules(engine);
        attach(engine).map(drop).unwrap();
        let mut record = bench.records().remove(0);
        record.build = BuildId::default();
        record.datapath.as_mut().unwrap().generation = 3;
        engine.checkpoint.put([record]).unwrap();
    });
    assert!(engine.is_some());
    let (checkpoint, _) = Checkpoint::open(bench.state.path(), "boot-1").unwrap();
    Engine::new(bench.node.meeting(Some(Fault::FailAt(0))), checkpoint, BuildId("build-1".into()))
}

#[test]
fn what_could_not_be_put_back_is_tried_again() {
    let bench = Bench::new();
    let mut engine = half_replaced(&bench);
    assert!(engine.is_unsure());
    engine.mend();
    assert!(engine.is_unsure(), "the first try fails");
    engine.mend();
    assert!(!engine.is_unsure());
    let generations: Vec<_> = bench.agreed().into_iter().map(|(_, number)| number).collect();
    assert_eq!(generations, [3, 1]);
    assert_eq!(bench.phases(), ["attached"; 2]);
}

#[test]
fn what_is_nowhere_is_not_mended_but_left_to_its_end() {
    let bench = Bench::new();
    let mut engine = half_replaced(&bench);
    bench.node.remove_netns(netns(100).id);
    engine.mend();
    assert_eq!(bench.phases(), ["attached"; 2]);
    assert!(engine.is_unsure());
}

/// Nobody asks for anything meanwhile.
#[tokio::test]
async fn the_worker_mends_unasked() {
    let bench = Bench::new();
    let mut engine = half_replaced(&bench);
    engine.pause = Duration::from_millis(1);
    let worker = engine.start().unwrap();
    let mut records = worker.watch();
    let is_mended = |records: &std::sync::Arc<Vec<Record>>| {
        records.iter().all(|record| record.build.is_known())
    };
    records.wait_for(is_mended).await.unwrap();
    assert_eq!(bench.agreed().len(), 2);
}
