//! Settling: after a start, and whenever the end of an attachment was not seen.

use std::time::Instant;

use super::Engine;
use crate::attach::execute::try_all;
use crate::model::{By, Phase, Place, Record};
use crate::node::{Node, StepError};
use crate::plan::{DatapathState, Seen, Settlement, Step, settle};

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
    }

    /// Removes datapaths that no record names: what a lost checkpoint left behind.
    ///
    /// Not to be called where a checkpoint was set aside: then pods that run may be behind them.
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
        if record.datapath.is_some() && seen.datapath == DatapathState::Broken {
            tracing::error!(%device, "the datapath is broken: links are missing or severed");
        }
        let settlement = settle(&record, &seen, &self.build);
        if settlement != Settlement::Lost {
            self.lost.remove(&record.id());
        }
        match settlement {
            Settlement::Keep(steps) => {
                let is_new = !steps.is_empty();
                if !try_all(&mut self.node, steps).is_empty() {
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
            Settlement::Forget(steps) => {
                if !try_all(&mut self.node, steps).is_empty() {
                    return Settled::Stuck;
                }
                if let Err(error) = self.checkpoint.remove([&record.id()]) {
                    tracing::error!(%device, %error, "cannot remove the record");
                    return Settled::Stuck;
                }
                Settled::Forgotten
            }
            Settlement::Lost => {
                tracing::error!(%device, interface = %record.before.name, "the interface is gone");
                self.lost.entry(record.id()).or_insert_with(Instant::now);
                record.phase = record.phase.leaving();
                self.keep(record);
                Settled::Lost
            }
        }
    }

    /// Home is on the host under the old name. Whatever else could not be put back is residue, and
    /// no reason to hold up the pod's end.
    fn bring_home(&mut self, mut record: Record, steps: Vec<Step>) -> Settled {
        let residue = try_all(&mut self.node, steps);
        let at_home = self.interface(Place::Host, By::Name(record.before.name.clone()));
        if !residue.is_empty() && !matches!(at_home, Ok(Some(_))) {
            self.keep(record);
            return Settled::Stuck;
        }
        record.residue = residue.iter().map(ToString::to_string).collect();
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
        let pod_name = record.pod_interface().clone();
        let in_pod = match record.phase.netns().cloned() {
            Some(netns) => {
                let by = record.phase.inside().map_or(By::Name(pod_name.clone()), By::Index);
                self.interface(Place::Pod(netns), by)?
            }
            None => None,
        };
        let on_host = self.interface(Place::Host, By::Name(record.before.name.clone()))?;
        let stranded = if pod_name == record.before.name {
            None
        } else {
            self.interface(Place::Host, By::Name(pod_name))?
        };
        Ok(Seen { on_host, in_pod, stranded, datapath: self.datapath(record.id())? })
    }
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
