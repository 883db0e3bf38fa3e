//! What is published of the node's NICs.

use std::thread;
use std::time::Duration;

use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use tests::node::Node;
use tests::runtime::Options;

use super::world::{config, deploy, on_a_node, until};

/// Names of the published devices, where generation and count are right.
pub(super) fn published(node: &Node) -> Result<(i64, Vec<String>), String> {
    let slices = node.server.objects::<ResourceSlice>();
    let generations: Vec<i64> = slices.iter().map(|slice| slice.spec.pool.generation).collect();
    let is_right = |slice: &ResourceSlice| {
        slice.spec.pool.resource_slice_count == i64::try_from(slices.len()).unwrap()
            && slice.spec.pool.generation == generations[0]
    };
    if slices.is_empty() || !slices.iter().all(is_right) {
        return Err(format!("{slices:#?}"));
    }
    let devices = slices.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
    Ok((generations[0], devices.map(|device| device.name.clone()).collect()))
}

pub(super) fn await_devices(node: &Node, names: &[&str]) -> i64 {
    until("these devices are published", || match published(node)? {
        (generation, found) if found == names => Ok(generation),
        other => Err(format!("{other:?}")),
    })
}

pub(super) fn writes(node: &Node) -> Vec<tests::api_server::Request> {
    let mut requests = node.server.requests();
    requests.retain(|request| request.verb.is_write() && request.resource == "resourceslices");
    requests
}

#[test]
fn what_is_published_follows_the_node_and_is_written_only_when_it_changes() {
    on_a_node(2, Options::default(), |node| {
        let first = await_devices(node, &["nic0", "nic1"]);
        let web = deploy(node, "web", &[(0, config(0, "tcx"))]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();

        // Longer than the inventory rests and the publisher waits for more.
        thread::sleep(Duration::from_secs(2));
        assert_eq!(published(node).unwrap().1, ["nic0", "nic1"], "a NIC in a pod stays published");
        node.server.forget_requests();
        thread::sleep(Duration::from_secs(2));
        assert_eq!(writes(node), [], "nothing has changed");

        node.network.add().unwrap();
        let second = await_devices(node, &["nic0", "nic1", "nic2"]);
        assert!(second > first, "generation {first}, then {second}");

        drop(netns);
        web.end(node);
        await_devices(node, &["nic0", "nic1", "nic2"]);
    });
}

#[test]
fn slices_that_somebody_deletes_are_written_again() {
    on_a_node(2, Options::default(), |node| {
        await_devices(node, &["nic0", "nic1"]);
        let uids = |node: &Node| {
            let slices = node.server.objects::<ResourceSlice>();
            slices.into_iter().map(|slice| slice.metadata.uid).collect::<Vec<_>>()
        };
        let before = uids(node);
        node.tokio.block_on(async {
            let slices = Api::<ResourceSlice>::all(node.server.client().unwrap());
            let all = (DeleteParams::default(), ListParams::default());
            slices.delete_collection(&all.0, &all.1).await.unwrap();
        });

        await_devices(node, &["nic0", "nic1"]);
        assert!(uids(node).iter().all(|uid| !before.contains(uid)));
    });
}
