//! The one thread that changes the node, and the handle by which others ask it to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::AttachError;
use crate::model::{
    AttachmentId, ClaimRef, ClaimUid, Cpus, Device, DeviceName, Lease, OperatorPolicy, PodRef,
    Record, Sandbox, Selection, ShareId, SriovRule, Wishes,
};
use crate::plan::{self, Provision};

/// Prepare what a claim was allocated.
#[derive(Clone, Debug)]
pub struct PrepareClaim {
    pub claim: ClaimRef,
    /// The pod that the claim is reserved for.
    pub pod: PodRef,
    pub devices: Vec<Wanted>,
}

/// One allocated device and what the claim wishes of it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Names of the claim's requests that the device answers, without subrequests.
    pub requests: Vec<String>,
    pub pool: String,
    pub name: DeviceName,
    /// Which of its shares, where it was allocated as one of several.
    pub share: Option<ShareId>,
    /// The device as the inventory sees it now; `None` while it is in a pod, or gone.
    pub found: Option<Device>,
    pub wishes: Wishes,
}

/// An attachment on which a policy of the operator is in force, or no longer is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Changed {
    pub record: Record,
    /// How long it took to replace its programs; nothing where they did so already.
    pub took: Duration,
}

/// What became of a policy.
#[derive(Debug, Default)]
pub struct Ordered {
    pub changed: Vec<Changed>,
    /// Why devices have the rules that they had, each named; only where all of the node were meant.
    pub refused: Vec<AttachError>,
}

/// What the worker can be asked for. Each command carries the way to its answer; a caller that has
/// gone away does not stop a command half-way.
#[derive(Debug)]
pub enum Command {
    Prepare {
        wanted: PrepareClaim,
        answer: oneshot::Sender<Result<Vec<Record>, AttachError>>,
    },
    Unprepare {
        claim: ClaimUid,
        answer: oneshot::Sender<Result<(), AttachError>>,
    },
    Attach {
        sandbox: Sandbox,
        deadline: Instant,
        answer: oneshot::Sender<Result<Vec<Record>, AttachError>>,
    },
    Detach {
        sandbox: Sandbox,
        answer: oneshot::Sender<Vec<Record>>,
    },
    Synchronize {
        sandboxes: Vec<Sandbox>,
        answer: oneshot::Sender<()>,
    },
    SetPolicy {
        selection: Selection,
        /// `None` leaves the claim's filter alone in force.
        policy: Option<OperatorPolicy>,
        answer: oneshot::Sender<Result<Ordered, AttachError>>,
    },
    Provision {
        rules: Vec<SriovRule>,
        outcomes: mpsc::UnboundedSender<Provisioned>,
    },
    /// What became of an errand for [`Command::Provision`], by the thread that was sent.
    Returned {
        outcome: Provisioned,
        outcomes: mpsc::UnboundedSender<Provisioned>,
    },
    SetLease {
        id: AttachmentId,
        tenancy: Tenancy,
        answer: oneshot::Sender<Result<Record, AttachError>>,
    },
}

/// What became of a physical function, or of a rule that selects none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Provisioned {
    pub decided: Provision,
    /// Why the kernel did not do what was decided.
    pub failure: Option<String>,
}

impl Provisioned {
    /// One word of a closed set, for labels.
    pub fn outcome(&self) -> &'static str {
        match &self.decided {
            Provision::Set { .. } if self.failure.is_some() => "failed",
            Provision::Set { .. } => "set",
            Provision::Keep { .. } => "kept",
            Provision::Refuse { .. } => "refused",
            Provision::Unmatched { .. } => "unmatched",
        }
    }
}

/// What a DHCP server had to say about an attachment's address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tenancy {
    /// It has this one, from now on or for longer.
    Held(Lease),
    /// It has none any more, and why.
    Lost(String),
}

/// The handle to the one thread that changes the node.
#[derive(Clone, Debug)]
pub struct Worker {
    commands: mpsc::UnboundedSender<Command>,
    records: watch::Receiver<Arc<Vec<Record>>>,
}

/// The worker's own ends of the channels that a [`Worker`] holds.
#[derive(Debug)]
pub struct Desk {
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub records: watch::Sender<Arc<Vec<Record>>>,
}

impl Worker {
    /// A handle and the desk that serves it.
    pub fn pair() -> (Self, Desk) {
        let (commands, incoming) = mpsc::unbounded_channel();
        let (outgoing, records) = watch::channel(Arc::default());
        (Self { commands, records }, Desk { commands: incoming, records: outgoing })
    }

    /// Prepares a claim's devices: programs loaded and attached, everything recorded. Repeated for
    /// the same claim it answers the same and changes nothing.
    ///
    /// # Errors
    ///
    /// Any [`AttachError`]; none of the claim's devices is then prepared, except what an earlier
    /// call prepared.
    pub async fn prepare(&self, wanted: PrepareClaim) -> Result<Vec<Record>, AttachError> {
        self.ask(|answer| Command::Prepare { wanted, answer }).await?
    }

