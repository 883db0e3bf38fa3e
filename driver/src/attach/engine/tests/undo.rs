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
    let mut failing = 0;
    loop {
        let bench = bench();
        bench.run(None, |engine| prepare(engine).map(drop).unwrap());
        let before = bench.node.snapshot();
        let Err(error) = bench.run(Some(Fault::FailAt(failing)), attach).unwrap() else { break };
        assert!(
            matches!(&error, AttachError::Step { residue, .. } if residue.is_empty()),
            "step {failing}: {error}"
        );
        assert_eq!(bench.node.snapshot(), before, "after step {failing}");
        assert_eq!(bench.phases(), ["prepared", "prepared"], "after step {failing}");
        failing += 1;
    }
    assert!(failing >= 16, "two devices take more than {failing} steps");
}
