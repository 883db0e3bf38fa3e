//! RDMA devices, beside an interface and alone.

use super::*;

/// An interface and its RDMA device.
fn beside() -> PrepareClaim {
    one("a", "eth1", |device| make_rdma(device, 0), wishes())
}

/// An RDMA device without an interface.
fn alone() -> PrepareClaim {
    one("a", "eth1", |device| make_rdma_only(device, 0), Wishes::default())
}

fn rdma_place(bench: &Bench) -> Option<crate::model::NetnsId> {
    bench.node.world().rdma["mlx5_0"].netns
}

#[test]
fn an_rdma_device_goes_with_its_interface_only_where_it_is_not_shared() {
    for is_exclusive in [false, true] {
        let bench = with_functions(is_exclusive);
        let fresh = bench.node.snapshot();
        bench.run(None, |engine| {
            engine.prepare(&beside()).unwrap();
            attach(engine).unwrap();
            assert_eq!(rdma_place(&bench), is_exclusive.then_some(netns(100).id));
            engine.detach(&pod_a());
            engine.unprepare(&claim("claim-a").uid).unwrap();
        });
        assert_eq!(bench.node.snapshot(), fresh);
    }
}

#[test]
fn devices_without_an_interface_are_handed_over_and_return() {
    let make = [make_rdma_only as fn(&mut Device, u32), make_vfio];
    for (make, nodes) in make.into_iter().zip([1, 2]) {
        let bench = with_functions(true);
        let fresh = bench.node.snapshot();
        bench.run(None, |engine| {
            let wanted = one("a", "eth1", |device| make(device, 0), Wishes::default());
            let prepared = engine.prepare(&wanted).unwrap();
            assert_eq!(bench.node.snapshot(), fresh, "nothing is to be prepared");
            assert_eq!(engine.prepare(&wanted).unwrap(), prepared);
            let attached = attach(engine).unwrap();
            assert_eq!(attach(engine).unwrap(), attached);
            assert_eq!(bench.node.world().cdi[&claim("claim-a").uid].devices[0].nodes.len(), nodes);
            engine.synchronize(&[pod_a()]);
            assert_eq!(bench.phases(), ["attached"]);
            assert_eq!(engine.detach(&pod_a()).len(), 1);
            assert!(bench.node.world().cdi.is_empty());
            engine.unprepare(&claim("claim-a").uid).unwrap();
        });
        assert_eq!(bench.node.snapshot(), fresh);
        assert!(bench.records().is_empty());
    }
}

