//! The in-memory API server, seen through the client that the driver uses.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tests::api_server::{Server, Verb};

async fn server() -> (Server, Client) {
    let server = Server::start().await.unwrap();
    let client = server.client().unwrap();
    (server, client)
}

fn slice(name: &str, devices: &Value) -> ResourceSlice {
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "driver": "weir.dev",
            "nodeName": "node-a",
            "pool": { "name": "node-a", "generation": 1, "resourceSliceCount": 1 },
            "devices": devices,
        },
    }))
    .unwrap()
}

const CLAIM: &str = "
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: { name: nics, namespace: default }
spec:
  devices:
    requests:
    - name: nic
      exactly: { deviceClassName: weir.dev }
status:
  allocation:
    devices:
      results:
      - { request: nic, driver: weir.dev, pool: node-a, device: nic0 }
---
apiVersion: v1
kind: Node
metadata: { name: node-a }
";

fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason),
        other => panic!("an error of the API was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn an_object_is_created_read_replaced_and_deleted() {
    let (server, client) = server().await;
    let slices = Api::<ResourceSlice>::all(client);
    let parameters = PostParams::default();

    let created = slices.create(&parameters, &slice("a", &json!([]))).await.unwrap();
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    assert_eq!(created.metadata.generation, Some(1));
    assert_eq!(
        code(slices.create(&parameters, &slice("a", &json!([]))).await),
        (409, "AlreadyExists".to_owned())
    );

    let mut changed = created.clone();
    changed.spec.pool.generation = 2;
    let replaced = slices.replace("a", &parameters, &changed).await.unwrap();
    assert_eq!(replaced.metadata.generation, Some(2));
    assert_eq!(replaced.uid(), created.uid());
    // The version that `changed` still carries is no longer the latest.
    assert_eq!(
        code(slices.replace("a", &parameters, &changed).await),
        (409, "Conflict".to_owned())
    );

    let same = slices.replace("a", &parameters, &replaced).await.unwrap();
    assert_eq!(same.resource_version(), replaced.resource_version());

    slices.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(slices.get("a").await), (404, "NotFound".to_owned()));
    assert_eq!(slices.get_opt("a").await.unwrap(), None);
    assert_eq!(server.requests().iter().filter(|r| r.verb.is_write()).count(), 6);
}

#[tokio::test]
async fn a_generated_name_is_unique() {
    let (_server, client) = server().await;
    let slices = Api::<ResourceSlice>::all(client);
    let mut nameless = slice("", &json!([]));
    nameless.metadata.name = None;
    nameless.metadata.generate_name = Some("node-a-weir.dev-".to_owned());
    let parameters = PostParams::default();

    let first = slices.create(&parameters, &nameless).await.unwrap().name_any();
    let second = slices.create(&parameters, &nameless).await.unwrap().name_any();

    assert!(first.starts_with("node-a-weir.dev-") && first != second);
}

#[tokio::test]
async fn lists_are_selected_by_field_and_label() {
    let (server, client) = server().await;
    let slices = Api::<ResourceSlice>::all(client);
    slices.create(&PostParams::default(), &slice("a", &json!([]))).await.unwrap();
    let mut other = slice("b", &json!([]));
    other.spec.node_name = Some("node-b".to_owned());
    other.metadata.labels = Some([("app".to_owned(), "x".to_owned())].into());
    slices.create(&PostParams::default(), &other).await.unwrap();

    let list = async |parameters: ListParams| -> Vec<String> {
        let list = slices.list(&parameters).await.unwrap();
        list.iter().map(ResourceExt::name_any).collect()
    };
    assert_eq!(list(ListParams::default().fields("spec.nodeName=node-a")).await, ["a"]);
    assert_eq!(list(ListParams::default().labels("app=x")).await, ["b"]);
    assert_eq!(
        list(ListParams::default().fields("spec.driver=weir.dev,spec.pool.name=node-a")).await,
        ["a", "b"]
    );
    assert_eq!(server.objects::<ResourceSlice>().len(), 2);
}

#[tokio::test]
async fn apply_creates_then_changes_then_leaves_alone() {
    let (server, client) = server().await;
    let slices = Api::<ResourceSlice>::all(client);
    let parameters = PatchParams::apply("weir").force();
    let apply = async |devices: Value| {
        let slice = slice("a", &devices);
        slices.patch("a", &parameters, &Patch::Apply(&slice)).await.unwrap()
    };

    let first = apply(json!([{ "name": "nic0" }, { "name": "nic1" }])).await;
    let second = apply(json!([{ "name": "nic1" }])).await;
    assert_eq!(second.spec.devices.as_ref().unwrap().len(), 1, "a list of devices is atomic");
    assert_eq!(second.uid(), first.uid());

    let third = apply(json!([{ "name": "nic1" }])).await;
    assert_eq!(third.resource_version(), second.resource_version());
    let statuses: Vec<u16> = server.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [201, 200, 200]);
    assert!(server.requests().iter().all(|request| request.verb == Verb::Apply));
}

