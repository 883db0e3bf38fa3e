//! A NIC that two pods share.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tests::node::Node;
use tests::runtime::Options;
use tests::sandbox::traffic::Route;

use super::configured::lines;
use super::snapshot::Snapshot;
use super::world::{
    PORT, answer_in, deploy, exchange, inside, looks, nothing_is_left, on_a_node, prepared_ids,
};
use crate::config::stage::ip;

fn upon(address: &str) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
        "interface": { "name": "net0", "addresses": [address] },
        "subinterface": { "type": "macvlan", "mode": "bridge" },
    })
}

/// Restarts the driver so that it publishes the first NIC for two.
fn share(node: &mut Node) {
    node.driver.stop().unwrap();
    node.driver.add("--share");
    node.driver.add("nic0=2");
    node.start_driver().unwrap();
}

fn macvlans() -> usize {
    ip(&["link", "show", "type", "macvlan"]).as_array().unwrap().len()
}

#[test]
fn two_pods_that_share_a_nic_reach_each_other_and_leave_it_as_it_was() {
    on_a_node(1, Options::default(), |node| {
        lines(&["link set nic0 down"]);
        share(node);
        let before = Snapshot::take();
        let pods = [("one", "198.18.0.10/24"), ("two", "198.18.0.11/24")]
            .map(|(name, address)| deploy(node, name, &[(0, upon(address))]));
        assert_eq!(pods[0].device(0), pods[1].device(0));
        let ids = pods.each_ref().map(|pod| prepared_ids(node, pod));
        assert_ne!(ids[0], ids[1]);
        assert_eq!(macvlans(), 2);
        let [one, two] = pods.each_ref().map(|pod| node.run_sandbox(&pod.pod).unwrap().0);
        assert_eq!(macvlans(), 0);
        assert!(looks(node, 0).unwrap().up, "nothing passes a macvlan whose parent is down");
        for (pod, ids) in pods.iter().zip(&ids) {
            drop(node.start_container(&pod.pod, ids).unwrap());
        }

        let route = |from: [u8; 4], to: [u8; 4]| Route {
            from: SocketAddr::from((from, 0)),
            to: SocketAddr::from((to, PORT)),
            pace: Duration::from_micros(500),
        };
        let echo = answer_in(&two);
        exchange(&one, route([198, 18, 0, 10], [198, 18, 0, 11]));
        echo.stop();

        let [first, second] = &pods;
        drop(one);
        first.end(node);
        assert!(inside(&two, "net0").is_some());
        assert!(looks(node, 0).unwrap().up, "the other pod needs it still");
        drop(two);
        second.end(node);
        assert_eq!(macvlans(), 0);
        before.is_as_now();
        nothing_is_left();
    });
}
