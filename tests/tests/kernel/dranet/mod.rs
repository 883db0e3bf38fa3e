//! What DraNet's end-to-end tests ask of a driver (`tests/e2e.bats` there), asked of this one: each
//! scenario under its name, with configurations in DraNet's form.
//!
//! Theirs have dummies, which the machine's own kernel may not have; a veth whose other end is up does
//! as well, and what goes out of it can be seen.

mod interfaces;
mod life;
mod programs;
mod routing;
pub(crate) mod vm_only;
mod webhooks;

use std::collections::BTreeMap;

use driver::sys::netns::Netns;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceAttribute, ResourceClaim, ResourceSlice};
use serde_json::{Value, json};
use tests::node::Node;

use crate::config::stage::ip;
use crate::driver::configured::lines;
use crate::driver::world::{Deployed, deploy_interfaces, until};

/// Makes an interface of the node, up, with what is said of it.
fn interface(name: &str, more: &[&str]) {
    // The kernel names the other end.
    pair(name, &format!("far-{}", &name[..name.len().min(10)]));
    let settings: Vec<_> = more.iter().map(|more| format!("{more} dev {name}")).collect();
    lines(&settings.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Two interfaces of the node with a wire between them, up.
fn pair(one: &str, other: &str) {
    lines(&[&format!("link add {one} type veth peer name {other}")]);
    for name in [one, other] {
        // The node in the box has it off for what is made in it.
        let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        std::fs::write(path, "0").unwrap();
        lines(&[&format!("link set {name} up")]);
    }
}

/// What is published of an interface, once it is.
fn attributes(node: &Node, interface: &str) -> BTreeMap<String, DeviceAttribute> {
    until("the interface is published", || published(node, interface).ok_or_else(String::new))
}

fn published(node: &Node, interface: &str) -> Option<BTreeMap<String, DeviceAttribute>> {
    let slices = node.server.objects::<ResourceSlice>();
    let mut slices = slices.into_iter().filter(|slice| slice.spec.driver == node.driver_name);
    slices.by_ref().flat_map(|slice| slice.spec.devices.unwrap_or_default()).find_map(|device| {
        let attributes = device.attributes?;
        let name = attributes.get(&format!("{}/ifName", node.driver_name))?.string.as_deref();
        (name == Some(interface)).then_some(attributes)
    })
}

/// Starts the driver anew, as one that claims for DraNet find under DraNet's name.
fn become_dranet(node: &mut Node) {
    node.driver.stop().unwrap();
    node.driver.add("--compat");
    node.driver.add("dranet");
    node.driver_name = "dra.net";
    node.start_driver().unwrap();
}

/// Has a pod run whose claim wants these interfaces, in order.
fn run(node: &Node, pod: &str, wanted: &[(&str, Value)]) -> (Deployed, Netns) {
    let wanted: Vec<_> = wanted
        .iter()
        .enumerate()
        .map(|(nth, (interface, parameters))| {
            attributes(node, interface);
            (format!("r{nth}"), (*interface).to_owned(), parameters.clone())
        })
        .collect();
    start(node, deploy_interfaces(node, pod, &wanted))
}

fn start(node: &Node, deployed: Deployed) -> (Deployed, Netns) {
    node.prepare(&deployed.claims()).unwrap();
    let (netns, _) = node.run_sandbox(&deployed.pod).unwrap();
    (deployed, netns)
}

/// Has a pod run whose claim is made from the template `name`.
fn run_from_template(node: &Node, pod: &str, name: &str) -> (Deployed, Netns) {
    let uses = json!([{ "name": "nics", "resourceClaimTemplateName": name }]);
    let document = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "i" }], "resourceClaims": uses },
    });
    node.server.apply(&document.to_string()).unwrap();
    let pod: Pod = node.server.object(Some("default"), pod).unwrap();
    let claim = node.schedule(&pod).unwrap().remove(0);
    start(node, Deployed::of(pod, &claim))
}

/// What `ip` says in a pod.
fn ip_in(netns: &Netns, arguments: &[&str]) -> Value {
    netns.run(|_| ip(arguments)).unwrap()
}

fn addresses(netns: &Netns, interface: &str) -> String {
    ip_in(netns, &["addr", "show", "dev", interface])[0]["addr_info"].to_string()
}

/// Has the claim's status name each of the addresses.
fn status_has(node: &Node, of: &Deployed, addresses: &[&str]) {
    until("the claim's status has the addresses", || {
        let claim: Option<ResourceClaim> = node.server.object(Some("default"), &of.claim.name);
        let devices = claim.and_then(|claim| claim.status?.devices).unwrap_or_default();
        let ips: Vec<_> = devices
            .into_iter()
            .flat_map(|device| device.network_data.and_then(|it| it.ips).unwrap_or_default())
            .collect();
        let has = |wanted: &&str| ips.iter().any(|ip| ip == wanted);
        if addresses.iter().all(has) { Ok(()) } else { Err(format!("{ips:?}")) }
    });
}

fn setting(netns: &Netns, path: &str) -> String {
    let text = netns.run(|_| std::fs::read_to_string(format!("/proc/sys/net/{path}"))).unwrap();
    text.unwrap().trim_end().to_owned()
}
