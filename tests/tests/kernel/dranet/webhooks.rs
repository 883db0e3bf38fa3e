//! Providers of attributes, of configurations and of profiles, over a socket and over TCP.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use driver::sys::netns::Netns;
use ipnet::Ipv4Net;
use serde_json::json;
use tests::node::{Node, ROOT};
use tests::runtime::Options;
use tests::webhook::{Behaviour, Webhook};

use super::{attributes, interface, ip_in, run, status_has};
use crate::driver::world::{nothing_is_left, on_a_node, until};

/// Starts the driver anew, as one that asks this provider.
fn employ(node: &mut Node, webhook: &Webhook) {
    let config = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NodeConfig",
        "providers": [{ "name": "webhook", "url": webhook.url(), "refreshSeconds": 5 }],
    });
    let file = Path::new(ROOT).join("weir.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    node.driver.stop().unwrap();
    node.driver.add("--config");
    node.driver.add(file.to_str().unwrap());
    node.start_driver().unwrap();
}

/// The one IPv4 address that an interface of a pod has.
fn address(netns: &Netns, interface: &str) -> Ipv4Addr {
    let shown = ip_in(netns, &["-4", "addr", "show", "dev", interface]);
    let all = shown[0]["addr_info"].as_array().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]["local"].as_str().unwrap().parse().unwrap()
}

#[test]
fn whereabouts_webhook() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &[]);
        interface("dummy1", &[]);
        let range: Ipv4Net = "192.168.77.64/28".parse().unwrap();
        let ranges = BTreeMap::from([("whereabouts".to_owned(), range)]);
        let behaviour = Behaviour { knows_devices: false, ranges, ..Behaviour::default() };
        let webhook = {
            let _entered = node.tokio.enter();
            Webhook::on_socket(&Path::new(ROOT).join("whereabouts.sock"), behaviour).unwrap()
        };
        employ(node, &webhook);

        let wishes = json!({ "interface": { "name": "eth99" }, "profile": "whereabouts" });
        let (one, in_one) = run(node, "pod1", &[("dummy0", wishes.clone())]);
        let (two, in_two) = run(node, "pod2", &[("dummy1", wishes.clone())]);
        let found = [&in_one, &in_two].map(|netns| address(netns, "eth99"));
        assert!(range.contains(&found[0]) && range.contains(&found[1]), "{found:?}");
        assert_ne!(found[0], found[1]);
        status_has(node, &one, &[&format!("{}/28", found[0])]);
        status_has(node, &two, &[&format!("{}/28", found[1])]);

        drop((in_one, in_two));
        one.end(node);
        until("the first address is given back", || match &webhook.given()[..] {
            [other] if *other == found[1] => Ok(()),
            given => Err(format!("{given:?}")),
        });
        two.end(node);
        until("both are", || match &webhook.given()[..] {
            [] => Ok(()),
            given => Err(format!("{given:?}")),
        });
        until("nothing is left to be given back", || {
            let text =
                std::fs::read_to_string(Path::new(tests::node::STATE_DIR).join("profiles.json"));
            text.as_ref()
                .is_ok_and(|it| it.contains("\"grants\":[]"))
                .then_some(())
                .ok_or(format!("{text:?}"))
        });
        nothing_is_left();
    });
}

#[test]
fn python_webhook() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &[]);
        let address_of_pool = json!({ "interface": { "addresses": ["10.88.0.7/24"] } });
        let behaviour = Behaviour {
            attributes: json!({ "example.com/rack": { "string": "r7" }, "rail": { "int": 3 } }),
            config: json!({ "interface": { "mtu": 1450 } }),
            profiles: BTreeMap::from([("python".to_owned(), address_of_pool)]),
            ..Behaviour::default()
        };
        let webhook = node.tokio.block_on(Webhook::on_tcp(behaviour)).unwrap();
        employ(node, &webhook);
        until("what the provider says is published", || {
            let found = attributes(node, "dummy0");
            let rack = found.get("example.com/rack").and_then(|it| it.string.as_deref());
            let rail = found.get("weir.dev/rail").and_then(|it| it.int);
            let is_there = (rack, rail) == (Some("r7"), Some(3));
            if is_there { Ok(()) } else { Err(format!("{rack:?}, {rail:?}")) }
        });

        let (pod, netns) = run(node, "pod1", &[("dummy0", json!({ "profile": "python" }))]);
        assert_eq!(address(&netns, "dummy0"), Ipv4Addr::new(10, 88, 0, 7));
        assert_eq!(ip_in(&netns, &["link", "show", "dev", "dummy0"])[0]["mtu"], 1450);
        status_has(node, &pod, &["10.88.0.7/24"]);
        drop(netns);
        pod.end(node);
        let released = || webhook.asked("/ReleaseProfileConfig");
        until("the profile is given back", || match &released()[..] {
            [release] if release["claim_uid"] == pod.claim.uid.as_str() => Ok(()),
            other => Err(format!("{other:?}")),
        });
    });
}
