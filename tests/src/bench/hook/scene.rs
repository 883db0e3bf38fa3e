//! The node that is measured, and what its claims want.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use driver::model::{By, ClaimRef};
use driver::sys::netlink::Netlink;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::bare::Journey;
use crate::node::{self, NODE, Node};
use crate::runtime;

/// What the pods have: claims hold their devices for as long as the benchmark runs.
pub(super) const ONE: Range<u8> = 0..1;
pub(super) const EIGHT: Range<u8> = 1..9;

/// Starts a node with a driver that keeps its checkpoint in `state`.
pub(super) fn start(weir: &Path, state: &Path) -> Result<Node> {
    let mut node = Node::new(weir, EIGHT.end, runtime::Options::default())?;
    node.driver.replace(node::STATE_DIR, state);
    let host = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
    let ours = json!([{ "cel": { "expression": "device.driver == 'weir.dev'" } }]);
    let class = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
        "metadata": { "name": "nic" }, "spec": { "selectors": ours },
    });
    node.server.apply(&format!("{host}\n---\n{class}")).context("introduce the node")?;
    node.start_driver()?;
    Ok(node)
}

/// A pod that is scheduled with its claim.
pub(super) struct Deployed {
    pub(super) pod: Pod,
    pub(super) claims: [ClaimRef; 1],
}

/// Has a pod scheduled whose claim wants these NICs.
pub(super) fn deploy(node: &Node, nics: &Range<u8>) -> Result<Deployed> {
    let name = format!("with-{}", nics.len());
    let request = |nth: u8| {
        let expression = format!("device.attributes['weir.dev'].ifName == 'nic{nth}'");
        json!({ "name": format!("r{nth}"), "exactly": {
            "deviceClassName": "nic", "selectors": [{ "cel": { "expression": expression } }],
        }})
    };
    let configure = |nth: u8| {
        let opaque = json!({ "driver": node::DRIVER, "parameters": parameters(nth) });
        json!({ "requests": [format!("r{nth}")], "opaque": opaque })
    };
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "devices": {
            "requests": nics.clone().map(request).collect::<Vec<_>>(),
            "config": nics.clone().map(configure).collect::<Vec<_>>(),
        }},
    });
    let uses = json!([{ "name": "nics", "resourceClaimName": name }]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "i" }], "resourceClaims": uses },
    });
    node.server.apply(&format!("{claim}\n---\n{pod}")).context("make the pod")?;
    let pod: Pod = node.server.object(Some("default"), &name).context("no such pod")?;
    let claims = node.schedule(&pod)?;
    let claim = claims.first().context("the pod has no claim")?;
    Ok(Deployed { claims: [node::claim_ref(claim)?], pod })
}

/// What NIC `nth` becomes: one address and one route, as [`journeys`] has it, and a datapath that
/// counts, keeps flows and filters.
fn parameters(nth: u8) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
        "interface": { "name": format!("net{nth}"), "addresses": [format!("198.18.{nth}.10/24")] },
        "routes": [{
            "destination": format!("10.{nth}.0.0/16"), "gateway": format!("198.18.{nth}.1"),
        }],
        "ebpf": { "telemetry": "flows", "filter": { "ingress": {
            "defaultAction": "deny",
            "rules": [
                { "name": "no-guests", "action": "deny", "cidrs": ["192.0.2.0/24"] },
                { "name": "web", "action": "allow", "protocol": "tcp", "ports": [80, 443] },
                { "name": "ping", "action": "allow", "protocol": "icmp" },
            ],
        }}},
    })
}

/// The same for whoever has no claim.
pub(super) fn journeys(nics: &Range<u8>) -> Result<Vec<Journey>> {
    let host = Netlink::open()?;
    let journey = |nth: u8| {
        let home = format!("nic{nth}");
        let link = host.link(&By::Name(home.parse()?))?;
        Ok(Journey {
            index: link.with_context(|| format!("there is no {home}"))?.index.0,
            home,
            home_address: (Ipv4Addr::new(172, 31, nth, 1), 24),
            name: format!("net{nth}"),
            address: (Ipv4Addr::new(198, 18, nth, 10), 24),
            route: (Ipv4Addr::new(10, nth, 0, 0), 16),
            gateway: Ipv4Addr::new(198, 18, nth, 1),
        })
    };
    nics.clone().map(journey).collect()
}
