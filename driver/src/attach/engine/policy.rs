//! The operator's policy: laid over what a claim wishes, also while its pod runs.

use std::time::{Duration, Instant};

use super::Engine;
use crate::attach::execute::{Done, execute, try_all};
use crate::attach::{AttachError, Changed, Ordered};
use crate::model::{
    AttachmentId, BuildId, By, DatapathSpec, Filter, InterfaceState, OperatorPolicy, Phase, Place,
    Problems, Record, Selection, Wishes,
};
use crate::node::Node;
use crate::plan::{self, DatapathState};
use crate::policy;

/// One attachment whose policy changes.
struct Change {
    former: Record,
    wanted: Record,
    /// The interface in its sandbox, if it is in one.
    inside: Option<InterfaceState>,
    took: Duration,
    is_refused: bool,
}

/// A filter that compiles for one clock compiles for each; the real one is the loader's to know.
const ANY_HZ: u64 = 250;

impl<N: Node> Engine<N> {
    /// Puts `policy` in force on everything that is selected, or on nothing. Where all of the node is
    /// selected, one device that is lost does not keep the others from it.
    ///
    /// A crash in between goes on at the next start: what is on disk then names the new rules and
    /// no build of programs, so that settling replaces whatever runs.
    pub(super) fn set_policy(
        &mut self,
        selection: &Selection,
        policy: Option<&OperatorPolicy>,
    ) -> Result<Ordered, AttachError> {
        let selected = self.select(|record| selection.has(record));
        if selected.is_empty() {
            return match policy {
                None if self.give_up_kept(selection)? > 0 => Ok(Ordered::default()),
                _ => Err(AttachError::NothingSelected { selection: selection.clone() }),
            };
        }
        // First decide for all of them, then touch the first.
        let (mut answer, mut changes) = (Ordered::default(), Vec::new());
        for record in selected {
            match self.change(&record, policy) {
                Ok(Some(change)) => changes.push(change),
                Ok(None) => answer.changed.push(Changed { record, took: Duration::ZERO }),
                Err(error) if *selection == Selection::All => answer.refused.push(error),
                Err(error) => return Err(error),
            }
        }
        answer.refused.extend(self.enforce(&mut changes, selection)?);
        if policy.is_none() {
            self.give_up_kept(selection)?;
        }
        answer.changed.extend(changes.into_iter().map(
            |Change { wanted: record, took, .. }| {
                let generation = record.datapath.as_ref().map(|spec| spec.generation);
                tracing::info!(device = %record.device.name, ?generation, ?took, "policy changed");
                Changed { record, took }
            },
        ));
        answer.changed.sort_by_key(|changed| changed.record.id());
        Ok(answer)
    }

    /// What is to be done for one attachment; `None` where `policy` is in force already.
    fn change(
        &mut self,
        former: &Record,
        policy: Option<&OperatorPolicy>,
    ) -> Result<Option<Change>, AttachError> {
        let inside = self.enforceable(former)?;
        let wanted = overlaid(former, policy, &self.build)?;
        let (former, took, is_refused) = (former.clone(), Duration::ZERO, false);
        Ok(wanted.map(|wanted| Change { former, wanted, inside, took, is_refused }))
    }

    /// Forgets the policies of an earlier boot that were to hold again for what is selected.
    fn give_up_kept(&mut self, selection: &Selection) -> Result<usize, AttachError> {
        let given_up = self.checkpoint.forget_kept(|kept| selection.has_kept(kept));
        given_up.map_err(|error| AttachError::Kept { message: error.to_string() })
    }

    /// The policy that an earlier boot left for an attachment that is prepared again, and the filter
    /// that it makes of the claim's.
    pub(super) fn with_kept(
        &self,
        id: &AttachmentId,
        wishes: &Wishes,
    ) -> Result<(Option<OperatorPolicy>, Option<Filter>), AttachError> {
        let Some(policy) = self.checkpoint.kept(id).cloned() else {
            return Ok((None, wishes.ebpf.filter.clone()));
        };
        tracing::info!(attachment = %id, "the policy of before the node's restart is laid over it");
        match laid_over(wishes, Some(&policy)) {
            Ok(filter) => Ok((Some(policy), filter)),
            Err(problems) => Err(AttachError::KeptPolicy {
                device: id.device.clone(),
                claim: id.claim.clone(),
                reason: problems.to_string(),
            }),
        }
    }

