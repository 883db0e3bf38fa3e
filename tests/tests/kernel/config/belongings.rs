//! What the host has on an interface, and what comes of it when the interface leaves.

use driver::model::{
    Belongings, Family, Neighbor, Route, RouteProtocol, RouteScope, Rule, SysctlName, TableId,
};
use driver::node::Node as _;
use driver::plan::{Observed, Step, Subject};
use ipnet::IpNet;

use super::stage::{ON_HOST, Stage, on_host};
use crate::bench::run;

fn ip(line: &str) {
    run("ip", &line.split(' ').collect::<Vec<_>>());
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn belongings(stage: &mut Stage) -> Belongings {
    let index = stage.index(ON_HOST);
    match stage.node.observe(&Subject::Belongings(index)).unwrap() {
        Observed::Belongings(belongings) => *belongings,
        other => panic!("{other:?}"),
    }
}

/// Everything that is asked for, and much that is not.
fn furnish() {
    for line in [
        "addr add 10.0.0.1/24 dev v0",
        "addr add fd00::1/64 dev v0 nodad",
        "addr add 10.1.0.1/24 dev v1",
        "route add default via 10.0.0.254 metric 100 proto dhcp",
        "route add 10.9.0.0/16 via 10.0.0.9 table 5000",
        "route add 10.0.0.0/24 dev v0 table 5000 src 10.0.0.1",
        "route add 10.8.0.0/16 via 192.0.2.1 dev v0 onlink",
        "-6 route add default via fd00::9 table 5000",
        "-6 route add fd09::/64 via fd00::9",
        // What cannot be said, or is not the interface's.
        "route add 10.7.0.0/16 via 10.1.0.9",
        "route add 10.6.0.0/16 nexthop via 10.0.0.9 nexthop via 10.1.0.9",
        "route add blackhole 10.5.0.0/16",
        "route add 10.4.0.0/16 via 10.0.0.9 tos 8",
        "-6 route add fd08::/64 via fd00::9 proto ra",
        "-6 route add fd07::/64 via fd00::9 expires 600",
        "rule add from 10.0.0.1 table 5000 priority 700",
        "-6 rule add from fd00::1 table 5000 priority 700",
        "rule add from 10.0.0.1 table 6000 priority 701",
        "rule add fwmark 1 table 5000 priority 702",
        "rule add from 10.0.0.1 lookup main priority 703",
        "neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev v0",
        "neigh add fd00::9 lladdr 02:00:00:00:00:09 dev v0",
        "neigh add 10.0.0.8 lladdr 02:00:00:00:00:08 dev v0 nud stale",
        "neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 dev v0 nud noarp",
        "neigh add proxy 10.0.0.6 dev v0",
        "neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev v1",
    ] {
        ip(line);
    }
    std::fs::write("/proc/sys/net/ipv4/conf/v0/arp_ignore", "2").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/v0/accept_ra", "0").unwrap();
}

fn via(destination: &str, gateway: &str) -> Route {
    Route {
        gateway: Some(gateway.parse().unwrap()),
        // What ip(8) says of its own accord.
        protocol: RouteProtocol(3),
        ..Route::to(net(destination))
    }
}

fn expected() -> Belongings {
    let rule = |family, source: &str| Rule {
        family,
        priority: 700,
        source: Some(net(source)),
        destination: None,
        table: TableId(5000),
    };
    let neighbor = |address: &str| Neighbor {
        destination: address.parse().unwrap(),
        mac: "02:00:00:00:00:09".parse().unwrap(),
    };
    let sysctl = |family, name: &str, value: &str| {
        (SysctlName { family, name: name.to_owned() }, value.to_owned())
    };
    Belongings {
        routes: vec![
            Route {
                source: "10.0.0.1".parse().ok(),
                scope: RouteScope::LINK,
                table: TableId(5000),
                gateway: None,
                ..via("10.0.0.0/24", "10.0.0.1")
            },
            Route {
                metric: Some(100),
                protocol: RouteProtocol(16),
                ..via("0.0.0.0/0", "10.0.0.254")
            },
            Route { onlink: true, ..via("10.8.0.0/16", "192.0.2.1") },
            Route { table: TableId(5000), ..via("10.9.0.0/16", "10.0.0.9") },
            Route { table: TableId(5000), ..via("::/0", "fd00::9") },
            via("fd09::/64", "fd00::9"),
        ],
        rules: vec![rule(Family::Ipv4, "10.0.0.1/32"), rule(Family::Ipv6, "fd00::1/128")],
        neighbors: vec![neighbor("10.0.0.9"), neighbor("fd00::9")],
        sysctls: vec![
            sysctl(Family::Ipv4, "arp_ignore", "2"),
            sysctl(Family::Ipv6, "accept_ra", "0"),
        ],
    }
}

#[test]
fn the_hosts_belongings_are_all_there_and_nothing_else() {
    on_host(|stage| {
        furnish();
        assert_eq!(belongings(stage), expected());
    });
}

#[test]
fn belongings_that_a_journey_cost_can_be_put_back_in_their_order() {
    on_host(|stage| {
        furnish();
        let at = Stage::on_host();
        let addresses = stage.state(&at).addresses;
        let had = belongings(stage);
        stage.enter_pod();
        stage.leave_pod();
        let left = belongings(stage);
        assert_eq!((left.routes.len(), left.neighbors.len(), left.sysctls.len()), (0, 0, 0));

        stage.node.apply(&Step::SetUp { at: at.clone() }).unwrap();
        let add =
            |address| Step::AddAddress { at: at.clone(), address, dad: driver::model::Dad::Skip };
        let routes = had.routes.iter().map(|r| Step::AddRoute { at: at.clone(), route: r.clone() });
        let neighbors =
            had.neighbors.iter().map(|n| Step::AddNeighbor { at: at.clone(), neighbor: *n });
        let sysctls = had.sysctls.iter().map(|(name, value)| Step::SetSysctl {
            place: at.place.clone(),
            name: format!(
                "{}/conf/v0/{}",
                if name.family == Family::Ipv4 { "ipv4" } else { "ipv6" },
                name.name
            ),
            value: value.clone(),
        });
        for step in addresses.into_iter().map(add).chain(routes).chain(neighbors).chain(sysctls) {
            stage.twice(&step);
        }
        assert_eq!(belongings(stage), had);
    });
}

#[test]
fn an_interface_that_is_not_there_has_nothing_and_that_is_an_error() {
    on_host(|stage| {
        let index = driver::model::IfIndex(9999);
        let error = stage.node.observe(&Subject::Belongings(index)).unwrap_err();
        assert!(error.message.contains("9999"), "{error}");
    });
}
