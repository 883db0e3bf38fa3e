//! The laws of addresses that a DHCP server lends.

use super::*;
use crate::attach::{NoticeKind, Notices, Tenancy};
use crate::model::{Lease, RouteProtocol, Vrf};

/// `eth1` alone, with an address of a server's.
fn wanted_by_dhcp() -> PrepareClaim {
    let mut wanted = wanted(claim("claim-a"));
    wanted.devices.truncate(1);
    wanted.devices[0].wishes.interface.addresses = None;
    wanted.devices[0].wishes.interface.dhcp = true;
    wanted
}

/// An address, and a default route by `gateway`.
fn lease(address: &str, gateway: &str) -> Lease {
    Lease {
        address: address.parse().unwrap(),
        client: MacAddr([2, 0, 0, 0, 1, 1]),
        server: [192, 0, 2, 1].into(),
        server_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        routes: vec![Route {
            gateway: Some(gateway.parse().unwrap()),
            protocol: RouteProtocol::DHCP,
            ..Route::to("0.0.0.0/0".parse().unwrap())
        }],
        times: None,
    }
}

fn prepare_and_hold(engine: &mut Engine<FakeNode>) {
    let records = engine.prepare(&wanted_by_dhcp()).unwrap();
    let held = Tenancy::Held(lease("198.51.100.20/24", "198.51.100.1"));
    engine.set_lease(&records[0].id(), held).unwrap();
}

/// `eth1` was down before anybody asked for it.
fn with_eth1_down() -> (Bench, World) {
    let bench = Bench::new();
    let name: IfName = "eth1".parse().unwrap();
    {
        let mut world = bench.node.world();
        let nic = world.interfaces.get_mut(&None).unwrap().get_mut(&name).unwrap();
        nic.up = false;
        nic.routes.clear();
        nic.neighbors.clear();
    }
    let before = bench.node.snapshot();
    (bench, before)
}

fn net1(bench: &Bench) -> FakeInterface {
    let world = bench.node.snapshot();
    world.interfaces[&Some(netns(100).id)][&"net1".parse().unwrap()].clone()
}

#[test]
fn a_lent_address_comes_along_and_its_routes_make_way_for_those_of_the_claim() {
    let bench = Bench::new();
    bench
        .run(None, |engine| {
            let mut wanted = wanted_by_dhcp();
            let own = Route {
                gateway: Some("198.51.100.2".parse().unwrap()),
                ..Route::to("0.0.0.0/0".parse().unwrap())
            };
            wanted.devices[0].wishes.routes = vec![own.clone()];
            let vrf = Vrf { name: "red".parse().unwrap(), table: crate::model::TableId(1000) };
            wanted.devices[0].wishes.interface.vrf = Some(vrf.clone());
            let id = engine.prepare(&wanted).unwrap()[0].id();
            let mut lent = lease("198.51.100.20/24", "198.51.100.1");
            let other = Route { gateway: None, ..Route::to("203.0.113.0/24".parse().unwrap()) };
            lent.routes.push(other.clone());
            engine.set_lease(&id, Tenancy::Held(lent)).unwrap();
            attach(engine).unwrap();

            let inside = net1(&bench);
            assert_eq!(inside.addresses, ["198.51.100.20/24".parse().unwrap()]);
            let told: Vec<_> =
                inside.routes.iter().map(|r| (r.destination, r.gateway, r.table)).collect();
            assert_eq!(
                told,
                [(own.destination, own.gateway, vrf.table), (other.destination, None, vrf.table)]
            );
        })
        .unwrap();
}

#[test]
fn without_an_address_no_pod_starts() {
    let bench = Bench::new();
    bench
        .run(None, |engine| {
            engine.prepare(&wanted_by_dhcp()).unwrap();
            let before = bench.node.snapshot();
            let error = attach(engine).unwrap_err();
            assert!(matches!(error, AttachError::NoLease { .. }), "{error}");
            assert_eq!(bench.node.snapshot(), before);
            assert_eq!(bench.phases(), ["prepared"]);
        })
        .unwrap();
}

