//! What a sandbox's events do: run attaches, stop and remove detach.
//!
//! While an event is unanswered the runtime holds up that pod and every other one on the node. If
//! it stops waiting it goes on without us: the pod would start without its device (NRI, observed
//! with containerd 1.7 and 2.1). So an event has a budget, and when that runs out the answer is an
//! error, which fails the sandbox; kubelet tries again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError};
use tokio::time;

use super::proto::{
    ContainerAdjustment, CreateContainerRequest, CreateContainerResponse, Event,
    LinuxContainerAdjustment, LinuxCpu, LinuxResources, PodSandbox,
};
use super::sandboxes::{Sandboxes, Told};
use super::ttrpc::{Answer, Code};
use crate::attach::{AttachError, Worker};
use crate::model::{IdentityError, PodRef, Record, Sandbox};
use crate::sys::netns::NetnsError;
use crate::telemetry::{Metrics, Outcome};

/// Why the runtime gets an error for an event.
#[derive(Debug, thiserror::Error)]
enum EventError {
    #[error("pod {namespace}/{name}: {source}")]
    Pod { namespace: String, name: String, source: IdentityError },
    #[error("pod {pod}: {source}")]
    Netns { pod: PodRef, source: NetnsError },
    #[error("pod {pod}: {source}")]
    Attach { pod: PodRef, source: Box<AttachError> },
    #[error("pod {pod}: not attached within {budget:?}")]
    OutOfTime { pod: PodRef, budget: Duration },
    #[error("pod {pod}: {source}")]
    Task { pod: PodRef, source: JoinError },
}

impl EventError {
    /// The value of the `reason` metric label: one of a fixed set, free of names and numbers.
    fn reason(&self) -> &'static str {
        match self {
            Self::Pod { .. } => "bad_pod",
            Self::Netns { .. } => "no_netns",
            Self::Attach { source, .. } => source.reason(),
            Self::OutOfTime { .. } => "out_of_time",
            Self::Task { .. } => "panic",
        }
    }
}

/// How long an event may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    started: Instant,
    length: Duration,
}

impl Budget {
    /// At most `ours`, and at most three quarters of what the runtime gives: of the limit that it
    /// `announced` and of the one that the call itself carries.
    pub(super) fn new(
        started: Instant,
        ours: Duration,
        announced: Option<Duration>,
        call: Option<Duration>,
    ) -> Self {
        let theirs = [announced, call].into_iter().flatten().map(|limit| limit / 4 * 3);
        Self { started, length: theirs.fold(ours, Duration::min) }
    }

    /// When the answer must be out.
    fn end(self) -> time::Instant {
        (self.started + self.length).into()
    }

    /// When the worker must stop going forward, so that there is time to undo what it did and to
    /// say why.
    fn last_step(self) -> Instant {
        self.started + self.length / 8 * 7
    }
}

/// What all sessions with a runtime have in common.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) worker: Worker,
    pub(super) sandboxes: Sandboxes,
    pub(super) attached: mpsc::UnboundedSender<Vec<Record>>,
    pub(super) metrics: Arc<Metrics>,
}

/// One event and what it needs to be handled.
#[derive(Debug)]
pub(super) struct Occasion {
    pub(super) event: Event,
    pub(super) pod: PodSandbox,
    pub(super) budget: Budget,
    pub(super) session: u64,
    /// True while the worker has seen all that the runtime listed. An attach or detach waits for
    /// it, or a list that is older than the sandbox would undo it.
    pub(super) settled: watch::Receiver<bool>,
}

/// What an attach ends with: the sandbox, and what is in it now.
type Attached = Result<(Sandbox, Vec<Record>), EventError>;

