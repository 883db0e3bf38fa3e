//! The node's slices in the API server, whatever happens to them.

use std::sync::Arc;
use std::time::Duration;

use driver::attach::{Desk, Worker};
use driver::dra::{HealthSources, Names, Offer, Pool, Publisher, Shares, Sieve, Vocabulary};
use driver::inventory::Inventory;
use driver::model::{Device, PciFacts};
use driver::provider::Providers;
use driver::telemetry::{AllVitals, Metrics, Sightings};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::Client;
use serde_json::{Value, json};
use tests::api_server::Server;
use tests::scheduler::{self, ScheduleError};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::api::Api;
use super::{claim_ref, device, eventually, pool, record};

/// Longer than the publisher takes to notice and write.
const QUIET: Duration = Duration::from_millis(1500);

/// A publisher of `devices`; it ends with the guard.
fn publish(api: &Api, devices: Vec<Device>) -> (Desk, DropGuard) {
    publish_on(api.client(), devices, Shares::new(), None)
}

/// The same, with what providers say.
pub(super) fn publish_what_providers_say(
    api: &Api,
    devices: Vec<Device>,
    providers: Providers,
) -> (Desk, DropGuard) {
    let vocabulary = Vocabulary { names: Names::Ours, domain: pool().driver };
    let offer = Offer { providers, ..offer(vocabulary, Shares::new(), None) };
    publish_as(pool(), api.client(), devices, offer)
}

fn publish_on(
    client: Client,
    devices: Vec<Device>,
    shares: Shares,
    health: Option<HealthSources>,
) -> (Desk, DropGuard) {
    let vocabulary = Vocabulary { names: Names::Ours, domain: pool().driver };
    let offer = offer(vocabulary, shares, health);
    publish_as(pool(), client, devices, offer)
}

fn offer(vocabulary: Vocabulary, shares: Shares, health: Option<HealthSources>) -> Offer {
    let kernel_release = "6.18.44-cloud-amd64".to_owned();
    // Nobody is asked, so nothing is granted and nothing written.
    let providers = Providers::open("weir.dev", "/nowhere".as_ref()).unwrap();
    let sieve = watch::channel(Sieve::All).1;
    Offer { vocabulary, kernel_release, shares, health, sieve, providers, state_dir: None }
}

fn publish_as(pool: Pool, client: Client, devices: Vec<Device>, offer: Offer) -> (Desk, DropGuard) {
    let (worker, desk) = Worker::pair();
    let publisher = Publisher::new(
        pool,
        offer,
        client,
        Inventory::fixed(devices),
        worker,
        Metrics::new(),
        watch::channel(false).0,
    );
    let shutdown = CancellationToken::new();
    tokio::spawn(publisher.run(shutdown.clone()));
    (desk, shutdown.drop_guard())
}

fn devices(count: usize) -> Vec<Device> {
    (0..count).map(|n| device(&format!("eth{n}"))).collect()
}

/// Generation, slice count and number of devices of each slice.
fn summary(api: &Api) -> Vec<(i64, i64, usize)> {
    let summarize = |slice: Value| {
        let pool = &slice["spec"]["pool"];
        let devices = slice["spec"]["devices"].as_array().map_or(0, Vec::len);
        let number = |name: &str| pool[name].as_i64().unwrap_or(-1);
        (number("generation"), number("resourceSliceCount"), devices)
    };
    api.slices().into_iter().map(summarize).collect()
}

async fn published(api: &Api, expected: &[(i64, i64, usize)]) {
    eventually(&format!("slices become {expected:?}"), || summary(api) == expected).await;
}

#[tokio::test]
async fn devices_are_published_once_and_owned_by_the_node() {
    let api = Api::default();
    let (desk, _guard) = publish(&api, devices(2));

    published(&api, &[(1, 1, 2)]).await;
    // A record of a device that is published already changes nothing.
    desk.records.send_replace(Arc::new(vec![record(claim_ref("nics", "c1"), device("eth1"))]));
    sleep(QUIET).await;

    assert_eq!(api.writes(), 1, "{:?}", api.requests());
    let slice = &api.slices()[0];
    assert_eq!(slice["spec"]["nodeName"], "node-a");
    let owner = &slice["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Node"), &json!("node-uid")));
}

#[tokio::test]
async fn many_devices_are_split_and_fewer_shrink_again() {
    let api = Api::default();
    let first = publish(&api, devices(300));
    published(&api, &[(1, 3, 128), (1, 3, 128), (1, 3, 44)]).await;
    drop(first);

    // The next start finds fewer devices.
    let second = publish(&api, devices(100));
    published(&api, &[(2, 1, 100)]).await;
    let writes = &api.requests()[..];
    assert!(writes.last().unwrap().starts_with("DELETE"), "what is too much goes last: {writes:?}");
    drop(second);

    let before = api.writes();
    let _third = publish(&api, devices(100));
    sleep(QUIET).await;
    assert_eq!(api.writes(), before, "a start that finds everything right writes nothing");
}

