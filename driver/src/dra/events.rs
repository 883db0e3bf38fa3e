//! Events on claims and pods: what failed, and which devices are not as they should be.
//!
//! Whoever has a notice leaves it in a bounded queue and goes on; a hook never waits for the API
//! server. Here they are counted, put together where they repeat, and written to `events.k8s.io/v1`.

mod ledger;

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::ledger::{Ledger, Subject, Telling};
use super::error::{api_text, is_final};
use super::{API_TIMEOUT, Pool};
use crate::attach::{Notice, NoticeKind};
use crate::telemetry::Metrics;

/// How often one event is tried. What fails for longer is logged and given up.
const ATTEMPTS: u32 = 3;

/// The pause after the first attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long what is still queued may take when the driver stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Bytes of a note (`NoteLengthLimit` in `pkg/apis/core/validation/events.go`, Kubernetes 1.36).
const LONGEST_NOTE: usize = 1024;

/// Bytes of `reportingInstance` (the same file, `ReportingInstanceLengthLimit`).
const LONGEST_INSTANCE: usize = 128;

/// Writes notices down where users look for them.
pub struct Events {
    pool: Pool,
    client: Client,
    notices: mpsc::Receiver<Notice>,
    /// Who writes statuses hears of every notice, too.
    statuses: mpsc::UnboundedSender<Notice>,
    metrics: Arc<Metrics>,
    ledger: Ledger,
}

impl Events {
    /// `statuses` is given each notice before its events are written.
    pub fn new(
        pool: Pool,
        client: Client,
        notices: mpsc::Receiver<Notice>,
        statuses: mpsc::UnboundedSender<Notice>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { pool, client, notices, statuses, metrics, ledger: Ledger::default() }
    }

    /// Writes until the queue's other ends are gone or `shutdown`; then it writes what is queued, as
    /// far as that goes within seconds.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let work = async {
            while let Some(notice) = self.next(&shutdown).await {
                self.tell(&notice).await;
            }
        };
        let late = async {
            shutdown.cancelled().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = work => {}
            () = late => tracing::warn!("events were left unwritten at the end"),
        }
    }

    async fn next(&mut self, shutdown: &CancellationToken) -> Option<Notice> {
        match shutdown.run_until_cancelled(self.notices.recv()).await {
            Some(notice) => notice,
            None => self.notices.try_recv().ok(),
        }
    }

    async fn tell(&mut self, notice: &Notice) {
        self.metrics.noticed(notice.kind);
        // Nobody writes statuses any more: the driver is stopping.
        let _ = self.statuses.send(notice.clone());
        for regarding in regarding(notice) {
            let subject = (regarding.uid.clone().unwrap_or_default(), notice.kind);
            let note = note(notice);
            let telling = self.ledger.hear(&subject, &note, Instant::now());
            let told = match telling {
                Telling::Nothing => continue,
                Telling::Again { name, count } => match self.repeat(&regarding, &name, count).await
                {
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        self.ledger.lost(&subject);
                        self.write(&subject, &regarding, notice.kind, note).await
                    }
                    outcome => outcome,
                },
                Telling::New => self.write(&subject, &regarding, notice.kind, note).await,
            };
            if let Err(error) = told {
                let (claim, reason) = (&notice.claim, notice.kind.reason());
                tracing::warn!(%claim, reason, error = api_text(&error), "event not written");
            }
        }
    }

    async fn write(
        &mut self,
        subject: &Subject,
        regarding: &ObjectReference,
        kind: NoticeKind,
        note: String,
    ) -> kube::Result<()> {
        let event = event(&self.pool, regarding, kind, note);
        let api = self.events(regarding);
        let params = PostParams::default();
        let written = attempts(|| api.create(&params, &event)).await?;
        self.ledger.wrote(subject, written.metadata.name.unwrap_or_default());
        Ok(())
    }

    /// Nothing but the series of an event can be changed.
    async fn repeat(
        &self,
        regarding: &ObjectReference,
        name: &str,
        count: i32,
    ) -> kube::Result<()> {
        let last = MicroTime(Timestamp::now());
        let patch = Patch::Merge(json!({"series": {"count": count, "lastObservedTime": last}}));
        let api = self.events(regarding);
        let params = PatchParams::default();
        attempts(|| api.patch(name, &params, &patch)).await.map(drop)
    }

    fn events(&self, regarding: &ObjectReference) -> Api<Event> {
        let namespace = regarding.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }
}

