//! What the claims are told of their devices, by server-side apply against the box's API server.

use std::sync::Arc;
use std::time::Duration;

use driver::attach::{Notice, NoticeKind};
use driver::dra::{News, StatusWriter};
use driver::model::{ClaimRef, IfIndex, NetnsId, NetnsRef, Phase, Record};
use driver::telemetry::Sightings;
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::{Value, json};
use tests::api_server::{Server, Verb};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{DRIVER, claim, claim_ref, device, eventually, record};

/// A writer, what it hears, and what it writes to.
struct Desk {
    attached: mpsc::UnboundedSender<Vec<Record>>,
    notices: mpsc::UnboundedSender<Notice>,
    records: watch::Sender<Arc<Vec<Record>>>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Desk {
    /// A writer that finds `records` in the checkpoint.
    fn start(server: &Server, records: Vec<Record>) -> Self {
        let (attached, of_attached) = mpsc::unbounded_channel();
        let (notices, of_notices) = mpsc::unbounded_channel();
        let (recorded, present) = watch::channel(Arc::new(records));
        let news = News { attached: of_attached, notices: of_notices };
        // Nobody has looked yet.
        let seen = watch::channel(Sightings::default()).1;
        let writer = StatusWriter::new(DRIVER, server.client().unwrap(), news, seen, present);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(writer.run(shutdown.clone()));
        Self { attached, notices, records: recorded, shutdown, running }
    }

    fn record(&self, records: &[Record]) {
        self.records.send_replace(Arc::new(records.to_vec()));
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
    }
}

/// A server with these claims, of which each was allocated `eth1`. The UIDs are the server's.
pub(super) async fn server_with(names: &[&str]) -> (Server, Vec<ClaimRef>) {
    let server = Server::start().await.unwrap();
    let mut claims = Vec::new();
    for name in names {
        let yaml = claim(name, "", &["eth1"], &[]).to_string();
        let stored = server.apply(&yaml).unwrap();
        claims.push(claim_ref(name, stored[0]["metadata"]["uid"].as_str().unwrap()));
    }
    (server, claims)
}

pub(super) fn prepared(claim: &ClaimRef) -> Record {
    record(claim.clone(), device("eth1"))
}

pub(super) fn attached(claim: &ClaimRef) -> Record {
    let netns = NetnsRef { path: "/run/netns/a".into(), id: NetnsId { device: 4, inode: 9 } };
    Record { phase: Phase::Attached { netns, inside: IfIndex(2) }, ..prepared(claim) }
}

fn entry(server: &Server, claim: &ClaimRef) -> Option<Value> {
    let object: ResourceClaim = server.object(Some("default"), &claim.name)?;
    Some(json!(object.status?.devices?.into_iter().next()?))
}

/// The condition's status and reason.
fn said(server: &Server, claim: &ClaimRef, what: &str) -> Option<String> {
    let entry = entry(server, claim)?;
    let conditions = entry["conditions"].as_array()?.clone();
    let condition = conditions.into_iter().find(|condition| condition["type"] == what)?;
    Some(format!("{} {}", condition["status"].as_str()?, condition["reason"].as_str()?))
}

async fn says(server: &Server, claim: &ClaimRef, ready: &str) {
    eventually(ready, || said(server, claim, "Ready").as_deref() == Some(ready)).await;
}

fn writes(server: &Server) -> usize {
    server.requests().iter().filter(|request| request.verb.is_write()).count()
}

fn failure(claim: &ClaimRef, message: &str) -> Notice {
    Notice {
        claim: claim.clone(),
        pod: None,
        device: None,
        kind: NoticeKind::AttachFailed,
        message: message.to_owned(),
    }
}

#[tokio::test]
async fn an_attached_device_is_told_in_its_claims_status() {
    let (server, claims) = server_with(&["nics"]).await;
    server.fail_when(1, 503, |request| request.verb == Verb::Apply);
    let desk = Desk::start(&server, Vec::new());
    desk.record(&[attached(&claims[0])]);

    desk.attached.send(vec![attached(&claims[0])]).unwrap();

    says(&server, &claims[0], "True NetworkDeviceReady").await;
    let entry = entry(&server, &claims[0]).unwrap();
    assert_eq!(entry["device"], "eth1");
    assert_eq!(entry["networkData"]["interfaceName"], "eth1");
    desk.stop().await;
    let patches: Vec<_> =
        server.requests().into_iter().filter(|request| request.verb == Verb::Apply).collect();
    assert_eq!(patches.last().unwrap().query["fieldManager"], "weir.dev");
    assert_eq!(patches.iter().filter(|patch| patch.status == 200).count(), 1, "{patches:?}");
}

#[tokio::test]
async fn a_device_goes_through_its_life_in_its_claims_status() {
    let (server, claims) = server_with(&["nics"]).await;
    let nics = &claims[0];
    let desk = Desk::start(&server, Vec::new());
    desk.record(&[prepared(nics)]);
    desk.notices.send(failure(nics, "device eth1: out of time")).unwrap();
    says(&server, nics, "False AttachFailed").await;
    assert_eq!(entry(&server, nics).unwrap()["networkData"], Value::Null);

    desk.record(&[attached(nics)]);
    says(&server, nics, "True NetworkDeviceReady").await;
    assert_eq!(said(&server, nics, "HostRestored"), None);

    let residue = vec!["mtu 1500".to_owned()];
    desk.record(&[Record { residue, ..prepared(nics) }]);
    says(&server, nics, "False Detached").await;
    assert_eq!(said(&server, nics, "HostRestored").as_deref(), Some("False Residue"));

    desk.record(&[prepared(nics)]);
    let restored = || said(&server, nics, "HostRestored").as_deref() == Some("True Restored");
    eventually("the residue is swept", restored).await;
    desk.stop().await;
}

/// The worker's records may go from attached to none without a moment in between that is seen.
#[tokio::test]
async fn an_unprepared_claim_that_keeps_its_allocation_says_that_it_ended() {
    let (server, claims) = server_with(&["nics"]).await;
    let desk = Desk::start(&server, vec![attached(&claims[0])]);
    says(&server, &claims[0], "True NetworkDeviceReady").await;
    desk.record(&[]);
    says(&server, &claims[0], "False Detached").await;
    desk.stop().await;
}

#[tokio::test]
async fn what_is_only_prepared_is_not_spoken_of() {
    let (server, claims) = server_with(&["old", "new"]).await;
    let desk = Desk::start(&server, vec![prepared(&claims[0])]);
    desk.record(&[prepared(&claims[0]), prepared(&claims[1])]);
    desk.record(&[]);
    desk.stop().await;
    assert_eq!(writes(&server), 0);
}

#[tokio::test]
async fn a_driver_that_starts_again_keeps_the_times_and_writes_only_what_is_new() {
    let (server, claims) = server_with(&["ended", "stayed"]).await;
    let (ended, stayed) = (&claims[0], &claims[1]);
    let first = Desk::start(&server, vec![attached(ended), attached(stayed)]);
    says(&server, ended, "True NetworkDeviceReady").await;
    says(&server, stayed, "True NetworkDeviceReady").await;
    first.stop().await;
    let before = entry(&server, stayed).unwrap();
    server.forget_requests();
    // Times in statuses are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;

    // The pod of one ended while no driver ran.
    let second = Desk::start(&server, vec![prepared(ended), attached(stayed)]);
    second.attached.send(vec![attached(stayed)]).unwrap();
    says(&server, ended, "False Detached").await;
    second.stop().await;

    assert_eq!(entry(&server, stayed).unwrap(), before);
    assert_eq!(writes(&server), 1, "{:?}", server.requests());
    let mut generation = attached(stayed);
    generation.wishes.interface.name = Some("net7".parse().unwrap());
    let third = Desk::start(&server, vec![generation]);
    let renamed = || entry(&server, stayed).unwrap()["networkData"]["interfaceName"] == "net7";
    eventually("what is new is written", renamed).await;
    third.stop().await;
    let time = |entry: &Value| entry["conditions"][0]["lastTransitionTime"].clone();
    assert_eq!(time(&entry(&server, stayed).unwrap()), time(&before), "still ready since then");
}

#[tokio::test]
async fn other_drivers_entries_stay() {
    let (server, claims) = server_with(&["nics"]).await;
    let mut both = claim("both", "", &["eth1", "gpu-0"], &[]);
    both["status"]["allocation"]["devices"]["results"][1]["driver"] = json!("gpu.example.com");
    both["status"]["devices"] =
        json!([{"driver": "gpu.example.com", "pool": "node-a", "device": "gpu-0"}]);
    let stored = server.apply(&both.to_string()).unwrap();
    let both = claim_ref("both", stored[0]["metadata"]["uid"].as_str().unwrap());

    let desk = Desk::start(&server, vec![attached(&both), attached(&claims[0])]);

    let drivers = || {
        let object: ResourceClaim = server.object(Some("default"), "both").unwrap();
        let devices = object.status.unwrap().devices.unwrap_or_default();
        devices.into_iter().map(|entry| entry.driver).collect::<Vec<_>>()
    };
    eventually("both are there", || drivers() == ["gpu.example.com", "weir.dev"]).await;
    desk.stop().await;
}

#[tokio::test]
async fn a_claim_that_is_gone_or_another_one_is_left_alone() {
    let (server, claims) = server_with(&["nics"]).await;
    let gone = claim_ref("gone", "c1");
    let replaced = claim_ref("nics", "c2");
    let desk = Desk::start(&server, Vec::new());
    desk.attached.send(vec![attached(&gone)]).unwrap();
    desk.attached.send(vec![attached(&replaced)]).unwrap();
    desk.stop().await;
    assert_eq!(writes(&server), 0, "{:?}", server.requests());
    assert_eq!(entry(&server, &claims[0]), None);
}

#[tokio::test]
async fn a_claim_that_cannot_be_written_holds_up_no_other() {
    let (server, claims) = server_with(&["slow", "quick"]).await;
    server.fail_when(4, 503, |request| {
        request.verb == Verb::Apply && request.name.as_deref() == Some("slow")
    });
    let desk = Desk::start(&server, claims.iter().map(attached).collect());
    says(&server, &claims[1], "True NetworkDeviceReady").await;
    assert_eq!(entry(&server, &claims[0]), None, "the other one is still being tried");
    // It waits for the third and the fourth attempt longer than this test wants to.
    drop(desk);
}

#[tokio::test]
async fn much_news_of_one_claim_is_written_together() {
    let (server, claims) = server_with(&["nics"]).await;
    let desk = Desk::start(&server, Vec::new());
    for _ in 0..100 {
        desk.record(&[prepared(&claims[0])]);
        desk.record(&[attached(&claims[0])]);
        desk.attached.send(vec![attached(&claims[0])]).unwrap();
    }
    desk.stop().await;
    says(&server, &claims[0], "True NetworkDeviceReady").await;
    assert!(writes(&server) <= 2, "{:?}", server.requests());
}
