//! Settling: after a start, and whenever the end of an attachment was not seen.

use std::time::Instant;

use super::{Engine, mismatch};
use crate::attach::NoticeKind;
use crate::attach::execute::{Residue, put_back, try_all};
use crate::model::{By, IfName, InterfaceState, Phase, Place, Record};
use crate::node::{Node, StepError};
use crate::plan::{DatapathState, Observed, Seen, Settlement, Step, Subject, settle, stray_of};

/// How an attachment was settled, with the record as it is now where that is of use.
#[derive(Debug)]
pub(super) enum Settled {
    /// In the phase that it had, and sound.
    Kept(Record),
    /// On the host, prepared.
    Freed(Record),
    /// Something could not be done; it is tried again at the next occasion.
    Stuck,
    /// The interface is nowhere.
    Lost,
    /// Nothing is left of it.
    Forgotten,
}

impl<N: Node> Engine<N> {
    /// Brings everything that is recorded to a phase that means what it says: adopts what is alive,
    /// finishes or undoes what was under way. Call once at start.
    pub fn settle(&mut self) {
        for record in self.select(|_| true) {
            let (phase, device) = (record.phase.name(), record.device.name.clone());
            let settled = self.settle_one(record);
            tracing::info!(%device, was = phase, now = settled.word(), "settled");
        }
        self.reconcile_admissions();
        self.node.rest();
    }

    /// Removes datapaths and sub-interfaces that no record names: what a death between two steps left behind.
    ///
    /// Not to be called where the checkpoint is partial: then pods that run may be behind them.
    pub fn sweep(&mut self) {
        match self.unrecorded() {
            Ok(ids) => {
                for id in &ids {
                    tracing::warn!(%id, "removing a datapath that nobody knows");
                }
                try_all(&mut self.node, ids.into_iter().map(|id| Step::RemoveDatapath { id }));
            }
            Err(error) => tracing::error!(%error, "cannot look for datapaths that nobody knows"),
        }
        match self.unrecorded_subinterfaces() {
            Ok(names) => {
                for name in names {
                    tracing::warn!(%name, "removing a sub-interface that nobody knows");
                    try_all(&mut self.node, [Step::RemoveSubinterface { name }]);
                }
            }
            Err(error) => tracing::error!(%error, "cannot look for sub-interfaces"),
        }
        self.node.rest();
    }

    fn unrecorded_subinterfaces(&mut self) -> Result<Vec<IfName>, StepError> {
        match self.node.observe(&Subject::AllSubinterfaces)? {
            Observed::AllSubinterfaces(mut names) => {
                let mut recorded = self.checkpoint.records().flat_map(|r| &r.subinterface);
                names.retain(|name| !recorded.any(|spec| spec.name == *name));
                Ok(names)
            }
            _ => Err(mismatch()),
        }
    }

    /// Settles one attachment, and writes down how.
    pub(super) fn settle_one(&mut self, mut record: Record) -> Settled {
        let device = record.device.name.clone();
        let seen = match self.look_for(&record) {
            Ok(seen) => seen,
            Err(error) => {
                tracing::error!(%device, %error, "cannot look at the attachment; left as it is");
                return Settled::Stuck;
            }
        };
        // What is made or taken away is never whole, nor is what went with its namespace.
        let is_whole = matches!(record.phase, Phase::Prepared | Phase::Attached { .. })
            && (seen.in_pod.is_some() || seen.on_host.is_some());
        if is_whole && record.datapath.is_some() && seen.datapath == DatapathState::Broken {
            tracing::error!(%device, "the datapath is broken: links are missing or severed");
        }
        let settlement = settle(&record, &seen, &self.build);
        if settlement != Settlement::Lost {
            self.lost.remove(&record.id());
        }
        match settlement {
            Settlement::Keep(steps) => {
                let is_new = !steps.is_empty();
                let done = try_all(&mut self.node, steps).is_empty();
                if !done || self.look_at_subinterface_of(&mut record).is_err() {
                    self.keep(record);
                    return Settled::Stuck;
                }
                // Broken programs in a pod are of no new build: nothing could be done about them.
                if is_new {
                    record.build = self.build.clone();
                }
                Settled::Kept(self.keep(record))
            }
            Settlement::Free(steps) => self.bring_home(record, steps),
            Settlement::Forget { is_home } => match self.clear(&record, is_home) {
                Ok(()) => Settled::Forgotten,
                Err(error) => {
                    tracing::error!(%device, %error, "cannot be cleared away");
                    Settled::Stuck
                }
            },
            Settlement::Lost => {
                tracing::error!(%device, called = record.device.called(), "it is nowhere");
                if !self.lost.contains_key(&record.id()) {
                    let noun = if record.has_interface() { "interface " } else { "" };
                    let message = format!("{noun}{} is nowhere to be found", home_name(&record));
                    self.tell(&record, NoticeKind::Lost, message);
                }
                self.lost.entry(record.id()).or_insert_with(Instant::now);
                record.phase = record.phase.leaving();
                self.keep(record);
                Settled::Lost
            }
        }
    }

