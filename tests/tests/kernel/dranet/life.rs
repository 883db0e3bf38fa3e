//! Pods and drivers that come and go.

use std::path::Path;

use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use tests::node::{Node, PATIENCE, ROOT};
use tests::runtime::Options;

use super::interfaces::template;
use super::{addresses, attributes, interface, run, run_from_template, status_has};
use crate::driver::world::{Deployed, nothing_is_left, on_a_node, sockets, until};

/// Deletes the pod's claim, as the API server does when the pod is gone.
fn forget(node: &Node, pod: &Deployed) {
    node.tokio.block_on(async {
        let claims: Api<ResourceClaim> =
            Api::namespaced(node.server.client().unwrap(), &pod.claim.namespace);
        claims.delete(&pod.claim.name, &DeleteParams::default()).await.unwrap();
    });
}

/// Nobody gives the interface its address anew in between, as has to be done there.
#[test]
fn reapply_pod_with_dummy_resource_claim() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy8", &["addr add 169.254.169.14/32"]);
        template(node, "again", &["dummy8"]);
        for pod in ["first", "second"] {
            let (pod, netns) = run_from_template(node, pod, "again");
            let found = addresses(&netns, "dummy8");
            assert!(found.contains("169.254.169.14"), "{found}");
            status_has(node, &pod, &["169.254.169.14/32"]);
            drop(netns);
            pod.end(node);
            forget(node, &pod);
            nothing_is_left();
        }
    });
}

#[test]
fn driver_should_gracefully_shutdown_when_terminated() {
    on_a_node(0, Options::default(), |node| {
        let directory = Path::new(ROOT).join("kubelet");
        assert_eq!(sockets(&directory).len(), 2, "the plugin's and its registration's");
        let status = node.driver.stop().unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(sockets(&directory), [""; 0].map(std::path::PathBuf::from));
        node.start_driver().unwrap();
        assert_eq!(sockets(&directory).len(), 2);
    });
}

#[test]
fn unprepare_claims_on_driver_restart_after_pod_deletion_during_driver_downtime() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy-downtime", &[]);
        let wishes = json!({ "interface": { "addresses": ["169.254.169.13/32"] } });
        let (pod, netns) = run(node, "pod1", &[("dummy-downtime", wishes)]);
        drop(netns);
        node.driver.kill().unwrap();
        assert!(node.runtime.wait_for_no_plugin(PATIENCE));
        node.stop_sandbox(&pod.pod).unwrap();
        assert_eq!(pod.records().len(), 1, "nobody could take it back");
        node.start_driver().unwrap();
        // Kubelet asks as soon as the driver is there.
        node.unprepare(&pod.claims()).unwrap();
        assert_eq!(pod.records().len(), 0);
        nothing_is_left();
    });
}

#[test]
fn allocated_device_in_resource_slice_remains_unchanged() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &["addr add 169.254.169.14/32"]);
        let before = until("it has settled", || {
            let found = attributes(node, "dummy0");
            let state = found["weir.dev/state"].string.clone();
            if state.as_deref() == Some("up") { Ok(found) } else { Err(format!("{state:?}")) }
        });
        let wishes = json!({ "interface": { "name": "eth99", "mtu": 1400 } });
        let (pod, netns) = run(node, "pod1", &[("dummy0", wishes)]);
        assert_eq!(attributes(node, "dummy0"), before);
        node.driver.stop().unwrap();
        node.start_driver().unwrap();
        assert_eq!(attributes(node, "dummy0"), before);
        drop(netns);
        pod.end(node);
    });
}