#[test]
fn another_lease_replaces_address_and_routes_and_a_lost_one_takes_them_away() {
    let bench = Bench::new();
    let (notices, mut told) = Notices::pair();
    bench
        .run(None, |engine| {
            engine.notices = Some(notices);
            prepare_and_hold(engine);
            attach(engine).unwrap();
            let id = bench.records()[0].id();
            let before = net1(&bench);

            let other = lease("198.51.100.21/24", "198.51.100.9");
            engine.set_lease(&id, Tenancy::Held(other.clone())).unwrap();
            let after = net1(&bench);
            assert_eq!(after.addresses, ["198.51.100.21/24".parse().unwrap()]);
            assert!(after.routes.contains(&other.routes[0]));
            assert_eq!(after.routes.len(), before.routes.len());

            engine.set_lease(&id, Tenancy::Lost("it has ended".to_owned())).unwrap();
            let after = net1(&bench);
            assert!(after.addresses.is_empty());
            assert!(!after.routes.contains(&other.routes[0]));
            assert_eq!(bench.records()[0].lease, None);
            let notice = told.try_recv().unwrap();
            assert_eq!(
                (notice.kind, notice.message.as_str()),
                (NoticeKind::LeaseLost, "it has ended")
            );

            engine.set_lease(&id, Tenancy::Held(other.clone())).unwrap();
            let again = net1(&bench);
            assert_eq!(again.addresses, ["198.51.100.21/24".parse().unwrap()]);
            assert!(again.routes.contains(&other.routes[0]));
        })
        .unwrap();
}

#[test]
fn a_lease_for_what_is_not_prepared_is_refused() {
    let bench = Bench::new();
    bench
        .run(None, |engine| {
            let id = prepare(engine).unwrap()[0].id();
            let held = Tenancy::Held(lease("198.51.100.20/24", "198.51.100.1"));
            let refused = |engine: &mut Engine<FakeNode>| {
                let error = engine.set_lease(&id, held.clone()).unwrap_err();
                assert!(matches!(error, AttachError::NoSuchDevice { .. }), "{error}");
            };
            refused(engine); // its claim does not wish one
            engine.unprepare(&claim("claim-a").uid).unwrap();
            refused(engine);
        })
        .unwrap();
}

#[test]
fn an_interface_that_was_down_is_up_for_its_lease_and_down_again_whenever_the_driver_dies() {
    silence_deaths();
    let uid = claim("claim-a").uid;
    for moment in [Fault::DieBefore as fn(usize) -> Fault, Fault::DieAfter] {
        for step in 0.. {
            let (bench, before) = with_eth1_down();
            let fault = Some(moment(step));
            let survived = bench.run(fault, |engine| {
                prepare_and_hold(engine);
                let eth1: IfName = "eth1".parse().unwrap();
                assert!(bench.node.snapshot().interfaces[&None][&eth1].up);
                attach(engine).unwrap();
                engine.detach(&pod_a());
                engine.unprepare(&uid).unwrap();
            });
            bench.run(None, |engine| {
                engine.synchronize(&[]);
                engine.unprepare(&uid).unwrap();
            });
            let after = bench.node.snapshot();
            assert_eq!(after.interfaces[&None], before.interfaces[&None], "{fault:?}");
            assert!(bench.records().is_empty(), "{fault:?}");
            if survived.is_some() {
                assert!(step > 10, "no step was ever reached");
                break;
            }
        }
    }
}

#[test]
fn a_release_that_fails_does_not_hold_up_the_claims_end() {
    let bench = Bench::new();
    bench.run(None, prepare_and_hold).unwrap();
    // The first step of unprepare.
    let uid = claim("claim-a").uid;
    bench.run(Some(Fault::FailAt(0)), |engine| engine.unprepare(&uid).unwrap()).unwrap();
    assert!(untouched(&bench.node.snapshot()));
    assert!(bench.records().is_empty());
}