#[test]
fn an_rdma_device_is_waited_for_until_its_namespace_is_gone() {
    let bench = with_functions(true);
    let fresh = bench.node.snapshot();
    bench.run(None, |engine| {
        engine.prepare(&alone()).unwrap();
        attach(engine).unwrap();
        bench.node.world().interfaces.remove(&Some(netns(100).id));
        assert!(engine.detach(&pod_a()).is_empty());
        bench.node.remove_netns(netns(100).id);
        engine.synchronize(&[]);
        assert_eq!(bench.phases(), ["prepared"]);
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert_eq!(bench.node.snapshot().rdma, fresh.rdma);
    assert!(bench.records().is_empty());
}

#[test]
fn an_rdma_device_is_not_forgotten_in_a_namespace_while_its_interface_is_home() {
    let bench = with_functions(true);
    let fresh = bench.node.snapshot();
    bench.run(None, |engine| {
        engine.prepare(&beside()).unwrap();
        attach(engine).unwrap();
        bench.node.world().is_rdma_stuck = true;
        assert!(engine.detach(&pod_a()).is_empty());
        assert!(bench.node.world().interfaces[&None].contains_key(&"eth1".parse().unwrap()));
        assert_eq!(bench.phases(), ["detaching"]);
        let error = engine.unprepare(&claim("claim-a").uid).unwrap_err();
        assert!(matches!(error, AttachError::Stranded { .. }), "{error}");
        bench.node.world().is_rdma_stuck = false;
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert_eq!(bench.node.snapshot(), fresh);
    assert!(bench.records().is_empty());
}

#[test]
fn an_rdma_device_that_ends_with_the_move_is_not_waited_for() {
    let bench = with_functions(true);
    let fresh = bench.node.snapshot();
    bench.run(None, |engine| {
        engine.prepare(&beside()).unwrap();
        bench.node.world().is_rdma_software = true;
        let error = attach(engine).unwrap_err().to_string();
        assert!(error.contains("mlx5_0: no such device"), "{error}");
        assert_eq!(bench.phases(), ["prepared"]);
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    let now = bench.node.snapshot();
    assert!(!now.rdma.contains_key("mlx5_0"));
    assert_eq!((now.interfaces, now.vfs), (fresh.interfaces, fresh.vfs));
    assert!(bench.records().is_empty());
}

#[test]
fn what_needs_an_interface_is_refused_by_its_field() {
    let bench = with_functions(false);
    bench.run(None, |engine| {
        let mut wishes = Wishes::default();
        wishes.interface.mtu = Some(9000);
        wishes.routes = super::wishes().routes;
        let wanted = one("a", "eth1", |device| make_rdma_only(device, 0), wishes);
        assert_eq!(
            engine.prepare(&wanted).unwrap_err().to_string(),
            "device eth1: interface.mtu: the device has no network interface; \
             routes: the device has no network interface"
        );
    });
}

fn files(bench: &Bench) -> Vec<String> {
    let nodes = &bench.node.world().cdi[&claim("claim-a").uid].devices[0].nodes;
    nodes.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

#[test]
fn containers_get_the_files_that_the_device_has_when_they_are_made() {
    let other = FakeRdma { index: 9, number: 0, netns: None };
    for (wanted, is_exclusive) in [(beside(), false), (beside(), true), (alone(), true)] {
        let bench = with_functions(is_exclusive);
        bench.node.world().rdma.insert("mlx5_9".to_owned(), other.clone());
        bench.run(None, |engine| {
            // Published as uverbs0.
            bench.node.world().rdma.get_mut("mlx5_0").unwrap().number = 4;
            engine.prepare(&wanted).unwrap();
            assert_eq!(
                bench.records()[0].device.rdma_nodes[0].to_str(),
                Some("/dev/infiniband/uverbs4")
            );
            bench.node.world().rdma.remove("mlx5_9");
            attach(engine).unwrap();
        });
        // Where it moves, it gets the number that has become free.
        let number = if is_exclusive { 0 } else { 4 };
        assert_eq!(files(&bench), [format!("/dev/infiniband/uverbs{number}")]);
        // Its driver is loaded anew while nobody is there.
        bench.node.world().rdma.get_mut("mlx5_0").unwrap().number = 6;
        bench.run(None, |engine| {
            assert_eq!(files(&bench), ["/dev/infiniband/uverbs6"]);
            engine.unprepare(&claim("claim-a").uid).unwrap();
        });
    }
}

fn rename_rdma(bench: &Bench, from: &str, to: &str) {
    let mut world = bench.node.world();
    let device = world.rdma.remove(from).unwrap();
    world.rdma.insert(to.to_owned(), device);
}

#[test]
fn containers_get_the_files_of_a_device_that_was_renamed() {
    for wanted in [beside(), alone()] {
        let bench = with_functions(true);
        let fresh = bench.node.snapshot();
        bench.run(None, |engine| {
            engine.prepare(&wanted).unwrap();
            rename_rdma(&bench, "mlx5_0", "roce0");
            attach(engine).unwrap();
        });
        assert_eq!(files(&bench), ["/dev/infiniband/uverbs0"]);
        rename_rdma(&bench, "roce0", "pods");
        bench.node.world().rdma.get_mut("pods").unwrap().number = 6;
        bench.run(None, |engine| {
            engine.settle();
            assert_eq!(files(&bench), ["/dev/infiniband/uverbs6"]);
            engine.unprepare(&claim("claim-a").uid).unwrap();
        });
        assert_eq!(bench.node.snapshot(), fresh);
    }
}

#[test]
fn nobody_is_attached_without_the_files_that_were_there_and_nobody_loses_them() {
    for wanted in [beside(), alone()] {
        let bench = with_functions(true);
        let fresh = bench.node.snapshot();
        bench.run(None, |engine| {
            engine.prepare(&wanted).unwrap();
            bench.node.world().is_rdma_without_files = true;
            let error = attach(engine).unwrap_err().to_string();
            assert!(error.contains("mlx5_0 has no files any more"), "{error}");
            assert!(error.contains("it had /dev/infiniband/uverbs0"), "{error}");
            assert_eq!(bench.phases(), ["prepared"]);
            assert_eq!(rdma_place(&bench), None);
            bench.node.world().is_rdma_without_files = false;
            attach(engine).unwrap();
            bench.node.world().is_rdma_without_files = true;
            engine.synchronize(&[pod_a()]);
            assert_eq!(files(&bench), ["/dev/infiniband/uverbs0"]);
        });
        bench.run(None, |engine| {
            engine.settle();
            assert_eq!(files(&bench), ["/dev/infiniband/uverbs0"]);
            engine.unprepare(&claim("claim-a").uid).unwrap();
        });
        bench.node.world().is_rdma_without_files = false;
        assert_eq!(bench.node.snapshot(), fresh);
    }
}