#[tokio::test]
async fn the_status_of_a_claim_is_written_apart_from_its_spec() {
    let (server, client) = server().await;
    server.apply(CLAIM).unwrap();
    let claims = Api::<ResourceClaim>::default_namespaced(client);
    let device = json!({
        "driver": "weir.dev", "pool": "node-a", "device": "nic0",
        "networkData": { "interfaceName": "net1", "ips": ["192.0.2.10/24"] },
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Attached", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    let status = |device: &Value| {
        json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": "nics" },
            "status": { "devices": [device] },
        })
    };
    let parameters = PatchParams::apply("weir").force();

    let patch = Patch::Apply(status(&device));
    let written = claims.patch_status("nics", &parameters, &patch).await.unwrap();
    assert_eq!(written.status.as_ref().unwrap().devices.as_ref().unwrap().len(), 1);
    assert!(written.status.as_ref().unwrap().allocation.is_some(), "the scheduler's part stays");

    // A write of the object does not touch the status.
    let mut labelled = written.clone();
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    labelled.status = None;
    let labelled = claims.replace("nics", &PostParams::default(), &labelled).await.unwrap();
    assert_eq!(labelled.status, written.status);

    // A write of the status does not touch the rest.
    let mut broken = labelled.clone();
    broken.metadata.labels = None;
    broken.spec.devices = None;
    broken.status.as_mut().unwrap().devices = None;
    let kept = claims.replace_status("nics", &PostParams::default(), &broken).await.unwrap();
    assert_eq!(kept.spec, labelled.spec);
    assert_eq!(kept.labels(), labelled.labels());
    assert_eq!(kept.status.unwrap().devices, None);

    let mut foreign = device.clone();
    foreign["device"] = "nic7".into();
    foreign["networkData"]["ips"] = json!(["192.0.2.10"]);
    let patch = Patch::Apply(status(&foreign));
    let refused = claims.patch_status("nics", &parameters, &patch).await.unwrap_err().to_string();
    assert!(refused.contains("status.devices[0]: Invalid value"), "{refused}");
    assert!(refused.contains("status.devices[0].networkData.ips[0]"), "{refused}");
}

#[tokio::test]
async fn a_merge_patch_of_a_pod_status_changes_what_it_names() {
    let (server, client) = server().await;
    let pod = "
apiVersion: v1
kind: Pod
metadata: { name: p }
spec: { nodeName: node-a, containers: [{ name: c, image: i }] }
";
    server.apply(pod).unwrap();
    let pods = Api::<Pod>::default_namespaced(client);
    let patch = Patch::Merge(json!({ "status": { "phase": "Running" }, "spec": null }));

    let patched = pods.patch_status("p", &PatchParams::default(), &patch).await.unwrap();

    assert_eq!(patched.status.unwrap().phase.as_deref(), Some("Running"));
    assert_eq!(patched.spec.unwrap().node_name.as_deref(), Some("node-a"));
}

#[tokio::test]
async fn a_slice_beyond_the_limits_is_refused_with_every_path() {
    let (_server, client) = server().await;
    let slices = Api::<ResourceSlice>::all(client);
    let attributes = json!({
        "weir.dev/ifName": { "string": "x".repeat(65) },
        "weir.dev/no-identifier": { "bool": true },
        "kernel": { "version": "6.18" },
        "both": { "int": 1, "bool": true },
    });
    let many: serde_json::Map<String, Value> =
        (0..33).map(|n| (format!("a{n}"), json!({ "int": n }))).collect();
    let bad = slice(
        "a",
        &json!([
            { "name": "Nic", "attributes": attributes },
            { "name": "twin" },
            { "name": "twin", "attributes": many },
        ]),
    );

    let error = slices.create(&PostParams::default(), &bad).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };

    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    for path in [
        "spec.devices[0].name: Invalid value",
        "spec.devices[0].attributes[weir.dev/ifName].string: Too long",
        "spec.devices[0].attributes[weir.dev/no-identifier]: Invalid value",
        "spec.devices[0].attributes[kernel].version: Invalid value",
        "spec.devices[0].attributes[both]: Invalid value",
        "spec.devices[2].name: Duplicate value",
        "spec.devices[2].attributes: Too many",
    ] {
        assert!(status.message.contains(path), "{path} in {}", status.message);
    }

    let devices: Vec<Value> = (0..129).map(|n| json!({ "name": format!("nic{n}") })).collect();
    let full = slice("a", &devices.into());
    let status = slices.create(&PostParams::default(), &full).await.unwrap_err().to_string();
    assert!(status.contains("spec.devices: Too many: 129"), "{status}");
}