async fn attempts<T, F>(request: impl Fn() -> F) -> kube::Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match timeout(API_TIMEOUT, request()).await {
            Ok(Err(error)) if is_final(&error) => return Err(error),
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(pause).await;
        pause *= 2;
    }
    match timeout(API_TIMEOUT, request()).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
    }
}

/// The claim, and the pod where it is the pod that has the trouble. Of claims that could not be
/// prepared or given back kubelet tells the pod by itself (`FailedPrepareDynamicResources`).
fn regarding(notice: &Notice) -> Vec<ObjectReference> {
    let claim = &notice.claim;
    let mut all = vec![ObjectReference {
        api_version: Some("resource.k8s.io/v1".to_owned()),
        kind: Some("ResourceClaim".to_owned()),
        namespace: Some(claim.namespace.clone()),
        name: Some(claim.name.clone()),
        uid: Some(claim.uid.to_string()),
        ..ObjectReference::default()
    }];
    let is_kubelets =
        matches!(notice.kind, NoticeKind::PrepareFailed | NoticeKind::UnprepareFailed);
    if let Some(pod) = notice.pod.as_ref().filter(|_| !is_kubelets) {
        all.push(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        });
    }
    all
}

/// What the event says. Names the device where the message does not.
fn note(notice: &Notice) -> String {
    let message = &notice.message;
    let note = match &notice.device {
        Some(device) if !message.contains(device.as_str()) => format!("device {device}: {message}"),
        _ => message.clone(),
    };
    cut(note, LONGEST_NOTE)
}

/// At most `longest` bytes; what is cut off leaves a mark.
fn cut(mut text: String, longest: usize) -> String {
    const MARK: &str = "…";
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest - MARK.len()));
        text.push_str(MARK);
    }
    text
}

fn event(pool: &Pool, regarding: &ObjectReference, kind: NoticeKind, note: String) -> Event {
    let action = match kind {
        NoticeKind::PrepareFailed => "Prepare",
        NoticeKind::UnprepareFailed => "Unprepare",
        NoticeKind::AttachFailed => "Attach",
        NoticeKind::Residue => "Detach",
        NoticeKind::Lost | NoticeKind::RunningWithout | NoticeKind::LeaseLost => "Watch",
    };
    let name = regarding.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}.")),
            namespace: regarding.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        type_: Some("Warning".to_owned()),
        reason: Some(kind.reason().to_owned()),
        action: Some(action.to_owned()),
        note: Some(note),
        regarding: Some(regarding.clone()),
        reporting_controller: Some(pool.driver.clone()),
        reporting_instance: Some(cut(pool.node.clone(), LONGEST_INSTANCE)),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, pool, record};

    fn notice(kind: NoticeKind, message: &str) -> Notice {
        let record = record(device("eth1"));
        Notice {
            claim: record.claim,
            pod: Some(record.pod),
            device: Some(record.device.name),
            kind,
            message: message.to_owned(),
        }
    }

    fn kinds(notice: &Notice) -> Vec<String> {
        regarding(notice).into_iter().filter_map(|object| object.kind).collect()
    }

    #[test]
    fn the_pod_is_told_unless_kubelet_does() {
        for kind in NoticeKind::ALL {
            let told = kinds(&notice(kind, "x"));
            match kind {
                NoticeKind::PrepareFailed | NoticeKind::UnprepareFailed => {
                    assert_eq!(told, ["ResourceClaim"]);
                }
                _ => assert_eq!(told, ["ResourceClaim", "Pod"]),
            }
        }
        let podless = Notice { pod: None, ..notice(NoticeKind::Lost, "x") };
        assert_eq!(kinds(&podless), ["ResourceClaim"]);
    }

    #[test]
    fn a_note_names_the_device_once_and_fits() {
        assert_eq!(note(&notice(NoticeKind::Lost, "is nowhere")), "device eth1: is nowhere");
        assert_eq!(note(&notice(NoticeKind::Lost, "eth1 is nowhere")), "eth1 is nowhere");
        let long = note(&notice(NoticeKind::Lost, &"é".repeat(600)));
        assert!(long.len() <= LONGEST_NOTE && long.len() > LONGEST_NOTE - 4, "{}", long.len());
        assert!(long.ends_with("é…"), "{long}");
    }

    #[test]
    fn a_long_node_name_fits() {
        let pool = Pool { node: "n".repeat(253), ..pool() };
        let regarding = regarding(&notice(NoticeKind::Lost, "x")).remove(0);
        let event = event(&pool, &regarding, NoticeKind::Lost, "x".to_owned());
        assert_eq!(event.reporting_instance.unwrap().len(), LONGEST_INSTANCE);
    }
}
