//! Sub-interfaces: made for an attachment, gone with it; several upon one device.

use super::undo::thief;
use super::*;
use crate::model::{MacvlanMode, SubinterfaceKind};

/// A share of eth1 for a claim and pod of its own.
fn share(number: u8) -> PrepareClaim {
    let mut wanted = wanted(claim(&format!("claim-{number}")));
    wanted.pod = pod(&format!("pod-{number}"));
    wanted.devices.truncate(1);
    let device = &mut wanted.devices[0];
    device.share = Some(format!("share-{number}").parse().unwrap());
    device.wishes.interface.mac = None;
    device.wishes.routes.clear();
    device.wishes.subinterface = Some(SubinterfaceKind::Macvlan { mode: MacvlanMode::Bridge });
    wanted
}

fn sandbox_of(number: u8) -> Sandbox {
    sandbox(&format!("sandbox-{number}"), &format!("pod-{number}"), u64::from(number) * 100)
}

fn made(world: &World) -> usize {
    world.interfaces[&None].keys().filter(|name| name.as_str().starts_with("weir-")).count()
}

fn set_parent_down(bench: &Bench) -> World {
    let mut world = bench.node.world();
    let host = world.interfaces.get_mut(&None).unwrap();
    let eth1 = host.get_mut(&"eth1".parse().unwrap()).unwrap();
    eth1.up = false;
    eth1.routes.clear();
    eth1.neighbors.clear();
    world.clone()
}

#[test]
fn two_claims_share_a_device_and_leave_it_as_it_was() {
    for is_down in [false, true] {
        let bench = Bench::new();
        if is_down {
            set_parent_down(&bench);
        }
        let fresh = bench.node.snapshot();
        bench.run(None, |engine| {
            for number in [1, 2] {
                engine.prepare(&share(number)).unwrap();
                engine.attach(&sandbox_of(number), soon()).unwrap();
            }
            let world = bench.node.snapshot();
            assert_eq!(
                (in_pod(&world, 100), in_pod(&world, 200)),
                (vec!["net1".to_owned()], vec!["net1".to_owned()])
            );
            assert_eq!((made(&world), world.cdi.len()), (0, 2));

            engine.detach(&sandbox_of(1));
            assert_eq!(made(&bench.node.snapshot()), 1);
            engine.unprepare(&claim("claim-1").uid).unwrap();
            let eth1 = &bench.node.snapshot().interfaces[&None][&"eth1".parse().unwrap()];
            assert!(eth1.up, "the other one needs it");
            engine.detach(&sandbox_of(2));
            engine.unprepare(&claim("claim-2").uid).unwrap();
        });
        assert_eq!(bench.node.snapshot(), fresh, "parent down: {is_down}");
        assert!(bench.records().is_empty());
    }
}

#[test]
fn a_device_is_shared_or_had_whole() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        engine.prepare(&share(1)).unwrap();
        let mut whole = wanted(claim("claim-a"));
        whole.devices.truncate(1);
        assert_eq!(engine.prepare(&whole).unwrap_err().reason(), "in_use");
        engine.unprepare(&claim("claim-1").uid).unwrap();
        engine.prepare(&whole).unwrap();
        assert_eq!(engine.prepare(&share(1)).unwrap_err().reason(), "in_use");
    });
}

#[test]
fn a_sub_interface_that_went_with_its_namespace_is_made_anew_for_the_next() {
    let bench = Bench::new();
    let fresh = bench.node.snapshot();
    bench.run(None, |engine| {
        engine.prepare(&share(1)).unwrap();
        engine.attach(&sandbox_of(1), soon()).unwrap();
    });
    bench.node.remove_netns(netns(100).id);
    // The next driver finds out, or the next sandbox.
    for start in [true, false] {
        let next = sandbox("sandbox-9", "pod-1", 200);
        if start {
            bench.run(None, |engine| engine.synchronize(&[]));
        }
        bench.run(None, |engine| {
            assert_eq!(engine.attach(&next, soon()).unwrap().len(), 1);
            assert_eq!(in_pod(&bench.node.snapshot(), 200), ["net1"]);
            assert_eq!(bench.node.snapshot().datapaths.len(), 1);
        });
        bench.node.remove_netns(netns(200).id);
        bench.node.add_netns(netns(200).id);
    }
    bench.run(None, |engine| engine.unprepare(&claim("claim-1").uid).unwrap()).unwrap();
    bench.node.add_netns(netns(100).id);
    assert_eq!(bench.node.snapshot(), fresh);
}

#[test]
fn hardware_that_the_kernel_had_to_call_something_else_comes_home() {
    let bench = Bench::new();
    for interface in bench.node.world().interfaces.get_mut(&None).unwrap().values_mut() {
        interface.is_hardware = true;
    }
    let fresh = bench.node.snapshot();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        attach(engine).unwrap();
    });
    // The name from the pod is somebody else's on the host by now.
    let name: IfName = "net1".parse().unwrap();
    bench.node.world().interfaces.get_mut(&None).unwrap().insert(name.clone(), thief());
    bench.node.remove_netns(netns(100).id);
    assert!(bench.node.snapshot().interfaces[&None].contains_key(&"dev0".parse().unwrap()));

    bench.run(None, |engine| assert_eq!(engine.detach(&pod_a()).len(), 0));
    bench.run(None, |engine| engine.unprepare(&claim("claim-a").uid).unwrap()).unwrap();
    bench.node.add_netns(netns(100).id);
    bench.node.world().interfaces.get_mut(&None).unwrap().remove(&name);
    assert_eq!(bench.node.snapshot(), fresh);
}