#[tokio::test]
async fn a_slice_stays_with_its_node_and_driver() {
    let (_server, client) = server().await;
    let slices = Api::<ResourceSlice>::all(client);
    let mut slice = slices.create(&PostParams::default(), &slice("a", &json!([]))).await.unwrap();
    slice.spec.node_name = Some("node-b".to_owned());
    slice.spec.pool.name = "node-b".to_owned();

    let error = slices.replace("a", &PostParams::default(), &slice).await.unwrap_err().to_string();

    assert!(error.contains("spec.nodeName: Invalid value"), "{error}");
    assert!(error.contains("spec.pool.name: Invalid value"), "{error}");
}

#[tokio::test]
async fn a_watcher_sees_what_is_there_and_what_changes() {
    for streaming in [false, true] {
        let (server, client) = server().await;
        let slices = Api::<ResourceSlice>::all(client);
        slices.create(&PostParams::default(), &slice("a", &json!([]))).await.unwrap();
        let config = watcher::Config::default().fields("spec.driver=weir.dev");
        let config = if streaming { config.streaming_lists() } else { config };
        let mut events = Box::pin(watcher(slices.clone(), config));
        let mut next = async || {
            let event = tokio::time::timeout(Duration::from_secs(5), events.try_next()).await;
            match event.expect("an event is due").unwrap().expect("the watch goes on") {
                watcher::Event::Init => "init".to_owned(),
                watcher::Event::InitApply(slice) => format!("there {}", slice.name_any()),
                watcher::Event::InitDone => "complete".to_owned(),
                watcher::Event::Apply(slice) => format!("apply {}", slice.name_any()),
                watcher::Event::Delete(slice) => format!("delete {}", slice.name_any()),
            }
        };
        assert_eq!(next().await, "init");
        assert_eq!(next().await, "there a");
        assert_eq!(next().await, "complete");

        slices.create(&PostParams::default(), &slice("b", &json!([]))).await.unwrap();
        let mut foreign = slice("c", &json!([]));
        foreign.spec.driver = "other.dev".to_owned();
        slices.create(&PostParams::default(), &foreign).await.unwrap();
        slices.delete("a", &DeleteParams::default()).await.unwrap();
        assert_eq!(next().await, "apply b");
        assert_eq!(next().await, "delete a");
        let watches = server.requests().iter().filter(|r| r.verb == Verb::Watch).count();
        assert_eq!(watches, 1);
    }
}

#[tokio::test]
async fn a_watch_from_forgotten_times_is_told_to_start_over() {
    let (server, client) = server().await;
    let slices = Api::<ResourceSlice>::all(client);
    let first = slices.create(&PostParams::default(), &slice("a", &json!([]))).await.unwrap();
    slices.create(&PostParams::default(), &slice("b", &json!([]))).await.unwrap();
    server.compact();

    let version = first.resource_version().unwrap();
    let events = slices.watch(&kube::api::WatchParams::default(), &version).await.unwrap();
    let events: Vec<_> = events.collect().await;

    match events.as_slice() {
        [Ok(kube::api::WatchEvent::Error(status))] => assert_eq!(status.code, 410),
        other => panic!("one error was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_finalizer_holds_a_claim_back() {
    let (server, client) = server().await;
    server.apply(CLAIM).unwrap();
    let claims = Api::<ResourceClaim>::default_namespaced(client);
    let finalizers = |list: Value| Patch::Merge(json!({ "metadata": { "finalizers": list } }));
    let parameters = PatchParams::default();
    let hold = finalizers(json!(["resource.kubernetes.io/delete-protection"]));
    claims.patch("nics", &parameters, &hold).await.unwrap();

    claims.delete("nics", &DeleteParams::default()).await.unwrap();
    assert!(claims.get("nics").await.unwrap().metadata.deletion_timestamp.is_some());

    claims.patch("nics", &parameters, &finalizers(Value::Null)).await.unwrap();
    assert_eq!(claims.get_opt("nics").await.unwrap(), None);
}

#[tokio::test]
async fn faults_come_as_often_as_asked() {
    let (server, client) = server().await;
    server.apply(CLAIM).unwrap();
    let claims = Api::<ResourceClaim>::default_namespaced(client);

    server.fail_when(1, 404, |request| request.resource == "resourceclaims");
    server.fail_next(1, 403);
    assert_eq!(code(claims.get("nics").await).0, 404);
    assert_eq!(code(claims.get("nics").await), (403, "Forbidden".to_owned()));
    assert!(claims.get("nics").await.is_ok());

    let statuses: Vec<u16> = server.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [404, 403, 200]);
    server.forget_requests();
    assert_eq!(server.requests(), []);
}

#[tokio::test]
async fn the_kubeconfig_file_leads_to_the_server() {
    let (server, _client) = server().await;
    server.apply(CLAIM).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    server.kubeconfig(&path).unwrap();

    let file = kube::config::Kubeconfig::read_from(&path).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
    let client = Client::try_from(config).unwrap();

    assert!(Api::<Node>::all(client.clone()).get("node-a").await.is_ok());
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
}
