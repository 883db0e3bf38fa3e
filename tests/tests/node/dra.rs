//! Kubelet, the DRA room and an API server, with the worker's part played by the test.

#![cfg(test)]

mod api;
mod calls;
mod events;
mod health;
mod providers;
mod publishing;
mod repeats;
mod rules;
mod sockets;
mod status;
mod sweeping;

use std::sync::Arc;
use std::time::Duration;

use driver::attach::{AttachError, Command, Desk, Notice, Notices, PrepareClaim, Wanted, Worker};
use driver::dra::{self, HealthSources, Pool};
use driver::inventory::Inventory;
use driver::model::{BuildId, ClaimRef, Device, EbpfAbilities, Phase, PodRef, Record};
use driver::provider::Providers;
use driver::telemetry::{AllVitals, Metrics, Sightings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::kubelet::{Driver, Kubelet, Service};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::api::Api;

const DRIVER: &str = "weir.dev";

/// Longer than anything here takes, short enough to wait for when something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

fn pool() -> Pool {
    Pool { driver: DRIVER.to_owned(), node: "node-a".to_owned() }
}

/// Everything that the plugin needs around it, and the plugin.
struct World {
    root: TempDir,
    api: Api,
    worker: Worker,
    /// Whether the container runtime is connected.
    runtime: watch::Sender<bool>,
    /// What kubelet said of the registration.
    registered: watch::Receiver<bool>,
    /// What the inventory, the worker and the watch see, as far as health is concerned.
    devices: watch::Sender<Arc<Vec<Device>>>,
    records: watch::Sender<Arc<Vec<Record>>>,
    vitals: watch::Sender<AllVitals>,
    sightings: watch::Sender<Sightings>,
    /// What the plugin would have claims told.
    notices: mpsc::Receiver<Notice>,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), dra::ServeError>>,
}

impl World {
    /// The plugin with devices eth1 and eth2, and a worker that takes `pause` for each preparation.
    fn start(pause: Duration) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), pause)
    }

    /// The same, in a kubelet directory that has been used before.
    fn start_in(root: TempDir, pause: Duration) -> Self {
        let (worker, desk) = Worker::pair();
        tokio::spawn(work(desk, pause));
        Self::start_on(root, worker, vec![device("eth1"), device("eth2")])
    }

    /// The plugin as kubelet has it, asking these providers.
    async fn registered_asking(providers: Providers) -> (Self, Kubelet, Driver) {
        let (worker, desk) = Worker::pair();
        tokio::spawn(work(desk, Duration::ZERO));
        let (root, devices) = (tempfile::tempdir().unwrap(), vec![device("eth1"), device("eth2")]);
        let world = Self::start_asking(root, worker, devices, providers);
        let kubelet = Kubelet::start_knowing(world.root.path(), &[Service::V1]).unwrap();
        let driver = kubelet.wait_for_driver(DRIVER, PATIENCE).await.unwrap();
        (world, kubelet, driver)
    }

    /// The plugin with these devices and this worker.
    fn start_on(root: TempDir, worker: Worker, there: Vec<Device>) -> Self {
        let providers = Providers::open(DRIVER, root.path()).unwrap();
        Self::start_asking(root, worker, there, providers)
    }

    fn start_asking(
        root: TempDir,
        worker: Worker,
        there: Vec<Device>,
        providers: Providers,
    ) -> Self {
        let api = Api::default();
        let inventory = Inventory::fixed(there.clone());
        let (devices, of_devices) = watch::channel(Arc::new(there));
        let (records, of_records) = watch::channel(Arc::default());
        let (vitals, of_vitals) = watch::channel(AllVitals::default());
        let (sightings, of_sightings) = watch::channel(Sightings::default());
        let health = HealthSources {
            devices: of_devices,
            idle: inventory.idle(),
            records: of_records,
            vitals: of_vitals,
            sightings: of_sightings,
        };
        let (runtime, connected) = watch::channel(true);
        let (left, notices) = Notices::pair();
        let plugin = dra::Plugin::new(
            pool(),
            api.client(),
            worker.clone(),
            (inventory, providers),
            connected,
            Metrics::new(),
            left,
        );
        let (verdict, registered) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let (path, token) = (root.path().to_owned(), shutdown.clone());
        let served =
            tokio::spawn(async move { dra::serve(plugin, health, &path, verdict, token).await });
        Self {
            root,
            api,
            worker,
            runtime,
            registered,
            devices,
            records,
            vitals,
            sightings,
            notices,
            shutdown,
            served,
        }
    }

    /// The plugin as a kubelet that knows `services` has it.
    async fn registered_with(services: &[Service]) -> (Self, Kubelet, Driver) {
        let world = Self::start(Duration::ZERO);
        let kubelet = Kubelet::start_knowing(world.root.path(), services).unwrap();
        let driver = kubelet.wait_for_driver(DRIVER, PATIENCE).await.unwrap();
        (world, kubelet, driver)
    }

    async fn registered() -> (Self, Kubelet, Driver) {
        Self::registered_with(&[Service::V1, Service::V1Beta1]).await
    }
}