impl Events {
    /// Handles one event and makes its answer. Only run can be answered an error: a pod that ends
    /// must end, whatever becomes of its devices.
    pub(super) async fn handle(self: Arc<Self>, occasion: Occasion) -> Answer {
        let Occasion { event, budget, .. } = occasion;
        let (outcome, answer) = match event {
            Event::RunPodSandbox => match self.run(occasion).await {
                Ok(None) => (Outcome::NotOurs, Answer::empty()),
                Ok(Some(records)) => {
                    let queue = self.attached.clone();
                    let report = async move {
                        // The queue's other end goes first when the driver stops.
                        let _ = queue.send(records);
                    };
                    (Outcome::Success, Answer::empty().then(report))
                }
                Err(error) => {
                    self.metrics.attach_error(error.reason());
                    tracing::warn!(%error, took = ?budget.started.elapsed(), "attach failed");
                    // Codes for cancelled, late and unavailable calls are avoided: a runtime may
                    // take them for its own timeout, and go on without us.
                    (Outcome::Failed, Answer::refuse(Code::Unknown, error.to_string()))
                }
            },
            Event::StopPodSandbox | Event::RemovePodSandbox => {
                (self.stop(occasion).await, Answer::empty())
            }
            Event::Unknown | Event::CreateContainer => (Outcome::NotOurs, Answer::empty()),
        };
        self.metrics.nri_request(label(event), outcome, budget.started.elapsed());
        answer
    }

    /// Says on which CPUs a container shall run, where a claim that it names wishes that. Where
    /// somebody has said so before us it stays as it is: that is kubelet's CPU manager, which with
    /// policy `static` names CPUs for every container (`PreCreateContainer()` in
    /// `pkg/kubelet/cm/internal_container_lifecycle_linux.go`, Kubernetes 1.36), or another plugin.
    pub(super) fn create_container(
        &self,
        request: &CreateContainerRequest,
        received: Instant,
    ) -> Answer {
        let CreateContainerRequest { pod, container } = request;
        let (pod, container) =
            (pod.clone().unwrap_or_default(), container.clone().unwrap_or_default());
        let Some(cpus) = self.worker.cpus(&pod.uid, &container.env) else {
            return Answer::empty();
        };
        let taken = container.linux.and_then(|it| it.resources?.cpu).unwrap_or_default().cpus;
        let PodSandbox { name, namespace, .. } = pod;
        let container = container.name;
        if !taken.is_empty() {
            tracing::info!(namespace, name, container, %cpus, taken, "its CPUs are given already");
            self.metrics.nri_request("CreateContainer", Outcome::NotOurs, received.elapsed());
            return Answer::empty();
        }
        tracing::info!(namespace, name, container, %cpus, "runs near its devices");
        self.metrics.nri_request("CreateContainer", Outcome::Success, received.elapsed());
        let resources = LinuxResources { cpu: Some(LinuxCpu { cpus: cpus.to_string() }) };
        let linux = LinuxContainerAdjustment { resources: Some(resources) };
        Answer::with(&CreateContainerResponse {
            adjust: Some(ContainerAdjustment { linux: Some(linux) }),
        })
    }

    /// Whether anything is prepared for a pod.
    fn is_ours(&self, pod_uid: &str) -> bool {
        self.worker.records().iter().any(|record| record.pod.uid.as_str() == pod_uid)
    }

    /// Attaches what was prepared for the pod; `None` if that is nothing.
    async fn run(self: &Arc<Self>, occasion: Occasion) -> Result<Option<Vec<Record>>, EventError> {
        if !self.is_ours(&occasion.pod.uid) {
            return Ok(None);
        }
        let (told, budget) = (told(&occasion.pod)?, occasion.budget);
        let pod = told.pod.clone();
        let mut attaching = task::spawn(Arc::clone(self).attach(told, occasion));
        match time::timeout_at(budget.end(), &mut attaching).await {
            Ok(Ok(result)) => result.map(|(_, records)| Some(records)),
            Ok(Err(source)) => Err(EventError::Task { pod, source }),
            Err(_) => {
                task::spawn(Arc::clone(self).take_back(attaching));
                Err(EventError::OutOfTime { pod, budget: budget.length })
            }
        }
    }

    async fn attach(self: Arc<Self>, told: Told, mut occasion: Occasion) -> Attached {
        // An error means that the session has ended; then there is nothing to wait for.
        let _ = occasion.settled.wait_for(|settled| *settled).await;
        let (pod, budget) = (told.pod.clone(), occasion.budget);
        let sandbox = match task::spawn_blocking(move || told.resolve()).await {
            Ok(Ok(sandbox)) => sandbox,
            Ok(Err(source)) => return Err(EventError::Netns { pod, source }),
            Err(source) => return Err(EventError::Task { pod, source }),
        };
        self.sandboxes.add(sandbox.clone(), occasion.session);
        match self.worker.attach(sandbox.clone(), budget.last_step()).await {
            Ok(records) => {
                report("attached", &pod, &records, budget.started);
                Ok((sandbox, records))
            }
            Err(source) => Err(EventError::Attach { pod, source: Box::new(source) }),
        }
    }

