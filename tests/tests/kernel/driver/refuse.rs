//! What cannot be had is refused, with a reason, and touches nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use driver::model::InterfaceState;
use driver::sys::netlink::Netlink;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tests::node::{BPFFS, Node, STATE_DIR};
use tests::runtime::Options;
use tests::sandbox::state_in;

use super::world::{config, deploy, looks, nothing_is_left, on_a_node, told};

/// Every interface of the node, and whether a program is on it.
fn interfaces() -> Vec<(InterfaceState, bool)> {
    let links = Netlink::open().unwrap();
    let state = |name| state_in(&links, name).unwrap().unwrap();
    let all = links.links().unwrap();
    all.iter().map(|link| (state(&link.name), link.is_xdp_attached())).collect()
}

#[test]
fn a_malformed_configuration_is_one_error_with_every_problem_and_changes_nothing() {
    on_a_node(1, Options::default(), |node| {
        let malformed = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
            "interface": { "name": "net0", "mtu": 40, "vlan": 3, "addresses": ["198.18.0.10/33"] },
            "ebpf": { "hook": "nonsense", "filter": { "ingress": { "rules": [
                { "name": "a", "action": "deny", "cidrs": ["198.18.0.0/99"] },
                { "name": "b", "action": "deny", "protocol": "udp", "ports": [70000] },
            ]}}},
        });
        let web = deploy(node, "web", &[(0, malformed)]);
        let before = interfaces();

        let answers = node.ask_to_prepare(&web.claims()).unwrap();

        assert_eq!(answers.len(), 1);
        let error = answers[web.claim.uid.as_str()].clone().unwrap_err();
        for problem in [
            "interface.mtu: 40 ",
            "interface.vlan: unknown field",
            "interface.addresses[0]: ",
            "ebpf.hook: \"nonsense\"",
            "ebpf.filter.ingress.rules[0].cidrs[0]: ",
            "ebpf.filter.ingress.rules[1].ports[0]: 70000 ",
        ] {
            assert!(error.contains(problem), "{problem} is not in: {error}");
            assert_eq!(error.matches(problem).count(), 1, "{error}");
        }
        assert!(error.contains("default/web"), "{error}");
        assert_eq!(interfaces(), before);
        assert_eq!(web.phases(), Vec::<&str>::new());
        assert!(!Path::new(BPFFS).join("weir").join(web.claim.uid.as_str()).exists());
        nothing_is_left();
        node.unprepare(&web.claims()).unwrap();
    });
}

/// Filters that nobody can mean. A claim with more rules than fit is more than the API server takes
/// for one configuration, so those are a policy here.
#[test]
fn bad_filters_are_refused_by_prepare_with_the_words_of_weir_check() {
    on_a_node(1, Options::default(), |node| {
        let mut bad = config(0, "tcx");
        bad["ebpf"]["filter"] = json!({ "ingress": { "rules": [
            { "name": "reversed", "action": "deny", "protocol": "tcp", "ports": ["8080-80"] },
            { "name": "too-long", "action": "deny", "sources": ["192.0.2.0/33"] },
            { "name": "unknown", "action": "deny", "protocol": "tpc" },
            { "name": "nothing", "action": "rateLimit", "rateLimit": { "packetsPerSecond": 0 } },
        ]}});
        let web = deploy(node, "web", &[(0, bad)]);
        let answers = node.ask_to_prepare(&web.claims()).unwrap();
        let error = answers[web.claim.uid.as_str()].clone().unwrap_err();
        let claim: ResourceClaim = node.server.object(Some("default"), "web").unwrap();
        let text = json!({ "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": claim.metadata, "spec": claim.spec });
        let found = problems_of(&text);

        let rules = "ebpf.filter.ingress.rules";
        let paths =
            ["[0].ports[0]", "[1].sources[0]", "[2].protocol", "[3].rateLimit.packetsPerSecond"];
        assert_eq!(found.len(), paths.len(), "{found:?}");
        for (problem, path) in found.iter().zip(paths) {
            let (place, message) = (&problem["path"], problem["message"].as_str().unwrap());
            let whole = format!("spec.devices.config[0].opaque.parameters.{rules}{path}");
            assert_eq!(*place, json!(whole));
            assert!(error.contains(&format!("{rules}{path}: {message}")), "{problem}: {error}");
        }
        assert_eq!(web.phases(), Vec::<&str>::new());

        let rule = |n| json!({ "name": format!("r{n}"), "action": "deny" });
        let policy = json!({ "apiVersion": "weir.dev/v1alpha1", "kind": "NodePolicy",
            "filter": { "egress": { "rules": (0..4097).map(rule).collect::<Vec<_>>() } } });
        let told = json!({ "line": 1, "path": "filter.egress.rules",
            "message": "4097 rules are more than 4096" });
        assert_eq!(problems_of(&policy), [told]);
        let file = written(&policy);
        let apply = ["policy", "apply", "--all", "--state-dir", STATE_DIR, "--file"];
        let (status, _, complaint) = run(&[&apply[..], &[file.path().to_str().unwrap()]].concat());
        assert_eq!(status, Some(1));
        assert!(
            complaint.contains("filter.egress.rules: 4097 rules are more than 4096"),
            "{complaint}"
        );
        node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
    });
}

/// What `weir check` finds in a document, which it must find something in.
fn problems_of(document: &Value) -> Vec<Value> {
    let file = written(document);
    let (status, said, _) = run(&["check", file.path().to_str().unwrap(), "--output", "json"]);
    assert_eq!(status, Some(1), "{said}");
    let reports: Value = serde_json::from_str(&said).unwrap();
    reports[0]["problems"].as_array().unwrap().clone()
}

fn written(document: &Value) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), document.to_string()).unwrap();
    file
}

/// How `weir` ends, what it prints and what it complains of.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(told("WEIR_BINARY")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Deletes a pod and its claim from the API server with force: nobody waits for kubelet.
fn delete(node: &Node, name: &str) {
    node.tokio.block_on(async {
        let client = node.server.client().unwrap();
        let (force, pods) =
            (DeleteParams::default(), Api::<Pod>::default_namespaced(client.clone()));
        pods.delete(name, &force).await.unwrap();
        Api::<ResourceClaim>::default_namespaced(client).delete(name, &force).await.unwrap();
    });
}

#[test]
fn a_device_that_another_claim_holds_is_refused_and_the_holder_named() {
    on_a_node(1, Options::default(), |node| {
        let first = deploy(node, "first", &[(0, config(0, "xdp"))]);
        node.prepare(&first.claims()).unwrap();
        let prepared = looks(node, 0);
        // The scheduler sees the device free again long before kubelet has unprepared.
        delete(node, "first");
        let second = deploy(node, "second", &[(0, config(0, "tcx"))]);

        let answers = node.ask_to_prepare(&second.claims()).unwrap();

        let error = answers[second.claim.uid.as_str()].clone().unwrap_err();
        let holder = format!("in use by claim default/first ({})", first.claim.uid);
        assert!(error.contains(&holder), "{error}");
        assert_eq!((first.phases(), second.phases()), (vec!["prepared"], Vec::new()));
        assert_eq!(looks(node, 0), prepared);

        node.unprepare(&first.claims()).unwrap();
        node.prepare(&second.claims()).unwrap();
        node.unprepare(&second.claims()).unwrap();
        nothing_is_left();
    });
}
