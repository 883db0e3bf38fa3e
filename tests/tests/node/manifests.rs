//! What `deploy/` and the documents show is what the API server and the driver understand: a field
//! that is misspelt or in the wrong place would be dropped there, or refused on the node.

use std::fs;
use std::path::Path;

use driver::{claim, config};
use k8s_openapi::Resource;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[test]
fn every_field_of_every_manifest_is_known() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut documents = 0;
    let folders =
        ["", "examples", "examples/compat", "examples/node", "examples/per-pod", "examples/topics"];
    for folder in folders.map(|folder| deploy.join(folder)) {
        for entry in fs::read_dir(&folder).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            documents += examine(&text, &file.display().to_string());
        }
    }
    assert!(documents >= 23, "only {documents} documents were found");
}

/// With DraNet's name the driver may do what it may with its own.
#[test]
fn the_rights_of_a_compatible_driver_are_the_same_under_another_name() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let read = |file: &str| fs::read_to_string(deploy.join(file)).unwrap();
    let ours = read("rbac.yaml")
        .replace("[weir.dev]", "[dra.net]")
        .replace("driver weir.dev", "driver dra.net")
        .replace("\"weir.dev\"", "\"dra.net\"");
    let documents = |text: &str| serde_saphyr::from_multiple::<Value>(text).unwrap();
    let theirs = read("examples/compat/rbac.yaml");
    assert_eq!(documents(&theirs), documents(&ours));
    assert!(theirs.contains("resourceNames: [dra.net]"));
}

#[test]
fn every_example_in_the_documents_is_understood() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = 0;
    for file in [
        "README.md",
        "docs/README.md",
        "docs/configuration.md",
        "docs/filters.md",
        "docs/node-config.md",
    ] {
        let text = fs::read_to_string(top.join(file)).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            documents += examine(block.split("```").next().unwrap(), file);
        }
    }
    assert!(documents >= 2, "only {documents} examples were found");
}

/// What the example's `ConfigMap` has is a configuration.
#[test]
fn the_config_map_holds_what_the_driver_reads() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/node/configmap.yaml");
    let map: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let text = map["data"]["weir.yaml"].as_str().unwrap();
    let document: Value = serde_saphyr::from_str(text).unwrap();
    let found = config::node_config(&document).unwrap();
    assert!(found.profiles.contains_key("gpu") && found.layer.filter.is_some());
}

/// A patch's list of arguments takes the place of the one that it is applied to.
#[test]
fn the_patch_for_a_config_file_keeps_the_arguments_that_there_are() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let arguments = |file: &str| {
        let text = fs::read_to_string(deploy.join(file)).unwrap();
        let documents = serde_saphyr::from_multiple::<Value>(&text).unwrap();
        let set = documents.into_iter().find(|it| it["kind"] == "DaemonSet").unwrap();
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        container["args"].as_array().unwrap().clone()
    };
    let patched = arguments("examples/node/daemonset.yaml");
    for kept in arguments("daemonset.yaml") {
        assert!(patched.contains(&kept), "{kept}");
    }
    assert!(patched.contains(&Value::from("--config=/etc/weir/weir.yaml")));
}

/// Holds each document of `text` against its type, and the configurations in it against the
/// driver's own parser. Answers how many there were.
fn examine(text: &str, place: &str) -> usize {
    let documents = serde_saphyr::from_multiple::<Value>(text).unwrap();
    for document in &documents {
        if document["kind"] == "NetworkConfig" {
            assert_understood(document, place);
            continue;
        }
        if document["kind"] == "NodeConfig" {
            config::node_config(document).unwrap_or_else(|problems| panic!("{place}: {problems}"));
            continue;
        }
        if document["kind"] == "NodePolicy" {
            claim::parse_policy(document).unwrap_or_else(|problems| panic!("{place}: {problems}"));
            continue;
        }
        let unknown = unknown_fields(document);
        assert_eq!(unknown, Vec::<String>::new(), "{place}");
        for parameters in configurations(document) {
            assert_understood(parameters, place);
        }
    }
    documents.len()
}

fn assert_understood(parameters: &Value, place: &str) {
    let source = claim::Source { origin: claim::Origin::Claim, index: 0, parameters };
    if let Err(problems) = claim::parse(&[source]) {
        panic!("{place}: {problems}");
    }
}

/// Our configurations in a claim, a template of one, or a class.
fn configurations(document: &Value) -> impl Iterator<Item = &Value> {
    ["/spec/devices/config", "/spec/spec/devices/config", "/spec/config"]
        .into_iter()
        .filter_map(|path| document.pointer(path)?.as_array())
        .flatten()
        .filter(|config| config["opaque"]["driver"] == "weir.dev")
        .map(|config| &config["opaque"]["parameters"])
}

#[test]
fn a_field_in_the_wrong_place_is_noticed() {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "imagePullpolicy": "Never" }], "claims": [] },
    });
    assert_eq!(unknown_fields(&pod), ["spec.claims", "spec.containers[0].imagePullpolicy"]);
}

/// Paths of what is lost when the document is read as the type that it says it is.
fn unknown_fields(document: &Value) -> Vec<String> {
    let version = document["apiVersion"].as_str().unwrap_or_default();
    let kind = document["kind"].as_str().unwrap_or_default();
    let mut unknown = Vec::new();
    let again = match kind {
        "ClusterRole" => again::<ClusterRole>(document, version),
        "ClusterRoleBinding" => again::<ClusterRoleBinding>(document, version),
        "ConfigMap" => again::<ConfigMap>(document, version),
        "DaemonSet" => again::<DaemonSet>(document, version),
        "Deployment" => again::<Deployment>(document, version),
        "DeviceClass" => again::<DeviceClass>(document, version),
        "Namespace" => again::<Namespace>(document, version),
        "Pod" => again::<Pod>(document, version),
        "ResourceClaim" => again::<ResourceClaim>(document, version),
        "ResourceClaimTemplate" => again::<ResourceClaimTemplate>(document, version),
        "ServiceAccount" => again::<ServiceAccount>(document, version),
        "ValidatingAdmissionPolicy" => again::<ValidatingAdmissionPolicy>(document, version),
        "ValidatingAdmissionPolicyBinding" => {
            again::<ValidatingAdmissionPolicyBinding>(document, version)
        }
        other => panic!("no manifest of kind {other:?} is expected"),
    };
    lost("", document, &again, &mut unknown);
    unknown
}

/// Reads the document as a `T` and writes it again.
fn again<T: Resource + Serialize + DeserializeOwned>(document: &Value, version: &str) -> Value {
    assert_eq!(version, T::API_VERSION, "{}", T::KIND);
    let typed: T = serde_json::from_value(document.clone()).unwrap();
    serde_json::to_value(typed).unwrap()
}

/// Adds the paths of what `before` has and `after` has not.
fn lost(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match after.get(name) {
                    Some(after) => lost(&path, value, after, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (nth, (before, after)) in before.iter().zip(after).enumerate() {
                lost(&format!("{path}[{nth}]"), before, after, found);
            }
        }
        (before, after) if before == after => {}
        _ => found.push(path.to_owned()),
    }
}
