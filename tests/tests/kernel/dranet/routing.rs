//! Routes, rules and neighbours: the host's that come along, and the claim's.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tests::runtime::Options;
use tests::sandbox::traffic::Route;

use super::{interface, ip_in, pair, run};
use crate::driver::configured::{has, lines};
use crate::driver::world::{PORT, answer_in, exchange, nothing_is_left, on_a_node};

#[test]
fn permanent_neighbor_entry_is_copied_to_pod_namespace() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy-neigh", &["addr add 169.254.169.15/32"]);
        let (v4, v6) = (["192.168.1.1", "00:11:22:33:44:55"], ["2001:db8::1", "00:aa:bb:cc:dd:ee"]);
        for [ip, mac] in [v4, v6] {
            lines(&[&format!("neigh add {ip} lladdr {mac} dev dummy-neigh nud permanent")]);
        }
        let wishes = json!({ "interface": { "name": "eth99" } });
        let (pod, netns) = run(node, "pod1", &[("dummy-neigh", wishes)]);
        let entry =
            |[ip, mac]: [&str; 2]| json!({ "dst": ip, "lladdr": mac, "state": ["PERMANENT"] });
        let found = ip_in(&netns, &["neigh", "show", "dev", "eth99", "nud", "permanent"]);
        has(&found, &[entry(v4), entry(v6)]);
        drop(netns);
        pod.end(node);
    });
}

#[test]
fn route_rules_and_routes_with_non_default_table_are_copied_to_pod_namespace() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy-rules", &["addr add 169.254.169.13/24"]);
        lines(&[
            "route add 10.10.10.0/24 via 169.254.169.1 dev dummy-rules table 100",
            "rule add from 10.20.30.0/24 table 100 priority 500",
        ]);
        let wishes = json!({ "interface": { "name": "eth99" } });
        let (pod, netns) = run(node, "pod1", &[("dummy-rules", wishes)]);
        has(
            &ip_in(&netns, &["route", "show", "table", "100"]),
            &[json!({ "dst": "10.10.10.0/24", "gateway": "169.254.169.1", "dev": "eth99" })],
        );
        has(
            &ip_in(&netns, &["rule", "show"]),
            &[json!({ "priority": 500, "src": "10.20.30.0", "srclen": 24, "table": "100" })],
        );
        drop(netns);
        pod.end(node);
    });
}

#[test]
fn dummy_interface_with_ipv6_subnet_route() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy-ipv6", &["-6 addr add fd36::3:0:e:0:0/96"]);
        let (pod, netns) = run(node, "pod-ipv6", &[("dummy-ipv6", json!({}))]);
        let routes = ip_in(&netns, &["-6", "route", "show", "fd36::3:0:e:0:0/96"]);
        let routes: Vec<_> = routes.as_array().unwrap().iter().collect();
        assert_eq!(routes.len(), 1, "{routes:#?}");
        assert_eq!((&routes[0]["protocol"], &routes[0]["metric"]), (&json!("2"), &json!(256)));
        drop(netns);
        pod.end(node);
    });
}

/// From pod to pod through a third one, by a table of its own.
#[test]
fn pbr_configuration() {
    on_a_node(0, Options::default(), |node| {
        pair("pbr-test-pod-1", "pbr-rtr-1");
        pair("pbr-test-pod-2", "pbr-rtr-2");
        let router = |name: &str, address: &str| {
            let wishes = json!({ "name": name, "addresses": [address], "forwarding": true });
            json!({ "interface": wishes })
        };
        let (to, via) = ("192.168.200.0/24", "192.168.100.2");
        let one = json!({
            "interface": { "name": "eth1", "addresses": ["192.168.100.10/24"] },
            "routes": [{ "destination": to, "gateway": via, "table": 100 }],
            "rules": [{ "priority": 1000, "source": "192.168.100.10/32", "table": 100 }],
        });
        let (pod_1, netns_1) = run(node, "pod-pbr-1", &[("pbr-test-pod-1", one)]);
        let (between, netns) = run(
            node,
            "pod-pbr-router",
            &[
                ("pbr-rtr-1", router("eth1", "192.168.100.2/24")),
                ("pbr-rtr-2", router("eth2", "192.168.200.2/24")),
            ],
        );
        // What answers is not bound to an address, so that no rule by source finds the way back.
        let two = json!({
            "interface": { "name": "eth1", "addresses": ["192.168.200.10/24"] },
            "routes": [{ "destination": "192.168.100.0/24", "gateway": "192.168.200.2" }],
        });
        let (pod_2, netns_2) = run(node, "pod-pbr-2", &[("pbr-test-pod-2", two)]);

        let echo = answer_in(&netns_2);
        let route = Route {
            from: SocketAddr::from(([192, 168, 100, 10], 0)),
            to: SocketAddr::from(([192, 168, 200, 10], PORT)),
            pace: Duration::from_micros(500),
        };
        exchange(&netns_1, route);
        echo.stop();
        // There is no other way than that table.
        let main = ip_in(&netns_1, &["route", "show", "192.168.200.0/24"]);
        assert_eq!(main, json!([]));

        drop((netns_1, netns, netns_2));
        for pod in [pod_1, between, pod_2] {
            pod.end(node);
        }
        nothing_is_left();
    });
}