    /// Detaches what was attached only after its event had been answered with an error. containerd
    /// stops and removes a sandbox whose run failed (observed with 1.7.24 and 2.1.9), but that is
    /// not promised, and an interface must not go down with the sandbox.
    async fn take_back(self: Arc<Self>, attaching: task::JoinHandle<Attached>) {
        let Ok(Ok((sandbox, records))) = attaching.await else { return };
        if !records.is_empty() {
            tracing::warn!(pod = %sandbox.pod, "attached too late, taken back");
            self.worker.detach(sandbox).await;
        }
    }

    async fn stop(self: &Arc<Self>, occasion: Occasion) -> Outcome {
        if !self.is_ours(&occasion.pod.uid) {
            self.sandboxes.take(&occasion.pod.id);
            return Outcome::NotOurs;
        }
        let told = match told(&occasion.pod) {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!(%error, "nothing detached");
                return Outcome::Failed;
            }
        };
        let (pod, budget) = (told.pod.clone(), occasion.budget);
        let detaching = task::spawn(Arc::clone(self).detach(told, occasion));
        match time::timeout_at(budget.end(), detaching).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::error!(%pod, %error, "detach ended in a panic");
                Outcome::Failed
            }
            Err(_) => {
                tracing::warn!(%pod, budget = ?budget.length, "still detaching, the pod goes on");
                Outcome::Failed
            }
        }
    }

    async fn detach(self: Arc<Self>, told: Told, mut occasion: Occasion) -> Outcome {
        let _ = occasion.settled.wait_for(|settled| *settled).await;
        let sandbox = match self.sandboxes.take(&told.id) {
            Some(known) if known.netns.is_some() => known,
            _ => {
                let gone = told.within(None);
                let resolve = move || told.resolve();
                task::spawn_blocking(resolve).await.ok().and_then(Result::ok).unwrap_or(gone)
            }
        };
        let Sandbox { id, pod, netns } = &sandbox;
        let sandbox_id = Some(id.clone());
        if netns.is_none() && self.sandboxes.has_other(id, &pod.uid) {
            tracing::debug!(%pod, sandbox = id, "an earlier sandbox of a pod that runs in another");
            return Outcome::NotOurs;
        }
        let pod = pod.clone();
        let records = self.worker.detach(sandbox).await;
        report("detached", &pod, &records, occasion.budget.started);
        let is_stuck = self.worker.records().iter().any(|record| record.sandbox == sandbox_id);
        if is_stuck {
            // The pod's end goes on all the same; unprepare and the next start try again.
            self.metrics.attach_error("stranded");
            return Outcome::Failed;
        }
        Outcome::Success
    }
}

fn told(pod: &PodSandbox) -> Result<Told, EventError> {
    Told::try_from(pod.clone()).map_err(|source| EventError::Pod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        source,
    })
}

fn report(what: &'static str, pod: &PodRef, records: &[Record], started: Instant) {
    for record in records {
        let (device, claim) = (&record.device.name, &record.claim);
        tracing::info!(%pod, %device, %claim, took = ?started.elapsed(), "{what}");
    }
}

/// The event's name, as in the protocol.
fn label(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::Unknown => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_budget_is_ours_or_three_quarters_of_the_least_that_the_runtime_gives() {
        let now = Instant::now();
        let length = |announced, call| Budget::new(now, millis(1500), announced, call).length;
        assert_eq!(length(None, None), millis(1500));
        assert_eq!(length(Some(millis(2000)), None), millis(1500));
        assert_eq!(length(Some(millis(1000)), Some(millis(5000))), millis(750));
        assert_eq!(length(Some(millis(5000)), Some(millis(400))), millis(300));
    }

    #[test]
    fn the_worker_stops_early_enough_to_undo_and_to_say_why() {
        let now = Instant::now();
        let budget = Budget::new(now, millis(1600), None, None);
        assert_eq!(budget.last_step(), now + millis(1400));
        assert_eq!(budget.end().into_std(), now + millis(1600));
    }
}
