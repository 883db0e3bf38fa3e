//! The laws of making virtual functions while everybody else is served.

use tokio::sync::mpsc::UnboundedReceiver;

use super::functions::{at_pci, make_vf, one, pci, physical_function};
use super::*;
use crate::attach::{Provisioned, Worker};
use crate::model::{Device, PfSelector, SriovRule};
use crate::plan::Provision;

fn rule(number: u8, num_vfs: u32) -> SriovRule {
    SriovRule { pf: PfSelector::PciAddress(pci(number)), num_vfs }
}

/// A driver that serves while the test goes on.
fn driver(bench: &Bench, fault: Option<Fault>) -> Worker {
    let (checkpoint, _) = Checkpoint::open(bench.state.path(), "boot-1").unwrap();
    let build = BuildId("build-1".to_owned());
    let mut engine = Engine::new(bench.node.meeting(fault), checkpoint, build);
    engine.settle();
    engine.start().unwrap()
}

async fn all(mut outcomes: UnboundedReceiver<Provisioned>) -> Vec<Provisioned> {
    let mut all = Vec::new();
    while let Some(outcome) = outcomes.recv().await {
        all.push(outcome);
    }
    all
}

fn is_pf(device: &mut Device) {
    at_pci(device, 0);
}

fn is_vf(device: &mut Device) {
    make_vf(device, 0);
}

#[tokio::test]
async fn virtual_functions_are_made_by_configuration_unless_a_claim_would_lose_one() {
    let bench = Bench::new();
    bench.node.world().physical_functions = vec![physical_function()];
    let count = || bench.node.world().physical_functions[0].num_vfs;
    let worker = driver(&bench, None);
    let set = Provision::Set { pf: pci(0), from: 0, to: 2 };
    let made = all(worker.provision(vec![rule(0, 2)])).await;
    assert_eq!(made, [Provisioned { decided: set, failure: None }]);
    assert_eq!(count(), 2);
    worker.prepare(one("a", "eth1", is_pf, Wishes::default())).await.unwrap();
    let refused = all(worker.provision(vec![rule(0, 4)])).await;
    assert!(matches!(refused[0].decided, Provision::Refuse { .. }), "{refused:?}");
    assert_eq!(count(), 2);
    assert_eq!(all(worker.provision(Vec::new())).await, []);
}

#[tokio::test]
async fn what_the_kernel_refuses_is_told_and_can_be_claimed_as_it_is() {
    let bench = Bench::new();
    bench.node.world().physical_functions = vec![physical_function()];
    let worker = driver(&bench, Some(Fault::FailAt(0)));
    let failed = all(worker.provision(vec![rule(0, 2)])).await;
    assert!(failed[0].failure.as_deref().unwrap().contains("injected"), "{failed:?}");
    assert_eq!(failed[0].outcome(), "failed");
    assert_eq!(bench.node.world().physical_functions[0].num_vfs, 0);
    // The fault is met by the first step of each thread.
    worker.prepare(one("a", "eth1", is_pf, Wishes::default())).await.unwrap_err();
    worker.prepare(one("a", "eth1", is_pf, Wishes::default())).await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_virtual_functions_but_who_wants_them() {
    let bench = Bench::new();
    bench.node.world().physical_functions = vec![physical_function()];
    let worker = driver(&bench, None);
    bench.node.hold_errands(true);
    let mut outcomes = worker.provision(vec![rule(0, 2), rule(7, 1)]);
    let unmatched = outcomes.recv().await.unwrap();
    assert_eq!(unmatched.outcome(), "unmatched", "it is told before the others are done");

    for (change, device) in [(is_pf as fn(&mut Device), "eth1"), (is_vf, "eth2")] {
        let error = worker.prepare(one("b", device, change, Wishes::default())).await.unwrap_err();
        assert_eq!(error.reason(), "provisioning", "{error}");
        assert!(error.to_string().contains("virtual functions of 0000:3b:00.0"), "{error}");
    }
    let again = all(worker.provision(vec![rule(0, 4)])).await;
    assert!(matches!(again[0].decided, Provision::Refuse { .. }), "{again:?}");
    // Another device gets into its pod, and out of it.
    worker.prepare(wanted(claim("claim-a"))).await.unwrap();
    assert_eq!(worker.attach(pod_a(), soon()).await.unwrap().len(), 2);
    assert_eq!(worker.detach(pod_a()).await.len(), 2);
    worker.unprepare(claim("claim-a").uid).await.unwrap();
    assert_eq!(bench.node.world().physical_functions[0].num_vfs, 0);

    bench.node.hold_errands(false);
    assert_eq!(outcomes.recv().await.unwrap().outcome(), "set");
    assert_eq!(outcomes.recv().await, None);
    worker.prepare(one("b", "eth1", is_pf, Wishes::default())).await.unwrap();
}

#[tokio::test]
async fn a_function_that_is_being_changed_does_not_keep_a_driver_from_stopping() {
    let bench = Bench::new();
    bench.node.world().physical_functions = vec![physical_function()];
    let worker = driver(&bench, None);
    bench.node.hold_errands(true);
    let mut outcomes = worker.provision(vec![rule(0, 2)]);
    // It has been served once this is answered.
    worker.synchronize(Vec::new()).await;
    let mut records = worker.watch();
    drop(worker);
    // The thread's own end of the records goes with it.
    assert!(records.changed().await.is_err());
    bench.node.hold_errands(false);
    assert_eq!(outcomes.recv().await, None);
}
