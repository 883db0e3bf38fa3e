//! Trying again, unasked, what could not be done: programs that run, or may run, other rules than
//! those that are recorded.

use super::Engine;
use crate::model::{Phase, Record};
use crate::node::Node;

impl<N: Node> Engine<N> {
    /// Whether there is anything to mend.
    pub(super) fn is_unsure(&self) -> bool {
        self.checkpoint.records().any(is_unsure)
    }

    /// Replaces programs that may not be those that are recorded, where that can be done now. A
    /// device that is nowhere, or whose datapath is broken, is left to its pod's end.
    pub(super) fn mend(&mut self) {
        for record in self.select(is_unsure) {
            let device = record.device.name.clone();
            match self.enforceable(&record) {
                Ok(_) => {
                    let settled = self.settle_one(record);
                    tracing::info!(%device, now = settled.word(), "its programs were replaced again");
                }
                Err(error) => tracing::debug!(%device, %error, "its programs are left as they are"),
            }
        }
    }
}

/// What is on its way is settled by whoever sent it.
fn is_unsure(record: &Record) -> bool {
    let is_settled = matches!(record.phase, Phase::Prepared | Phase::Attached { .. });
    record.datapath.is_some() && is_settled && !record.build.is_known()
}