#[tokio::test]
async fn a_device_that_a_claim_holds_stays_published() {
    let api = Api::default();
    let (desk, _guard) = publish(&api, devices(1));
    published(&api, &[(1, 1, 1)]).await;
    let held = record(claim_ref("nics", "c1"), device("away"));

    desk.records.send_replace(Arc::new(vec![held]));

    published(&api, &[(2, 1, 2)]).await;
    assert_eq!(api.slices()[0]["spec"]["devices"][0]["name"], "away");
}

#[tokio::test]
async fn slices_that_somebody_deletes_or_edits_are_restored() {
    let api = Api::default();
    let _publisher = publish(&api, devices(200));
    let expected = [(1, 2, 128), (1, 2, 72)];
    published(&api, &expected).await;
    let names: Vec<_> = api.slices().iter().map(|s| s["metadata"]["name"].clone()).collect();

    api.remove_slice(&names[1]);
    published(&api, &expected).await;
    assert_eq!(api.writes(), 3, "only what was missing is made again");

    // Kubelet does that when it starts.
    for name in &names {
        api.remove_slice(name);
    }
    published(&api, &[(2, 2, 128), (2, 2, 72)]).await;

    let mut edited = api.slices()[0].clone();
    edited["spec"]["devices"] = json!([]);
    api.put_slice(edited);
    published(&api, &[(3, 2, 128), (3, 2, 72)]).await;
}

#[tokio::test]
async fn a_conflict_is_decided_anew() {
    let api = Api::default();
    let (desk, _guard) = publish(&api, devices(1));
    published(&api, &[(1, 1, 1)]).await;
    api.refuse(&[(409, "the object has been modified")]);

    desk.records.send_replace(Arc::new(vec![record(claim_ref("nics", "c1"), device("away"))]));

    published(&api, &[(2, 1, 2)]).await;
    let lists =
        api.requests().iter().filter(|request| request.ends_with("/resourceslices")).count();
    assert!(lists >= 3, "listed again after the conflict: {:?}", api.requests());
}

#[tokio::test]
async fn what_the_server_finds_invalid_is_not_sent_again_at_once() {
    let api = Api::default();
    api.refuse(&[(422, "spec.devices[0].name: Invalid value")]);
    let _publisher = publish(&api, devices(1));
    eventually("a first try", || api.writes() == 1).await;
    sleep(2 * QUIET).await;
    assert_eq!(api.writes(), 1);
}

#[tokio::test]
async fn a_server_that_is_briefly_away_gets_the_slices_later() {
    let api = Api::default();
    api.refuse(&[(503, "not now"), (500, "nor now")]);
    let _publisher = publish(&api, devices(1));
    published(&api, &[(1, 1, 1)]).await;
    assert_eq!(api.writes(), 3);
}

/// A server with the class that the driver's claims name, and claims that ask as `exactly` says.
async fn scheduler_with(claims: usize, exactly: &Value) -> Server {
    let server = Server::start().await.unwrap();
    let mut documents = vec![json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "nic"},
        "spec": {"selectors": [{"cel": {"expression": "device.driver == 'weir.dev'"}}]},
    })];
    for n in 0..claims {
        documents.push(json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": format!("c{n}"), "namespace": "default"},
            "spec": {"devices": {"requests": [{"name": "x", "exactly": exactly}]}},
        }));
    }
    for document in documents {
        server.apply(&document.to_string()).unwrap();
    }
    server
}

async fn allocate(server: &Server, claim: &str) -> Result<ResourceClaim, ScheduleError> {
    let pod = serde_json::from_value(json!({"metadata": {"name": claim, "uid": claim}})).unwrap();
    scheduler::allocate(&server.client().unwrap(), "default", claim, &pod, "node-a").await
}

fn slices(server: &Server) -> Vec<ResourceSlice> {
    server.objects::<ResourceSlice>()
}

