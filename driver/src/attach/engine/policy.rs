//! The operator's policy: laid over what a claim wishes, also while its pod runs.

use std::time::{Duration, Instant};

use super::Engine;
use crate::attach::execute::{Done, execute, try_all};
use crate::attach::{AttachError, Changed};
use crate::model::{
    BuildId, By, DatapathSpec, InterfaceState, OperatorPolicy, Phase, Place, Record, Selection,
};
use crate::node::Node;
use crate::plan::{self, DatapathState};
use crate::policy;

/// One attachment whose policy changes.
struct Change {
    former: Record,
    wanted: Record,
    /// The interface, where it is in a sandbox.
    inside: Option<InterfaceState>,
    took: Duration,
}

/// A filter that compiles for one clock compiles for each; the real one is the loader's to know.
const ANY_HZ: u64 = 250;

impl<N: Node> Engine<N> {
    /// Puts `policy` in force on everything that is selected, or on nothing.
    ///
    /// A crash in between goes on at the next start: what is on disk then names the new rules and
    /// no build of programs, so that settling replaces whatever runs.
    pub(super) fn set_policy(
        &mut self,
        selection: &Selection,
        policy: Option<&OperatorPolicy>,
    ) -> Result<Vec<Changed>, AttachError> {
        let selected = self.select(|record| selection.has(record));
        if selected.is_empty() {
            return Err(AttachError::NothingSelected { selection: selection.clone() });
        }
        // First decide for all of them, then touch the first.
        let (mut answer, mut changes) = (Vec::new(), Vec::new());
        for former in selected {
            match self.overlaid(&former, policy)? {
                Some(wanted) => {
                    let inside = self.inside(&former)?;
                    changes.push(Change { former, wanted, inside, took: Duration::ZERO });
                }
                None => answer.push(Changed { record: former, took: Duration::ZERO }),
            }
        }
        self.enforce(&mut changes)?;
        answer.extend(changes.into_iter().map(|Change { wanted: record, took, .. }| {
            let generation = record.datapath.as_ref().map(|spec| spec.generation);
            tracing::info!(device = %record.device.name, ?generation, ?took, "policy changed");
            Changed { record, took }
        }));
        answer.sort_by_key(|changed| changed.record.id());
        Ok(answer)
    }

    fn inside(&mut self, record: &Record) -> Result<Option<InterfaceState>, AttachError> {
        let Phase::Attached { netns, inside } = &record.phase else {
            return Ok(None);
        };
        let device = record.device.name.clone();
        self.interface(Place::Pod(netns.clone()), By::Index(*inside))
            .map_err(|source| AttachError::Observe { device, source })
    }

    /// What is written before the programs are replaced; `None` where `policy` is in force already.
    fn overlaid(
        &mut self,
        record: &Record,
        policy: Option<&OperatorPolicy>,
    ) -> Result<Option<Record>, AttachError> {
        let device = || record.device.name.clone();
        let Some(spec) = &record.datapath else {
            return Err(AttachError::NoPrograms { device: device() });
        };
        if !matches!(record.phase, Phase::Prepared | Phase::Attached { .. }) {
            let phase = record.phase.name();
            return Err(AttachError::OnItsWay { device: device(), phase });
        }
        let state = self
            .datapath(record.id())
            .map_err(|source| AttachError::Observe { device: device(), source })?;
        if state != DatapathState::Attached {
            return Err(AttachError::Unenforceable { device: device(), state });
        }
        if record.policy.as_ref() == policy && record.build == self.build {
            return Ok(None);
        }
        let filter = policy::overlay(record.wishes.ebpf.filter.as_ref(), policy);
        if let Some(filter) = &filter {
            policy::compile(filter, ANY_HZ)
                .map_err(|problems| AttachError::Policy { device: device(), problems })?;
        }
        let generation = spec.generation.saturating_add(1);
        let mut wanted = record.clone();
        wanted.datapath = Some(DatapathSpec { filter, generation, ..spec.clone() });
        wanted.policy = policy.cloned();
        wanted.build = BuildId::default();
        Ok(Some(wanted))
    }

    fn enforce(&mut self, changes: &mut [Change]) -> Result<(), AttachError> {
        let Some(first) = changes.first().map(|change| change.wanted.device.name.clone()) else {
            return Ok(());
        };
        self.record(&first, changes.iter().map(|change| change.wanted.clone()))?;
        for nth in 0..changes.len() {
            let started = Instant::now();
            let change = &changes[nth];
            let steps = plan::replace(&change.wanted, change.inside.as_ref());
            match execute(&mut self.node, &steps, None, &mut Done::default()) {
                Ok(()) => changes[nth].took = started.elapsed(),
                Err(stopped) => {
                    let residue = self.take_back(changes, nth + 1);
                    return Err(stopped.at(changes[nth].wanted.device.name.clone(), residue));
                }
            }
        }
        for change in &mut *changes {
            change.wanted.build = self.build.clone();
        }
        let outcome = changes.iter().map(|change| change.wanted.clone());
        if let Err(error) = self.checkpoint.put(outcome) {
            // It is in force and on disk. That a start replaces the programs once more harms nobody.
            tracing::warn!(%error, "a policy that is in force is still recorded as under way");
        }
        Ok(())
    }

    /// Puts the former programs back where the first `touched` of the changes may have replaced
    /// some of theirs, newest first: where a replacement fails, one program or a whole set may be in
    /// place, so no undo of a step could do it. Answers what could not be put back; its record says
    /// so too.
    fn take_back(&mut self, changes: &[Change], touched: usize) -> Vec<String> {
        let mut former: Vec<_> = changes.iter().map(|change| change.former.clone()).collect();
        for record in &mut former[..touched] {
            record.build = BuildId::default();
        }
        if let Err(error) = self.checkpoint.put(former.iter().cloned()) {
            tracing::error!(%error, "cannot record that a policy is taken back");
        }
        let mut residue = Vec::new();
        for (record, change) in former.iter_mut().zip(changes).take(touched).rev() {
            let left = try_all(&mut self.node, plan::replace(record, change.inside.as_ref()));
            if left.is_empty() {
                record.build = self.build.clone();
            }
            residue.extend(left.iter().map(ToString::to_string));
        }
        if let Err(error) = self.checkpoint.put(former) {
            residue.push(format!("the record ({error}), so the next start does it"));
        }
        residue
    }
}