    /// Whether the programs of `record` can be replaced now; answers the interface in its sandbox.
    pub(super) fn enforceable(
        &mut self,
        record: &Record,
    ) -> Result<Option<InterfaceState>, AttachError> {
        let device = || record.device.name.clone();
        if record.datapath.is_none() {
            return Err(AttachError::NoPrograms { device: device() });
        }
        let unseen = |source| AttachError::Observe { device: device(), source };
        let inside = match &record.phase {
            Phase::Prepared => None,
            Phase::Attached { netns, inside } => Some(
                self.interface(Place::Pod(netns.clone()), By::Index(*inside))
                    .map_err(unseen)?
                    .ok_or_else(|| {
                        let state = DatapathState::Broken;
                        AttachError::Unenforceable { device: device(), state }
                    })?,
            ),
            phase => return Err(AttachError::OnItsWay { device: device(), phase: phase.name() }),
        };
        match self.datapath(record.id()).map_err(unseen)? {
            DatapathState::Attached => Ok(inside),
            state => Err(AttachError::Unenforceable { device: device(), state }),
        }
    }

    /// Carries the changes out. Answers why some were taken back, which are then none of `changes`.
    fn enforce(
        &mut self,
        changes: &mut Vec<Change>,
        selection: &Selection,
    ) -> Result<Vec<AttachError>, AttachError> {
        let mut refused = Vec::new();
        let Some(first) = changes.first().map(|change| change.wanted.device.name.clone()) else {
            return Ok(refused);
        };
        self.record(&first, changes.iter().map(|change| change.wanted.clone()))?;
        for nth in 0..changes.len() {
            let started = Instant::now();
            let steps = plan::replace(&changes[nth].wanted, changes[nth].inside.as_ref());
            match execute(&mut self.node, &steps, None, &mut Done::default()) {
                Ok(()) => changes[nth].took = started.elapsed(),
                Err(stopped) => {
                    let device = changes[nth].wanted.device.name.clone();
                    if *selection != Selection::All {
                        return Err(stopped.at(device, self.take_back(changes, nth + 1)));
                    }
                    let residue = self.take_back(&changes[nth..=nth], 1);
                    refused.push(stopped.at(device, residue));
                    changes[nth].is_refused = true;
                }
            }
        }
        changes.retain(|change| !change.is_refused);
        for change in &mut *changes {
            change.wanted.build = self.build.clone();
        }
        let outcome = changes.iter().map(|change| change.wanted.clone());
        if let Err(error) = self.checkpoint.put(outcome) {
            // It is in force and on disk. That the programs are replaced once more harms nobody.
            tracing::warn!(%error, "a policy that is in force is still recorded as under way");
        }
        Ok(refused)
    }

    /// Puts the former programs back where the first `touched` of the changes may have replaced
    /// some of theirs, newest first. Answers what could not be put back; its record says so too.
    ///
    /// The number of what failed may have judged packets, so the former rules come back under the
    /// next one.
    fn take_back(&mut self, changes: &[Change], touched: usize) -> Vec<String> {
        let mut former: Vec<_> = changes.iter().map(|change| change.former.clone()).collect();
        for (record, change) in former.iter_mut().zip(changes).take(touched) {
            record.build = BuildId::default();
            if let (Some(spec), Some(failed)) = (&mut record.datapath, &change.wanted.datapath) {
                spec.generation = failed.generation.saturating_add(1);
            }
        }
        if let Err(error) = self.checkpoint.put(former.iter().cloned()) {
            tracing::error!(%error, "cannot record that a policy is taken back");
        }
        let mut residue = Vec::new();
        // Of what failed, one link of two may have its new program, so it is replaced as well.
        for (record, change) in former.iter_mut().zip(changes).take(touched).rev() {
            let steps = plan::replace(record, change.inside.as_ref());
            let left = try_all(&mut self.node, steps);
            if left.is_empty() {
                record.build = self.build.clone();
            }
            residue.extend(left.iter().map(ToString::to_string));
        }
        if let Err(error) = self.checkpoint.put(former) {
            residue.push(format!("the record ({error}), so it is done later"));
        }
        residue
    }
}

/// What is written before the programs are replaced; `None` where `policy` is in force already, by
/// programs of this build.
fn overlaid(
    record: &Record,
    policy: Option<&OperatorPolicy>,
    build: &BuildId,
) -> Result<Option<Record>, AttachError> {
    if record.policy.as_ref() == policy && record.build == *build {
        return Ok(None);
    }
    let filter = laid_over(&record.wishes, policy).map_err(|problems| {
        let device = record.device.name.clone();
        AttachError::Policy { device, problems }
    })?;
    let mut wanted = record.clone();
    if let Some(spec) = &mut wanted.datapath {
        let generation = spec.generation.saturating_add(1);
        *spec = DatapathSpec { filter, generation, ..spec.clone() };
    }
    wanted.policy = policy.cloned();
    wanted.build = BuildId::default();
    Ok(Some(wanted))
}

/// The filter of a claim with `policy` over it, which is sure to compile.
fn laid_over(wishes: &Wishes, policy: Option<&OperatorPolicy>) -> Result<Option<Filter>, Problems> {
    let filter = policy::overlay(wishes.ebpf.filter.as_ref(), policy);
    if let Some(filter) = &filter {
        policy::compile(filter, ANY_HZ)?;
    }
    Ok(filter)
}