/// Claims as people wrote them for DraNet, in the style of its documentation.
#[tokio::test]
async fn claims_for_dranet_select_our_devices() {
    let server = Server::start().await.unwrap();
    let class = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "dranet"},
        "spec": {"selectors": [{"cel": {"expression": "device.driver == \"dra.net\""}}]},
    });
    server.apply(&class.to_string()).unwrap();
    let asks = [
        ("by-name", r#"device.attributes["dra.net"].ifName == "eth1""#),
        ("by-rdma", r#"device.attributes["dra.net"].rdma == true"#),
        ("by-kind", r#"device.attributes["dra.net"].virtual == false"#),
        ("by-vendor", r#"device.attributes["dra.net"].pciVendor.startsWith("Mellanox")"#),
        (
            "by-place",
            r#"device.attributes["dra.net"].numaNode == 1
               && device.attributes["resource.kubernetes.io"].pcieRoot == "pci0000:80""#,
        ),
        (
            "by-programs",
            r#"device.attributes["dra.net"].ebpf && !device.attributes["dra.net"].rdma"#,
        ),
    ];
    for (name, expression) in asks {
        let exactly = json!({
            "deviceClassName": "dranet",
            "selectors": [{"cel": {"expression": expression}}],
        });
        let claim = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"devices": {"requests": [{"name": "nic", "exactly": exactly}]}},
        });
        server.apply(&claim.to_string()).unwrap();
    }

    let rdma = Device {
        kind: "device".to_owned(),
        is_virtual: false,
        pci: Some(PciFacts {
            address: "0000:81:00.0".parse().unwrap(),
            root: "pci0000:80".to_owned(),
            vendor: Some("15b3".to_owned()),
            device: Some("101d".to_owned()),
            subsystem: None,
        }),
        numa_node: Some(1),
        rdma_device: Some("mlx5_0".to_owned()),
        ..device("eth1")
    };
    let mut plain = device("eth2");
    plain.pci.clone_from(&rdma.pci);
    plain.numa_node = Some(0);
    plain.ebpf.tcx_programs = vec!["handle_ingress".to_owned()];
    let pool = Pool { driver: "dra.net".to_owned(), ..pool() };
    let vocabulary = Vocabulary { names: Names::Dranet, domain: "dra.net".to_owned() };
    let offer = offer(vocabulary, Shares::new(), None);
    let client = server.client().unwrap();
    let _publisher = publish_as(pool, client, vec![rdma, plain], offer);
    eventually("the slice is there", || !slices(&server).is_empty()).await;

    for (name, _) in asks {
        let claim = allocate(&server, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let allocation = json!(claim.status.unwrap().allocation);
        let result = &allocation["devices"]["results"][0];
        let device = if name == "by-programs" { "eth2" } else { "eth1" };
        assert_eq!((&result["driver"], &result["device"]), (&json!("dra.net"), &json!(device)));
        let claims = kube::Api::<ResourceClaim>::namespaced(server.client().unwrap(), "default");
        claims.delete(name, &kube::api::DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_shared_device_is_allocated_as_often_as_it_has_shares() {
    let server = scheduler_with(3, &json!({"deviceClassName": "nic"})).await;
    let fast = Device { speed_mbps: Some(25_000), ..device("eth1") };
    let shares = Shares::from([(fast.interface.clone().unwrap(), 2)]);
    let _publisher = publish_on(server.client().unwrap(), vec![fast], shares, None);
    eventually("the slice is there", || slices(&server).len() == 1).await;

    let mut shares = Vec::new();
    for claim in ["c0", "c1"] {
        let allocated = json!(allocate(&server, claim).await.unwrap());
        let result = allocated["status"]["allocation"]["devices"]["results"][0].clone();
        assert_eq!(result["consumedCapacity"]["weir.dev/bandwidth"], "12500M");
        shares.push(result["shareID"].clone());
    }
    assert_ne!(shares[0], shares[1]);
    let error = allocate(&server, "c2").await.unwrap_err().to_string();
    assert_eq!(error, "request x wants 1 devices; 1 fit and 0 of them free");
}

#[tokio::test]
async fn a_device_without_carrier_is_tainted_and_avoided_until_it_has_one() {
    let server = scheduler_with(1, &json!({"deviceClassName": "nic"})).await;
    let dark = Device { state: "lowerlayerdown".to_owned(), ..device("eth1") };
    let (seen, of_devices) = watch::channel(Arc::new(vec![dark]));
    let (_records, of_records) = watch::channel(Arc::default());
    let (_vitals, of_vitals) = watch::channel(AllVitals::default());
    let (_sightings, of_sightings) = watch::channel(Sightings::default());
    let (_idle, idle) = watch::channel(Arc::default());
    let health = HealthSources {
        devices: of_devices,
        idle,
        records: of_records,
        vitals: of_vitals,
        sightings: of_sightings,
    };
    // The inventory of attributes does not change here; the taint comes from the health alone.
    let there = vec![device("eth1")];
    let client = server.client().unwrap();
    let _publisher = publish_on(client, there, Shares::new(), Some(health));

    let taint = || {
        let slice = json!(slices(&server).into_iter().next()?);
        slice["spec"]["devices"][0]["taints"][0]["key"].as_str().map(str::to_owned)
    };
    eventually("it is tainted", || taint().as_deref() == Some("weir.dev/no-carrier")).await;
    let writes = || server.requests().iter().filter(|request| request.verb.is_write()).count();
    let before = writes();
    let error = allocate(&server, "c0").await.unwrap_err().to_string();
    assert_eq!(error, "request x wants 1 devices; 0 fit and 0 of them free");
    sleep(QUIET).await;
    assert_eq!(writes(), before, "the time of the taint stays, so nothing is written");

    seen.send_replace(Arc::new(vec![device("eth1")]));
    eventually("it is not tainted any more", || taint().is_none()).await;
    allocate(&server, "c0").await.unwrap();
}
