//! What claims and pods are told by events.

use std::time::Duration;

use driver::attach::{Notice, NoticeKind, Notices};
use driver::dra::Events;
use driver::model::ClaimRef;
use driver::telemetry::Metrics;
use k8s_openapi::api::events::v1::Event;
use tests::api_server::{Server, Verb};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{World, claim, claim_ref, device, eventually, pool, record};

struct Teller {
    server: Server,
    notices: Notices,
    statuses: mpsc::UnboundedReceiver<Notice>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Teller {
    async fn start() -> Self {
        let server = Server::start().await.unwrap();
        let (notices, waiting) = Notices::pair();
        let (told, statuses) = mpsc::unbounded_channel();
        let events = Events::new(pool(), server.client().unwrap(), waiting, told, Metrics::new());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(events.run(shutdown.clone()));
        Self { server, notices, statuses, shutdown, running }
    }

    fn events(&self) -> Vec<Event> {
        self.server.objects::<Event>()
    }

    /// Kind of object, reason, note and how often, in a stable order.
    fn said(&self) -> Vec<String> {
        let said = |event: Event| {
            let kind = event.regarding.unwrap().kind.unwrap();
            let count = event.series.map_or(1, |series| series.count);
            format!("{kind} {}: {} x{count}", event.reason.unwrap(), event.note.unwrap())
        };
        let mut all: Vec<_> = self.events().into_iter().map(said).collect();
        all.sort();
        all
    }

    async fn says(&self, expected: &[&str]) {
        eventually(&format!("events become {expected:?}"), || self.said() == expected).await;
    }
}

fn notice(kind: NoticeKind, message: &str) -> Notice {
    notice_of(claim_ref("nics", "c1"), kind, message)
}

fn notice_of(claim: ClaimRef, kind: NoticeKind, message: &str) -> Notice {
    let record = record(claim, device("eth1"));
    let (claim, pod, device) = (record.claim, Some(record.pod), Some(record.device.name));
    Notice { claim, pod, device, kind, message: message.to_owned() }
}

#[tokio::test]
async fn a_failure_is_told_to_the_claim_and_to_the_pod_with_its_cause() {
    let mut teller = Teller::start().await;
    let failed = notice(NoticeKind::AttachFailed, "device eth1: move: no such device");

    teller.notices.leave(failed.clone());

    teller
        .says(&[
            "Pod AttachFailed: device eth1: move: no such device x1",
            "ResourceClaim AttachFailed: device eth1: move: no such device x1",
        ])
        .await;
    let event = &teller.events()[0];
    assert_eq!(event.reporting_controller.as_deref(), Some("weir.dev"));
    assert_eq!(event.reporting_instance.as_deref(), Some("node-a"));
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(teller.statuses.recv().await, Some(failed), "the status tells it, too");
}

#[tokio::test]
async fn what_repeats_is_one_event_with_a_count() {
    let teller = Teller::start().await;
    for _ in 0..3 {
        teller.notices.leave(notice(NoticeKind::PrepareFailed, "device eth1: in use"));
    }
    teller.says(&["ResourceClaim PrepareFailed: device eth1: in use x3"]).await;
}

#[tokio::test]
async fn an_event_that_the_server_has_forgotten_is_made_again() {
    let teller = Teller::start().await;
    teller.notices.leave(notice(NoticeKind::PrepareFailed, "a"));
    teller.says(&["ResourceClaim PrepareFailed: device eth1: a x1"]).await;
    let name = teller.events()[0].metadata.name.clone().unwrap();
    let api = kube::Api::<Event>::namespaced(teller.server.client().unwrap(), "default");
    api.delete(&name, &kube::api::DeleteParams::default()).await.unwrap();

    teller.notices.leave(notice(NoticeKind::PrepareFailed, "a"));

    teller.says(&["ResourceClaim PrepareFailed: device eth1: a x1"]).await;
    assert_ne!(teller.events()[0].metadata.name.as_ref(), Some(&name));
}

#[tokio::test]
async fn a_storm_of_notices_is_no_storm_of_requests() {
    let teller = Teller::start().await;
    for _ in 0..500 {
        teller.notices.leave(notice(NoticeKind::PrepareFailed, "a"));
    }
    teller.notices.leave(notice_of(claim_ref("other", "c2"), NoticeKind::PrepareFailed, "b"));
    let is_last = |said: &String| said.contains(": b ") || said.contains("eth1: b");
    eventually("the last is told", || teller.said().iter().any(is_last)).await;
    let writes = teller.server.requests().iter().filter(|request| request.verb.is_write()).count();
    assert_eq!(writes, 6, "five of the storm, and the other claim's");
}

#[tokio::test]
async fn a_server_that_is_briefly_away_is_told_later() {
    let teller = Teller::start().await;
    teller.server.fail_when(2, 503, |request| request.verb == Verb::Create);
    teller.notices.leave(notice(NoticeKind::PrepareFailed, "a"));
    teller.says(&["ResourceClaim PrepareFailed: device eth1: a x1"]).await;
}

#[tokio::test]
async fn what_waits_when_the_driver_stops_is_still_told() {
    let teller = Teller::start().await;
    teller.notices.leave(notice(NoticeKind::PrepareFailed, "a"));
    teller.shutdown.cancel();
    teller.running.await.unwrap();
    assert_eq!(teller.server.objects::<Event>().len(), 1);
}

#[tokio::test]
async fn a_claim_that_cannot_be_prepared_leaves_a_notice() {
    let (mut world, _kubelet, driver) = World::registered().await;
    world.api.add_claim(claim("nics", "c4", &["busy"], &[]));

    driver.prepare(&[claim_ref("nics", "c4")]).await.unwrap()["c4"].clone().unwrap_err();

    let told = tokio::time::timeout(Duration::from_secs(5), world.notices.recv());
    let told = told.await.unwrap().unwrap();
    assert_eq!((told.claim, told.kind), (claim_ref("nics", "c4"), NoticeKind::PrepareFailed));
    assert_eq!(
        told.message,
        "claim default/nics: device busy is in use by claim default/other (f0)"
    );
}