    /// Forgets a claim and removes what prepare made. A claim that nobody knows is no error. A device
    /// that is still in a sandbox is taken back first: kubelet asks only when the pod has ended, so
    /// the runtime's stop was missed.
    ///
    /// # Errors
    ///
    /// [`AttachError::Stranded`], [`AttachError::Step`], [`AttachError::Record`] or
    /// [`AttachError::Kept`]; the claim is still known then, and the call can be repeated.
    pub async fn unprepare(&self, claim: ClaimUid) -> Result<(), AttachError> {
        self.ask(|answer| Command::Unprepare { claim, answer }).await?
    }

    /// Moves everything that was prepared for the sandbox's pod into it. Answers what is attached:
    /// an empty list for a pod that has no claim of ours.
    ///
    /// # Errors
    ///
    /// Any [`AttachError`]; all devices of the pod are then back on the host, `Prepared`. A command
    /// that is still queued at `deadline` is answered [`AttachError::TooLate`] untried.
    pub async fn attach(
        &self,
        sandbox: Sandbox,
        deadline: Instant,
    ) -> Result<Vec<Record>, AttachError> {
        self.ask(|answer| Command::Attach { sandbox, deadline, answer }).await?
    }

    /// Takes the pod's devices back to the host. Never fails: what could not be put back is logged
    /// and stays recorded. Answers what was detached.
    pub async fn detach(&self, sandbox: Sandbox) -> Vec<Record> {
        self.ask(|answer| Command::Detach { sandbox, answer }).await.unwrap_or_default()
    }

    /// Compares what is recorded with the sandboxes that the runtime has now, and detaches from
    /// those that are gone.
    pub async fn synchronize(&self, sandboxes: Vec<Sandbox>) {
        // An answer that never comes means that the driver is stopping.
        let _ = self.ask(|answer| Command::Synchronize { sandboxes, answer }).await;
    }

    /// Lays a policy of the operator over the filters of everything that `selection` means, in place
    /// of the one there; `None` takes it away, also one that waits for its claim to be prepared again
    /// after the node's restart. It stays with the attachment until unprepare. All change or none,
    /// but where all of the node are meant: then those that can.
    ///
    /// # Errors
    ///
    /// Any [`AttachError`]; everything selected then has the policy that it had, or is recorded as
    /// unsure and tried again soon, and until it succeeds.
    pub async fn set_policy(
        &self,
        selection: Selection,
        policy: Option<OperatorPolicy>,
    ) -> Result<Ordered, AttachError> {
        self.ask(|answer| Command::SetPolicy { selection, policy, answer }).await?
    }

    /// Records what a DHCP server said, and where the interface is in a sandbox, has it have the
    /// addresses and routes that follow. Answers the record as it is then.
    ///
    /// # Errors
    ///
    /// [`AttachError::NoSuchDevice`] where nothing of that name is prepared, [`AttachError::Record`]
    /// with nothing changed; [`AttachError::Observe`] or [`AttachError::Step`] where it is recorded
    /// and could not all be done.
    pub async fn set_lease(
        &self,
        id: AttachmentId,
        tenancy: Tenancy,
    ) -> Result<Record, AttachError> {
        self.ask(|answer| Command::SetLease { id, tenancy, answer }).await?
    }

    /// Has physical functions have as many virtual ones as `rules` say, where nobody would lose
    /// anything by that. To be called at start, before anything is published, and
    /// whoever publishes should wait a while: a scan after it finds what is new. Each outcome is logged, and told as soon as it is known; there is an end to
    /// them when all are, or the driver is stopping.
    ///
    /// The kernel may take seconds for each, and a driver that hangs for ever. Nobody waits for that
    /// but whoever wants the same physical function or one of its virtual ones, and is refused.
    pub fn provision(&self, rules: Vec<SriovRule>) -> mpsc::UnboundedReceiver<Provisioned> {
        let (outcomes, told) = mpsc::unbounded_channel();
        // Where the thread has ended, nothing is told.
        let _ = self.commands.send(Command::Provision { rules, outcomes });
        told
    }

    /// What is recorded now, in a stable order.
    pub fn records(&self) -> Arc<Vec<Record>> {
        Arc::clone(&self.records.borrow())
    }

    /// On which CPUs a container of this pod with this environment shall run; `None` where that is
    /// all the same. Asks nobody: it is decided by what is recorded now.
    pub fn cpus(&self, pod_uid: &str, environment: &[String]) -> Option<Cpus> {
        let records = self.records();
        let of_pod: Vec<_> =
            records.iter().filter(|record| record.pod.uid.as_str() == pod_uid).collect();
        plan::cpus(&of_pod, environment)
    }

    /// Tells of every change to what is recorded.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Record>>> {
        self.records.clone()
    }

    /// Returns when the worker's thread has ended, and not before.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// The queue itself, by which the worker's thread does not keep itself alive.
    pub(super) fn queue(&self) -> mpsc::WeakUnboundedSender<Command> {
        self.commands.downgrade()
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, AttachError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_| AttachError::Stopping)?;
        answered.await.map_err(|_| AttachError::Stopping)
    }
}
