//! Claims that want their devices in a certain place.

use serde_json::{Value, json};
use tests::node::{NODE, Node};

use super::machine::{
    IGB0, IGB1, Running, Wish, awaited, claim, config, interface, is_called, on_the_machine,
};
use crate::driver::snapshot::Snapshot;
use crate::driver::world::{deploy_claim, nothing_is_left};

const IS_IGB: &str = "has(device.attributes['weir.dev'].kernelDriver) && \
    device.attributes['weir.dev'].kernelDriver == 'igb'";
/// An attribute that says the same of devices of all drivers.
const ROOT: &str = "resource.kubernetes.io/pcieRoot";

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_claim_gets_the_nic_of_its_numa_node_and_pcie_root() {
    on_the_machine(|node| {
        let before = Snapshot::take();
        let there = "device.attributes['resource.kubernetes.io']";
        let wish = Wish {
            request: "nic",
            expression: format!(
                "{IS_IGB} && {there}.numaNode == 1 && {there}.pcieRoot == 'pci0000:40'"
            ),
            parameters: config("net0", "10.9.0.1/24", "auto"),
        };
        let pod = Running::start(node, "web", &[wish]);
        assert_eq!(pod.link("net0")["address"], IGB1.to_string());
        pod.end(node);
        before.is_as_now();
        nothing_is_left();
    });
}

/// What another driver publishes of two GPUs, one on each root.
fn gpus() -> String {
    let gpu = |name: &str, root: &str| {
        json!({ "name": name, "attributes": {
            "model": { "string": name }, ROOT: { "string": root },
        }})
    };
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": { "name": "gpus" },
        "spec": {
            "driver": "gpu.example.com", "nodeName": NODE,
            "pool": { "name": NODE, "generation": 1, "resourceSliceCount": 1 },
            "devices": [gpu("gpu0", "pci0000:20"), gpu("gpu1", "pci0000:40")],
        },
    });
    let ours = json!([{ "cel": { "expression": "device.driver == 'gpu.example.com'" } }]);
    let class = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
        "metadata": { "name": "gpu" }, "spec": { "selectors": ours },
    });
    format!("{slice}\n---\n{class}")
}

/// A claim for a GPU and the NIC on its root.
fn gpu_and_nic(gpu: &str, address: &str) -> Value {
    let nic = Wish {
        request: "nic",
        expression: IS_IGB.to_owned(),
        parameters: config("net0", address, "auto"),
    };
    let mut claim = claim(&[nic]);
    let selectors = json!([{ "cel": { "expression": gpu } }]);
    let request = json!({ "name": "gpu", "exactly": {
        "deviceClassName": "gpu", "selectors": selectors,
    }});
    claim["devices"]["requests"].as_array_mut().unwrap().push(request);
    claim["devices"]["constraints"] =
        json!([{ "requests": ["nic", "gpu"], "matchAttribute": ROOT }]);
    claim
}

fn has_nics(node: &Node) {
    for mac in [IGB0, IGB1] {
        let name = interface(mac);
        awaited(node, "both NICs are published", |device| is_called(device, &name));
    }
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_claim_for_a_gpu_and_a_nic_on_one_pcie_root_gets_both_there() {
    on_the_machine(|node| {
        has_nics(node);
        node.server.apply(&gpus()).unwrap();
        let before = Snapshot::take();
        // The first that fits is the wrong one: it is the GPU that decides.
        let second = "device.attributes['gpu.example.com'].model == 'gpu1'";
        let claims = [(second, "web", IGB1), ("true", "other", IGB0)];
        let pods = claims.map(|(gpu, name, mac)| {
            let address = format!("10.9.0.{}/24", mac.0[5]);
            let pod = Running::of(node, deploy_claim(node, name, &gpu_and_nic(gpu, &address)));
            assert_eq!(pod.link("net0")["address"], mac.to_string());
            pod
        });
        pods[0].talks_to(&pods[1], [10, 9, 0, IGB0.0[5]]);
        for pod in pods {
            pod.end(node);
        }
        before.is_as_now();
        nothing_is_left();
    });
}
