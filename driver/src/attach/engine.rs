//! The engine: what the worker's thread does with each command.

mod bare;
mod containers;
mod draft;
mod function;
mod lease;
mod mend;
mod policy;
mod prepare;
mod provision;
mod settle;
#[cfg(test)]
mod tests;
mod travel;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::WeakUnboundedSender;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::worker::{Command, Desk, Worker};
use crate::attach::{AttachError, Notice, NoticeKind, Notices};
use crate::model::{
    AttachmentId, Belongings, BuildId, By, DeviceName, EthtoolState, IfIndex, IfName,
    InterfaceState, NetnsRef, PciAddress, Place, Record,
};
use crate::node::{Node, StepError};
use crate::plan::{DatapathState, Observed, RdmaSeen, Subject};
use crate::state::Checkpoint;

/// Owns the node and the checkpoint. Lives on one thread.
#[derive(Debug)]
pub struct Engine<N> {
    node: N,
    checkpoint: Checkpoint,
    build: BuildId,
    /// Where failures are told that nobody waits for; `None` where nobody listens.
    notices: Option<Notices>,
    /// Since when an interface is nowhere to be found.
    lost: BTreeMap<AttachmentId, Instant>,
    /// Physical functions whose number of virtual ones another thread is changing.
    changing: BTreeSet<PciAddress>,
    /// Its own queue, for that thread to come back by; `None` before there is one.
    queue: Option<WeakUnboundedSender<Command>>,
    /// How long programs that could not be replaced are left before that is tried again.
    pause: Duration,
}

/// It is tried again as long as it takes, so not often.
const PAUSE: Duration = Duration::from_secs(15);

impl<N: Node> Engine<N> {
    /// An engine over what `checkpoint` remembers. Call [`Self::settle`] before anything else.
    pub fn new(node: N, checkpoint: Checkpoint, build: BuildId) -> Self {
        Self {
            node,
            checkpoint,
            build,
            notices: None,
            lost: BTreeMap::new(),
            changing: BTreeSet::new(),
            queue: None,
            pause: PAUSE,
        }
    }

    /// Has it leave notices for whoever has to hear of a failure beside the one who asked.
    #[must_use]
    pub fn telling(self, notices: Notices) -> Self {
        Self { notices: Some(notices), ..self }
    }

    /// Starts the one thread that from now on changes the node, and answers the handle to it. What
    /// is recorded can be seen by the handle at once. The thread ends with the last handle.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread to give.
    pub fn start(mut self) -> io::Result<Worker>
    where
        N: Send + 'static,
    {
        let (worker, desk) = Worker::pair();
        self.queue = Some(worker.queue());
        self.show(&desk);
        // It does nothing but wait for commands, since a channel alone cannot wait until a moment.
        let clock = Builder::new_current_thread().enable_time().build()?;
        let named = thread::Builder::new().name("worker".to_owned());
        named.spawn(move || self.serve(desk, &clock))?;
        Ok(worker)
    }

    fn serve(mut self, mut desk: Desk, clock: &Runtime) {
        let mut waiting = VecDeque::new();
        let mut due = None;
        loop {
            self.node.rest();
            due = self.is_unsure().then(|| due.unwrap_or_else(|| Instant::now() + self.pause));
            let command = match next(&mut desk, &mut waiting, clock, due) {
                Next::Command(command) => command,
                Next::Due => {
                    self.mend();
                    self.node.rest();
                    self.show(&desk);
                    due = None;
                    continue;
                }
                Next::End => return,
            };
            self.obey(command, &desk);
        }
    }

    /// Does what a command asks for, and answers. An answer that nobody waits for any more is no
    /// reason to stop: the command has run to its end, and the checkpoint says how it ended.
    fn obey(&mut self, command: Command, desk: &Desk) {
        match command {
            Command::Prepare { wanted, answer } => {
                let answered = self.prepare(&wanted);
                self.finish(desk, answer, answered);
            }
            Command::Unprepare { claim, answer } => {
                let answered = self.unprepare(&claim);
                self.finish(desk, answer, answered);
            }
            Command::Attach { sandbox, deadline, answer } => {
                let answered = self.attach(&sandbox, deadline);
                self.finish(desk, answer, answered);
            }
            Command::Detach { sandbox, answer } => {
                let answered = self.detach(&sandbox);
                self.finish(desk, answer, answered);
            }
            Command::SetPolicy { selection, policy, answer } => {
                let answered = self.set_policy(&selection, policy.as_ref());
                self.finish(desk, answer, answered);
            }
            Command::SetLease { id, tenancy, answer } => {
                let answered = self.set_lease(&id, tenancy);
                self.finish(desk, answer, answered);
            }
            Command::Provision { rules, outcomes } => self.provision(&rules, &outcomes),
            Command::Returned { outcome, outcomes } => self.returned(outcome, &outcomes),
            Command::Synchronize { sandboxes, answer } => {
                self.synchronize(&sandboxes);
                self.finish(desk, answer, ());
            }
        }
    }

