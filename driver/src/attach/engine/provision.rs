//! Virtual functions by configuration, at start.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::{io, thread};

use tokio::sync::mpsc::UnboundedSender;

use super::{Engine, mismatch};
use crate::attach::worker::Command;
use crate::attach::{AttachError, Provisioned, Wanted};
use crate::model::{Device, PfState, SriovRule};
use crate::node::{Node, StepError};
use crate::plan::{self, Observed, Provision, Step, Subject};

type Outcomes = UnboundedSender<Provisioned>;

impl<N: Node> Engine<N> {
    /// Has physical functions have as many virtual ones as `rules` say. Each that has to change is
    /// changed by a thread of its own, which comes back by [`Self::returned`].
    pub(super) fn provision(&mut self, rules: &[SriovRule], outcomes: &Outcomes) {
        if rules.is_empty() {
            return;
        }
        let mut pfs = match self.physical_functions() {
            Ok(pfs) => pfs,
            Err(error) => {
                tracing::error!(%error, "cannot look for physical functions, none is changed");
                return;
            }
        };
        for pf in pfs.iter_mut().filter(|pf| self.changing.contains(&pf.address)) {
            pf.needed = Some("its virtual functions are being made".to_owned());
        }
        let places = self.checkpoint.records().filter_map(|record| record.device.pci.as_ref());
        let held: BTreeSet<_> = places.map(|pci| pci.address).collect();
        for decided in plan::provision(rules, &pfs, &held, self.checkpoint.is_partial()) {
            let Provision::Set { pf, from, to } = decided else {
                self.returned(Provisioned { decided, failure: None }, outcomes);
                continue;
            };
            self.changing.insert(pf);
            let step = Step::SetVfCount { pf, from, to };
            if let Err(error) = self.send(decided.clone(), &step, outcomes) {
                let failure = Some(format!("start a thread: {error}"));
                self.returned(Provisioned { decided, failure }, outcomes);
            }
        }
    }

    /// Has a step done while others are served.
    fn send(&self, decided: Provision, step: &Step, outcomes: &Outcomes) -> io::Result<()> {
        let (errand, outcomes) = (self.node.errand(step), outcomes.clone());
        let queue = self.queue.clone();
        let named = thread::Builder::new().name("provision".to_owned());
        let run = move || {
            // Whatever happens to it, the function is not said to be changing for ever.
            let failure = match panic::catch_unwind(AssertUnwindSafe(errand)) {
                Ok(done) => done.err().map(|error| error.message),
                Err(_) => Some("the driver failed, see its log".to_owned()),
            };
            let outcome = Provisioned { decided, failure };
            // A driver that is stopping has nobody left to tell.
            if let Some(queue) = queue.and_then(|queue| queue.upgrade()) {
                let _ = queue.send(Command::Returned { outcome, outcomes });
            }
        };
        named.spawn(run).map(drop)
    }

    /// Tells what became of a physical function, which claims may have again.
    pub(super) fn returned(&mut self, outcome: Provisioned, outcomes: &Outcomes) {
        match (&outcome.decided, &outcome.failure) {
            (Provision::Keep { pf, count }, _) => {
                tracing::info!(%pf, count, "it has as many virtual functions as it shall");
            }
            (Provision::Set { pf, from, to }, failure) => {
                self.changing.remove(pf);
                match failure {
                    None => tracing::info!(%pf, from, to, "it has other virtual functions now"),
                    Some(error) => tracing::error!(%pf, from, to, error, "no virtual functions"),
                }
            }
            (Provision::Refuse { pf, reason }, _) => {
                tracing::error!(%pf, reason, "its virtual functions stay as they are");
            }
            (Provision::Unmatched { rule }, _) => {
                tracing::warn!(?rule, "no physical function here is meant by it");
            }
        }
        // Nobody has to wait for it.
        let _ = outcomes.send(outcome);
    }

    /// Whoever got a function now could lose it, or find it half made.
    pub(super) fn check_changing(
        &self,
        device: &Wanted,
        found: &Device,
    ) -> Result<(), AttachError> {
        let own = found.pci.as_ref().map(|pci| pci.address);
        let of = found.vf.as_ref().map(|vf| vf.pf);
        match own.into_iter().chain(of).find(|address| self.changing.contains(address)) {
            None => Ok(()),
            Some(pf) => Err(AttachError::Provisioning { device: device.name.clone(), pf }),
        }
    }

    pub(super) fn physical_functions(&mut self) -> Result<Vec<PfState>, StepError> {
        match self.node.observe(&Subject::PhysicalFunctions)? {
            Observed::PhysicalFunctions(all) => Ok(all),
            _ => Err(mismatch()),
        }
    }
}
