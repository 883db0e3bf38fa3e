//! Interfaces that look in the pod as their claims say.

use driver::sys::ethtool::{Older, ask_older};
use driver::sys::netns::Netns;
use serde_json::json;
use tests::node;
use tests::runtime::Options;

use super::{addresses, interface, ip_in, run, run_from_template, setting, status_has};
use crate::driver::configured::has;
use crate::driver::world::{claim_spec, nothing_is_left, on_a_node};

/// What the driver of an interface in a pod has switched on.
fn is_on(netns: &Netns, interface: &str, feature: Older) -> u32 {
    netns.run(|_| ask_older(&interface.parse().unwrap(), feature).unwrap()[1]).unwrap()
}

fn gets_its_address_as(host: &str) {
    on_a_node(0, Options::default(), |node| {
        interface(host, &[]);
        let wishes =
            json!({ "interface": { "name": "eth99", "addresses": ["169.254.169.13/32"] } });
        let (pod, netns) = run(node, "pod1", &[(host, wishes)]);
        let found = addresses(&netns, "eth99");
        assert!(found.contains("169.254.169.13"), "{found}");
        status_has(node, &pod, &["169.254.169.13/32"]);
        drop(netns);
        pod.end(node);
        nothing_is_left();
    });
}

#[test]
fn dummy_interface_with_ip_addresses_resource_claim() {
    gets_its_address_as("dummy0");
}

/// A name that cannot be a device's.
#[test]
fn dummy_interface_with_ip_addresses_resource_claim_and_normalized_name() {
    gets_its_address_as("mlx5_6");
}

#[test]
fn per_interface_arp_configuration() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &[]);
        let wishes =
            json!({ "interface": { "name": "dranet-arp", "arpIgnore": 1, "arpAnnounce": 2 } });
        let (pod, netns) = run(node, "pod-arp-test", &[("dummy0", wishes)]);
        for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
            // An interface gets the namespace's defaults when it comes in.
            assert_ne!(setting(&netns, &format!("ipv4/conf/default/{name}")), value);
            assert_eq!(setting(&netns, &format!("ipv4/conf/dranet-arp/{name}")), value);
        }
        drop(netns);
        pod.end(node);
    });
}

#[test]
fn dummy_interface_with_ip_addresses_resource_claim_template() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &["addr add 169.254.169.14/32"]);
        template(node, "one", &["dummy0"]);
        let (pod, netns) = run_from_template(node, "my-app", "one");
        let found = addresses(&netns, "dummy0");
        assert!(found.contains("169.254.169.14"), "{found}");
        status_has(node, &pod, &["169.254.169.14/32"]);
        drop(netns);
        pod.end(node);
        nothing_is_left();
    });
}

#[test]
fn two_dummy_interfaces_with_ip_addresses_resource_claim_template() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &["addr add 169.254.169.13/32"]);
        interface("dummy1", &["addr add 169.254.169.14/32"]);
        template(node, "two", &["dummy0", "dummy1"]);
        let (pod, netns) = run_from_template(node, "my-app", "two");
        for (interface, address) in [("dummy0", "169.254.169.13"), ("dummy1", "169.254.169.14")] {
            let found = addresses(&netns, interface);
            assert!(found.contains(address), "{found}");
        }
        status_has(node, &pod, &["169.254.169.13/32", "169.254.169.14/32"]);
        drop(netns);
        pod.end(node);
        nothing_is_left();
    });
}

/// A template of claims for these interfaces, as they are.
pub(super) fn template(node: &node::Node, name: &str, interfaces: &[&str]) {
    let wanted: Vec<_> = interfaces
        .iter()
        .enumerate()
        .map(|(nth, interface)| {
            super::attributes(node, interface);
            (format!("r{nth}"), (*interface).to_owned(), json!({}))
        })
        .collect();
    let template = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "spec": claim_spec(&wanted) },
    });
    node.server.apply(&template.to_string()).unwrap();
}

#[test]
fn dummy_interface_with_ip_addresses_resource_claim_and_routes() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &[]);
        let wishes = json!({
            "interface": { "name": "eth99", "addresses": ["169.254.169.13/32"] },
            "routes": [
                { "destination": "169.254.169.0/24", "gateway": "169.254.169.1" },
                { "destination": "169.254.169.1/32", "scope": 253 },
            ],
        });
        let (pod, netns) = run(node, "pod3", &[("dummy0", wishes)]);
        has(
            &ip_in(&netns, &["route", "show"]),
            &[
                json!({ "dst": "169.254.169.0/24", "gateway": "169.254.169.1", "dev": "eth99" }),
                json!({ "dst": "169.254.169.1", "dev": "eth99", "scope": "253" }),
            ],
        );
        status_has(node, &pod, &["169.254.169.13/32"]);
        drop(netns);
        pod.end(node);
    });
}

#[test]
fn metric_server_is_up_and_operating_on_host() {
    on_a_node(0, Options::default(), |_| {
        let started = node::scrape().unwrap().sum("process_start_time_seconds", &[]);
        assert!(started.is_some_and(|seconds| seconds > 1_577_000_000), "{started:?}");
    });
}

#[test]
fn advanced_network_configurations_with_dummy() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &[]);
        let wishes = json!({
            "interface": {
                "name": "dranet0", "addresses": ["169.254.169.14/24"], "mtu": 4321,
                "hardwareAddr": "00:11:22:33:44:55",
            },
            "ethtool": { "features": {
                "tcp-segmentation-offload": false, "generic-receive-offload": false,
                "large-receive-offload": false,
            }},
        });
        let (pod, netns) = run(node, "pod-advanced-cfg", &[("dummy0", wishes)]);
        let link = &ip_in(&netns, &["link", "show", "dev", "dranet0"])[0];
        assert_eq!((&link["mtu"], &link["address"]), (&json!(4321), &json!("00:11:22:33:44:55")));
        let found = addresses(&netns, "dranet0");
        assert!(found.contains("169.254.169.14"), "{found}");
        for feature in [Older::Tso, Older::Gro] {
            assert_eq!(is_on(&netns, "dranet0", feature), 0, "{feature:?}");
        }
        drop(netns);
        pod.end(node);
        nothing_is_left();
    });
}

#[test]
fn big_tcp_network_configurations_on_dummy_interface() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &[]);
        let wishes = json!({ "interface": {
            "name": "dranet1", "mtu": 8896, "gsoMaxSize": 65536, "groMaxSize": 65536,
            "gsoIPv4MaxSize": 65536, "groIPv4MaxSize": 65536,
        }});
        let (pod, netns) = run(node, "pod-bigtcp-test", &[("dummy0", wishes)]);
        let link = netns.run(|_| {
            let netlink = driver::sys::netlink::Netlink::open().unwrap();
            let by = driver::model::By::Name("dranet1".parse().unwrap());
            netlink.link(&by).unwrap().unwrap()
        });
        let (link, size) = (link.unwrap(), Some(65536));
        assert_eq!(link.mtu, 8896);
        let found = link.segments;
        assert_eq!((found.gso_max_size, found.gro_max_size), (size, size));
        assert_eq!((found.gso_ipv4_max_size, found.gro_ipv4_max_size), (size, size));
        assert_eq!(is_on(&netns, "dranet1", Older::Tso), 1);
        drop(netns);
        pod.end(node);
    });
}