/// Plays the worker: prepares whatever is wanted, remembers it, and never touches anything. The
/// device `busy` cannot be prepared.
async fn work(mut desk: Desk, pause: Duration) {
    while let Some(command) = desk.commands.recv().await {
        let mut records = desk.records.borrow().to_vec();
        match command {
            Command::Prepare { wanted, answer } => {
                sleep(pause).await;
                let busy = wanted.devices.iter().find(|device| device.name.as_str() == "busy");
                if let Some(Wanted { name: device, .. }) = busy.cloned() {
                    let holder = claim_ref("other", "f0");
                    let _ = answer.send(Err(AttachError::InUse { device, holder }));
                    continue;
                }
                let prepared = prepared(&wanted);
                records.retain(|record| record.claim != wanted.claim);
                records.extend(prepared.clone());
                desk.records.send_replace(Arc::new(records));
                let _ = answer.send(Ok(prepared));
            }
            Command::Unprepare { claim, answer } => {
                records.retain(|record| record.claim.uid != claim);
                desk.records.send_replace(Arc::new(records));
                let _ = answer.send(Ok(()));
            }
            other => panic!("dra has no business with {other:?}"),
        }
    }
}

fn prepared(wanted: &PrepareClaim) -> Vec<Record> {
    let PrepareClaim { claim, pod, devices } = wanted;
    devices
        .iter()
        .map(|wanted| Record {
            requests: wanted.requests.clone(),
            pool: wanted.pool.clone(),
            wishes: wanted.wishes.clone(),
            pod: pod.clone(),
            ..record(claim.clone(), device(wanted.name.as_str()))
        })
        .collect()
}

/// `device` prepared for `claim`, which wished nothing, and for pod-a.
fn record(claim: ClaimRef, device: Device) -> Record {
    let mut sample = driver::testing::record("eth1", None, Phase::Prepared);
    sample.before.name = device.interface.clone().expect("an interface");
    Record {
        claim,
        pod: PodRef {
            namespace: "default".to_owned(),
            name: "pod-a".to_owned(),
            uid: "0a".parse().unwrap(),
        },
        requests: vec!["a".to_owned()],
        pool: pool().node,
        build: BuildId::default(),
        device,
        ..sample
    }
}

fn device(name: &str) -> Device {
    Device {
        addresses: vec!["10.0.0.7/24".parse().unwrap()],
        driver: None,
        speed_mbps: None,
        ebpf: EbpfAbilities::default(),
        ..driver::testing::device(name)
    }
}

fn claim_ref(name: &str, uid: &str) -> ClaimRef {
    ClaimRef { namespace: "default".to_owned(), name: name.to_owned(), uid: uid.parse().unwrap() }
}

/// A claim that was allocated `devices` of ours, one for each request `r0`, `r1` …, with `config`.
fn claim(name: &str, uid: &str, devices: &[&str], config: &[Value]) -> Value {
    let results: Vec<_> = devices
        .iter()
        .enumerate()
        .map(|(n, device)| {
            let request = format!("r{n}");
            json!({"request": request, "driver": DRIVER, "pool": "node-a", "device": device})
        })
        .collect();
    let config: Vec<_> = config
        .iter()
        .map(|parameters| {
            let opaque = json!({"driver": DRIVER, "parameters": parameters});
            json!({"source": "FromClaim", "requests": [], "opaque": opaque})
        })
        .collect();
    json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"namespace": "default", "name": name, "uid": uid},
        "spec": {},
        "status": {
            "allocation": {"devices": {"results": results, "config": config}},
            "reservedFor": [{"resource": "pods", "name": "pod-a", "uid": "0a"}],
        },
    })
}

/// Waits until `is_so`.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never happened: {what}");
}
