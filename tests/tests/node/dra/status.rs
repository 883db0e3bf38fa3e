//! What the claims are told after their devices were attached.

use std::sync::Arc;

use driver::dra::StatusWriter;
use driver::model::Record;
use driver::telemetry::Sightings;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::{DRIVER, claim_ref, device, eventually, record};

fn attached(claim: &str) -> Record {
    record(claim_ref(claim, "c1"), device("eth1"))
}

/// Nobody has looked yet.
fn unseen() -> watch::Receiver<Sightings> {
    watch::channel(Sightings::default()).1
}

/// What is attached to a claim called `nics` is all there is.
fn recorded() -> watch::Receiver<Arc<Vec<Record>>> {
    watch::channel(Arc::new(vec![attached("nics")])).1
}

#[tokio::test]
async fn an_attached_device_is_told_in_its_claims_status() {
    let api = Api::default();
    api.refuse(&[(503, "not now")]);
    let (queue, attached_records) = mpsc::unbounded_channel();
    let writer = StatusWriter::new(DRIVER, api.client(), attached_records, unseen(), recorded());
    let running = tokio::spawn(writer.run(CancellationToken::new()));

    queue.send(vec![attached("nics")]).unwrap();

    eventually("the status is written", || api.patches().len() == 1).await;
    let patch = &api.patches()[0];
    assert_eq!(patch["query"], "&force=true&fieldManager=weir.dev");
    let entry = &patch["body"]["status"]["devices"][0];
    assert_eq!(entry["device"], "eth1");
    assert_eq!(entry["networkData"]["ips"][0], "10.0.0.7/24");
    assert_eq!(entry["conditions"][0]["type"], "Ready");
    drop(queue);
    running.await.unwrap();
}

#[tokio::test]
async fn what_is_told_again_is_ready_since_the_same_moment() {
    let api = Api::default();
    let (queue, attached_records) = mpsc::unbounded_channel();
    let writer = StatusWriter::new(DRIVER, api.client(), attached_records, unseen(), recorded());
    let running = tokio::spawn(writer.run(CancellationToken::new()));
    let since = |nth: usize| {
        let entry = &api.patches()[nth]["body"]["status"]["devices"][0];
        entry["conditions"][0]["lastTransitionTime"].clone()
    };

    queue.send(vec![attached("nics")]).unwrap();
    eventually("the status is written", || api.patches().len() == 1).await;
    // Times in statuses are whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    queue.send(vec![attached("nics")]).unwrap();
    eventually("the status is written again", || api.patches().len() == 2).await;

    assert_eq!(since(0), since(1));
    drop(queue);
    running.await.unwrap();
}

#[tokio::test]
async fn a_claim_that_is_gone_is_not_asked_for_again() {
    let api = Api::default();
    api.refuse(&[(404, "no such claim")]);
    let (queue, attached_records) = mpsc::unbounded_channel();
    let writer = StatusWriter::new(DRIVER, api.client(), attached_records, unseen(), recorded());

    queue.send(vec![attached("gone")]).unwrap();
    queue.send(vec![attached("nics")]).unwrap();
    drop(queue);
    writer.run(CancellationToken::new()).await;

    let requests = api.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!(api.patches()[0]["body"]["metadata"]["name"], "nics");
}

#[tokio::test]
async fn what_is_queued_when_the_driver_stops_is_still_written() {
    let api = Api::default();
    let (queue, attached_records) = mpsc::unbounded_channel();
    let writer = StatusWriter::new(DRIVER, api.client(), attached_records, unseen(), recorded());
    queue.send(vec![attached("nics")]).unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();

    writer.run(shutdown).await;

    assert_eq!(api.patches().len(), 1);
}