    /// What a sub-interface that was made anew is like; what has been in a sandbox stays as recorded.
    fn look_at_subinterface_of(&mut self, record: &mut Record) -> Result<(), StepError> {
        if record.phase != Phase::Prepared || record.subinterface.is_none() {
            return Ok(());
        }
        if let Some(state) = self.at_home(record)? {
            record.before = state;
        }
        Ok(())
    }

    /// The interface on the host. What has none is at home wherever it is.
    pub(super) fn at_home(&mut self, record: &Record) -> Result<Option<InterfaceState>, StepError> {
        if !record.has_interface() {
            return Ok(None);
        }
        self.interface(Place::Host, By::Name(record.before.name.clone()))
    }

    /// Whether the interface is on the host under its old name, or there is none to look for.
    pub(super) fn is_home(&mut self, record: &Record) -> bool {
        if record.has_interface() {
            matches!(self.at_home(record), Ok(Some(_)))
        } else {
            record.rdma.is_none() || matches!(self.is_rdma_home(record), Ok(true))
        }
    }

    /// Whether the RDMA device that moves is on the host.
    pub(super) fn is_rdma_home(&mut self, record: &Record) -> Result<bool, StepError> {
        let Some(place) = &record.rdma else { return Ok(false) };
        Ok(self.rdma(Place::Host, &place.name, Some(place.index))?.is_some())
    }

    /// Whether the RDMA device is still to be fetched. A namespace that is gone gives it back by itself,
    /// and one that is nowhere any more, as software's that ends with its interface's move, is no
    /// reason to wait.
    fn is_rdma_left_behind(&mut self, record: &Record) -> bool {
        let (Some(netns), Some(device)) = (record.phase.netns().cloned(), record.rdma.clone())
        else {
            return false;
        };
        // What nobody can tell may be so.
        !matches!(self.rdma(Place::Pod(netns), &device.name, Some(device.index)), Ok(None))
    }

    /// Home is on the host under the old name, and so is the RDMA device. Whatever else could not be put back is residue, and
    /// no reason to hold up the pod's end.
    fn bring_home(&mut self, mut record: Record, steps: Vec<Step>) -> Settled {
        let residue = put_back(&mut self.node, steps);
        let is_home = self.is_home(&record);
        // A sub-interface that went with its namespace is made anew when it is needed.
        let is_missing = !is_home && record.subinterface.is_none();
        if !residue.is_empty() && (is_missing || self.is_rdma_left_behind(&record)) {
            self.keep(record);
            return Settled::Stuck;
        }
        record.residue = residue.iter().map(ToString::to_string).collect();
        if !residue.is_empty() {
            self.tell(&record, NoticeKind::Residue, told(&residue));
        }
        record.phase = Phase::Prepared;
        record.sandbox = None;
        Settled::Freed(self.keep(record))
    }

    fn keep(&mut self, record: Record) -> Record {
        if let Err(error) = self.checkpoint.put([record.clone()]) {
            tracing::error!(device = %record.device.name, %error, "cannot write the record");
        }
        record
    }

    fn look_for(&mut self, record: &Record) -> Result<Seen, StepError> {
        if !record.has_interface() {
            return self.look_for_bare(record);
        }
        let pod_name = record.pod_interface().clone();
        let in_pod = match record.phase.netns().cloned() {
            Some(netns) => {
                let by = record.phase.inside().map_or(By::Name(pod_name.clone()), By::Index);
                self.interface(Place::Pod(netns), by)?
            }
            None => None,
        };
        let on_host = self.at_home(record)?;
        let strays = match (&in_pod, &on_host, &record.subinterface) {
            (None, _, None) if record.phase.netns().is_some() => self.strays(record)?,
            _ => Vec::new(),
        };
        // Where the interface is, tells of the others.
        let datapath = self.datapath(record.id())?;
        let is_namespace_there = in_pod.is_some();
        let is_rdma_home = self.is_rdma_home(record)?;
        Ok(Seen { on_host, in_pod, strays, datapath, is_namespace_there, is_rdma_home })
    }

    /// Interfaces of the host that may be the record's; without those that others are about.
    fn strays(&mut self, record: &Record) -> Result<Vec<InterfaceState>, StepError> {
        match self.node.observe(&Subject::Strays(stray_of(record)))? {
            Observed::Strays(mut found) => {
                let is_home = |name: &IfName| {
                    let mut others = self.checkpoint.records().filter(|r| r.id() != record.id());
                    *name == record.before.name || others.any(|other| other.before.name == *name)
                };
                found.retain(|state| !is_home(&state.name));
                Ok(found)
            }
            _ => Err(mismatch()),
        }
    }
}

/// What the device is called on the host.
fn home_name(record: &Record) -> &str {
    if record.has_interface() { record.before.name.as_str() } else { record.device.called() }
}

/// Everything that was left behind, in one text.
fn told(residue: &[Residue]) -> String {
    residue.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Settled {
    /// One word, for the log.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Kept(record) | Self::Freed(record) => record.phase.name(),
            Self::Stuck => "stuck",
            Self::Lost => "lost",
            Self::Forgotten => "forgotten",
        }
    }
}
