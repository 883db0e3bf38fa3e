//! Virtual functions by configuration, at start.

use std::collections::BTreeSet;

use super::{Engine, mismatch};
use crate::attach::Provisioned;
use crate::attach::execute::try_all;
use crate::model::{PfState, SriovRule};
use crate::node::{Node, StepError};
use crate::plan::{self, Observed, Provision, Step, Subject};

impl<N: Node> Engine<N> {
    /// Has physical functions have as many virtual ones as `rules` say, and tells what became of each.
    pub(super) fn provision(&mut self, rules: &[SriovRule]) -> Vec<Provisioned> {
        if rules.is_empty() {
            return Vec::new();
        }
        let pfs = match self.physical_functions() {
            Ok(pfs) => pfs,
            Err(error) => {
                tracing::error!(%error, "cannot look for physical functions, none is changed");
                return Vec::new();
            }
        };
        let places = self.checkpoint.records().filter_map(|record| record.device.pci.as_ref());
        let held: BTreeSet<_> = places.map(|pci| pci.address).collect();
        let decided = plan::provision(rules, &pfs, &held, self.checkpoint.is_partial());
        decided.into_iter().map(|decided| self.carry_out(decided)).collect()
    }

    fn carry_out(&mut self, decided: Provision) -> Provisioned {
        let mut failure = None;
        match &decided {
            Provision::Keep { pf, count } => {
                tracing::info!(%pf, count, "it has as many virtual functions as it shall");
            }
            Provision::Set { pf, from, to } => {
                let step = Step::SetVfCount { pf: *pf, count: *to };
                let residue = try_all(&mut self.node, [step]).into_iter().next();
                failure = residue.map(|residue| residue.error.message);
                match &failure {
                    None => tracing::info!(%pf, from, to, "it has other virtual functions now"),
                    Some(error) => tracing::error!(%pf, from, to, error, "no virtual functions"),
                }
            }
            Provision::Refuse { pf, reason } => {
                tracing::error!(%pf, reason, "its virtual functions stay as they are");
            }
            Provision::Unmatched { rule } => {
                tracing::warn!(?rule, "no physical function here is meant by it");
            }
        }
        Provisioned { decided, failure }
    }

    fn physical_functions(&mut self) -> Result<Vec<PfState>, StepError> {
        match self.node.observe(&Subject::PhysicalFunctions)? {
            Observed::PhysicalFunctions(all) => Ok(all),
            _ => Err(mismatch()),
        }
    }
}