    fn finish<T>(&mut self, desk: &Desk, answer: oneshot::Sender<T>, answered: T) {
        self.show(desk);
        let _ = answer.send(answered);
        self.node.rest();
    }

    /// Leaves a notice about what became of a device.
    fn tell(&self, record: &Record, kind: NoticeKind, message: String) {
        if let Some(notices) = &self.notices {
            notices.leave(Notice {
                claim: record.claim.clone(),
                pod: Some(record.pod.clone()),
                device: Some(record.device.name.clone()),
                kind,
                message,
            });
        }
    }

    /// Lets others see what is recorded now.
    fn show(&self, desk: &Desk) {
        desk.records.send_if_modified(|shown| {
            let changed = !shown.iter().eq(self.checkpoint.records());
            if changed {
                *shown = Arc::new(self.checkpoint.records().cloned().collect());
            }
            changed
        });
    }

    /// The recorded attachments for which `is_meant` holds, in the fixed order of their names.
    fn select(&self, is_meant: impl Fn(&Record) -> bool) -> Vec<Record> {
        self.checkpoint.records().filter(|record| is_meant(record)).cloned().collect()
    }

    fn interface(&mut self, place: Place, by: By) -> Result<Option<InterfaceState>, StepError> {
        match self.node.observe(&Subject::Interface { place, by })? {
            Observed::Interface(state) => Ok(state),
            _ => Err(mismatch()),
        }
    }

    fn datapath(&mut self, id: AttachmentId) -> Result<DatapathState, StepError> {
        match self.node.observe(&Subject::Datapath(id))? {
            Observed::Datapath(state) => Ok(state),
            _ => Err(mismatch()),
        }
    }

    /// What the host has on one of its interfaces.
    fn belongings(&mut self, index: IfIndex) -> Result<Belongings, StepError> {
        match self.node.observe(&Subject::Belongings(index))? {
            Observed::Belongings(belongings) => Ok(*belongings),
            _ => Err(mismatch()),
        }
    }

    fn ethtool(&mut self, interface: IfName) -> Result<EthtoolState, StepError> {
        match self.node.observe(&Subject::Ethtool(interface))? {
            Observed::Ethtool(state) => Ok(*state),
            _ => Err(mismatch()),
        }
    }

    fn rdma(
        &mut self,
        place: Place,
        name: &str,
        index: Option<u32>,
    ) -> Result<Option<RdmaSeen>, StepError> {
        match self.node.observe(&Subject::Rdma { place, name: name.to_owned(), index })? {
            Observed::Rdma(seen) => Ok(seen),
            _ => Err(mismatch()),
        }
    }

    fn is_namespace_there(&mut self, netns: &NetnsRef) -> Result<bool, StepError> {
        match self.node.observe(&Subject::Namespace(netns.clone()))? {
            Observed::Namespace(is_there) => Ok(is_there),
            _ => Err(mismatch()),
        }
    }

    /// What is pinned and in no record.
    fn unrecorded(&mut self) -> Result<Vec<AttachmentId>, StepError> {
        match self.node.observe(&Subject::AllDatapaths)? {
            Observed::AllDatapaths(mut all) => {
                all.retain(|id| self.checkpoint.record(id).is_none());
                Ok(all)
            }
            _ => Err(mismatch()),
        }
    }

    fn record(
        &mut self,
        device: &DeviceName,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<(), AttachError> {
        self.checkpoint.put(records).map_err(|error| AttachError::Record {
            device: device.clone(),
            message: error.to_string(),
        })
    }
}

/// What to do next.
enum Next {
    Command(Command),
    /// Nobody has asked for anything until the moment that was given.
    Due,
    End,
}

/// The command to serve next, or that it is `due` to do something unasked. What the runtime or an operator waits for comes before what kubelet
/// waits for, since kubelet gives us more time; within each the order is kept.
fn next(
    desk: &mut Desk,
    waiting: &mut VecDeque<Command>,
    clock: &Runtime,
    due: Option<Instant>,
) -> Next {
    if waiting.is_empty() {
        let received = match due {
            None => desk.commands.blocking_recv(),
            Some(due) => {
                let receiving = async { timeout_at(due.into(), desk.commands.recv()).await };
                let Ok(received) = clock.block_on(receiving) else { return Next::Due };
                received
            }
        };
        let Some(command) = received else { return Next::End };
        waiting.push_back(command);
    }
    while let Ok(command) = desk.commands.try_recv() {
        waiting.push_back(command);
    }
    let urgent = waiting.iter().position(|command| {
        !matches!(command, Command::Prepare { .. } | Command::Unprepare { .. })
    });
    // There is one at least.
    waiting.remove(urgent.unwrap_or(0)).map_or(Next::End, Next::Command)
}

fn mismatch() -> StepError {
    StepError { message: "the node answered about another subject".to_owned() }
}
