//! What the kernel does by itself, on which plans and the fake node rely.

use driver::model::{Dad, Family, Neighbor, Route, Rule, Segments, TableId};
use driver::node::Node as _;
use driver::plan::{Observed, Step, Subject, Was};

use super::stage::{Stage, in_pod, on_host};

fn furnish(stage: &mut Stage) -> driver::model::Neighbor {
    let at = stage.in_pod();
    let neighbor = Neighbor {
        destination: "10.0.0.9".parse().unwrap(),
        mac: "02:00:00:00:00:09".parse().unwrap(),
    };
    let gateway = Some(neighbor.destination);
    for step in [
        Step::AddAddress {
            at: at.clone(),
            address: "10.0.0.1/24".parse().unwrap(),
            dad: Dad::Skip,
        },
        Step::AddAddress { at: at.clone(), address: "fd00::1/64".parse().unwrap(), dad: Dad::Skip },
        Step::AddRoute {
            at: at.clone(),
            route: Route { gateway, ..Route::to("10.9.0.0/16".parse().unwrap()) },
        },
        Step::AddRoute {
            at: at.clone(),
            route: Route {
                gateway: "fd00::9".parse().ok(),
                table: TableId(1000),
                ..Route::to("fd09::/64".parse().unwrap())
            },
        },
        Step::AddNeighbor { at: at.clone(), neighbor },
    ] {
        stage.twice(&step);
    }
    neighbor
}

/// IPv4 addresses stay, with them their local routes; all else that leads through it goes.
#[test]
fn setting_down_costs_routes_neighbours_and_ipv6_addresses() {
    in_pod(|stage| {
        let at = stage.in_pod();
        furnish(stage);
        stage.node.apply(&Step::SetDown { at: at.clone() }).unwrap();
        let seen = stage.seen(&at);
        assert_eq!(stage.state(&at).addresses, ["10.0.0.1/24".parse().unwrap()]);
        let through = seen.routes.as_array().unwrap().iter().filter(|r| r["type"] == "unicast");
        assert_eq!(through.count(), 0, "{:#}", seen.routes);
        assert_eq!(seen.neighbors, serde_json::json!([]), "{:#}", seen.neighbors);
    });
}

#[test]
fn neighbours_need_an_interface_that_is_up_no_more_than_addresses_do() {
    on_host(|stage| {
        stage.enter_pod();
        let at = stage.in_pod();
        let neighbor = Neighbor {
            destination: "10.0.0.9".parse().unwrap(),
            mac: "02:00:00:00:00:09".parse().unwrap(),
        };
        stage.twice(&Step::AddNeighbor { at: at.clone(), neighbor });
        stage.node.apply(&Step::SetUp { at: at.clone() }).unwrap();
        assert_eq!(stage.seen(&at).neighbors.as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_move_costs_sysctls_and_keeps_segments() {
    on_host(|stage| {
        let (host, pod) = (Stage::on_host(), stage.in_pod());
        let segments = stage.known(Segments {
            gso_max_size: Some(60_000),
            gro_max_size: Some(50_000),
            gso_ipv4_max_size: Some(30_000),
            gro_ipv4_max_size: Some(20_000),
        });
        stage.twice(&Step::SetSegments { at: host.clone(), segments });
        for name in ["ipv4/conf/v0/rp_filter", "ipv6/conf/v0/dad_transmits"] {
            let (place, name) = (host.place.clone(), name.to_owned());
            stage.twice(&Step::SetSysctl { place, name, value: "2".to_owned() });
        }
        stage.enter_pod();
        assert_eq!(stage.state(&pod).segments, segments);
        for name in ["ipv4/conf/XX/rp_filter", "ipv6/conf/XX/dad_transmits"] {
            let of = |whose: &str| stage.sysctl(&pod.place, &name.replace("XX", whose));
            assert_eq!(of("net1"), of("default"), "{name}");
        }
    });
}

#[test]
fn rules_stay_when_interfaces_go() {
    in_pod(|stage| {
        let place = stage.place();
        let rule = Rule {
            family: Family::Ipv4,
            priority: 500,
            source: None,
            destination: None,
            table: TableId(5),
        };
        let step = Step::AddRule { place, rule };
        stage.twice(&step);
        stage.leave_pod();
        assert_eq!(stage.node.apply(&step).unwrap(), Was::Same);
    });
}

/// After a rest nothing of the pod is kept: its namespace ends with its mount.
#[test]
fn a_rest_lets_go_of_the_pods_namespace() {
    in_pod(|stage| {
        let state = stage.state(&stage.in_pod());
        assert!(state.up);
        let peer = stage.index("v1");
        let netns = stage.netns();
        stage.node.rest();
        // The test's own descriptor goes by being replaced.
        stage.pod = crate::bench::MadeNetns::new();
        // The kernel takes a namespace down by and by, and a veth with it, both ends.
        crate::bench::until("the namespace to end", || {
            stage.host.link(&driver::model::By::Index(peer)).unwrap().is_none()
        });
        let subject = Subject::Interface {
            place: driver::model::Place::Pod(netns),
            by: driver::model::By::Name(state.name),
        };
        assert_eq!(stage.node.observe(&subject).unwrap(), Observed::Interface(None));
    });
}
