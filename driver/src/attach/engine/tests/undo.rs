//! What an undo needs that something else puts back.

use super::*;

/// IPv6 is off for new interfaces, as whoever runs the node may have said; those that are there have
/// it all the same.
fn bench() -> Bench {
    let bench = Bench::new();
    let mut world = bench.node.world();
    world.ipv6_is_off = true;
    for interface in world.interfaces.get_mut(&None).unwrap().values_mut() {
        interface.sysctls.insert("ipv6/disable_ipv6".to_owned(), "on".to_owned());
        interface.addresses.push(format!("fd00::{}/64", interface.index.0).parse().unwrap());
    }
    drop(world);
    bench
}

#[test]
fn a_failed_attach_puts_addresses_back_that_need_a_setting_first() {
    attach_without_a_trace(bench);
}

pub(super) fn thief() -> FakeInterface {
    let eth1 = Bench::new().node.snapshot().interfaces[&None][&"eth1".parse().unwrap()].clone();
    FakeInterface {
        identity: 90,
        index: IfIndex(90),
        addresses: Vec::new(),
        routes: Vec::new(),
        neighbors: Vec::new(),
        ..eth1
    }
}

#[test]
fn what_cannot_be_put_back_does_not_hold_up_the_pods_end() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        attach(engine).unwrap();
    });
    // Another interface of the host has got one of its routes meanwhile.
    let stolen =
        Bench::new().node.snapshot().interfaces[&None][&"eth2".parse().unwrap()].routes[0].clone();
    let thief = FakeInterface { routes: vec![stolen], ..thief() };
    bench.node.world().interfaces.get_mut(&None).unwrap().insert("eth9".parse().unwrap(), thief);
    bench.run(None, |engine| assert_eq!(engine.detach(&pod_a()).len(), 2));
    let residue: Vec<_> = bench.records().iter().map(|record| record.residue.len()).collect();
    assert_eq!(residue, [0, 1]);
    // As soon as it can be had, it is.
    bench.node.world().interfaces.get_mut(&None).unwrap().remove(&"eth9".parse().unwrap());
    bench.run(None, |engine| engine.unprepare(&claim("claim-a").uid).unwrap()).unwrap();
    assert!(untouched(&bench.node.snapshot()));
}
