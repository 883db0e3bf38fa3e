//! Settling: after a start, and whenever the end of an attachment was not seen.

use super::Engine;
use crate::model::{By, Phase, Place, Record};
use crate::node::{Node, StepError};
use crate::plan::{DatapathState, Seen, Settlement, settle};

impl<N: Node> Engine<N> {
    /// Brings everything that is recorded to a phase that means what it says: adopts what is alive,
    /// finishes or undoes what was under way. Call once at start.
    pub fn settle(&mut self) {
        for record in self.select(|_| true) {
            let (phase, device) = (record.phase.name(), record.device.name.clone());
            let settled = self.settle_one(record);
            let now = settled.as_ref().map_or("gone", |record| record.phase.name());
            tracing::info!(%device, was = phase, %now, "settled");
        }
    }

    /// Settles one attachment. Answers its record where that stays.
    pub(super) fn settle_one(&mut self, mut record: Record) -> Option<Record> {
        let device = record.device.name.clone();
        let seen = match self.look_for(&record) {
            Ok(seen) => seen,
            Err(error) => {
                tracing::error!(%device, %error, "cannot look at the attachment; left as it is");
                return Some(record);
            }
        };
        if record.datapath.is_some() && seen.datapath == DatapathState::Broken {
            tracing::error!(%device, "the datapath is broken: links are missing or severed");
        }
        match settle(&record, &seen, &self.build) {
            Settlement::Keep(steps) => {
                let has_datapath = record.datapath.is_some();
                if self.carry_out(steps) && has_datapath {
                    record.build = self.build.clone();
                }
                Some(self.keep(record))
            }
            Settlement::Free(steps) => {
                if self.carry_out(steps) {
                    record.phase = Phase::Prepared;
                    record.sandbox = None;
                }
                Some(self.keep(record))
            }
            Settlement::Forget(steps) => {
                if !self.carry_out(steps) {
                    return Some(self.keep(record));
                }
                if let Err(error) = self.checkpoint.remove([&record.id()]) {
                    tracing::error!(%device, %error, "cannot remove the record");
                    return Some(record);
                }
                None
            }
            Settlement::Lost => {
                tracing::error!(%device, interface = %record.before.name, "the interface is gone");
                record.phase = Phase::Prepared;
                record.sandbox = None;
                Some(self.keep(record))
            }
        }
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
