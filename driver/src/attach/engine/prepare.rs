//! Prepare and unprepare: what is slow is done here, while the interface is still on the host.

use std::time::Duration;

use super::Engine;
use super::draft::{Draft, check_names};
use super::settle::Settled;
use super::travel::Failure;
use crate::attach::execute::{Done, Residue, Stopped, execute, put_back, roll_back, try_all};
use crate::attach::{AttachError, NoticeKind, PrepareClaim, Wanted};
use crate::model::{By, ClaimUid, DeviceName, Phase, Place, Record, SubinterfaceSpec};
use crate::node::Node;
use crate::plan::{self, Step, VfPin};

impl<N: Node> Engine<N> {
    /// Prepares all devices of a claim or none.
    pub(super) fn prepare(&mut self, wanted: &PrepareClaim) -> Result<Vec<Record>, AttachError> {
        // First decide for all devices, then touch the first.
        let mut errors = check_names(wanted);
        let mut answer = Vec::new();
        let mut drafts = Vec::new();
        for device in &wanted.devices {
            let known = self.collect_debt(wanted, device).and_then(|()| self.known(wanted, device));
            match known {
                Ok(Some(record)) => answer.push(record),
                Ok(None) => match self.draft(wanted, device) {
                    Ok(draft) => drafts.push(draft),
                    Err(error) => errors.push(error),
                },
                Err(error) => errors.push(error),
            }
        }
        AttachError::all_of(errors)?;
        answer.extend(self.set_up(&drafts)?);
        Ok(answer)
    }

    /// Makes of drafts what is prepared, or nothing.
    fn set_up(&mut self, drafts: &[Draft]) -> Result<Vec<Record>, AttachError> {
        let Some(first) = drafts.first().map(|draft| draft.record.device.name.clone()) else {
            return Ok(Vec::new());
        };
        self.record(&first, drafts.iter().map(|draft| draft.record.clone()))?;
        let mut done = Done::default();
        let mut new: Vec<_> = drafts.iter().map(|draft| draft.record.clone()).collect();
        for (draft, record) in drafts.iter().zip(&mut new) {
            let made = self
                .make(draft, &mut done)
                .map_err(|stopped| Failure::Stopped(record.device.name.clone(), stopped))
                .and_then(|()| self.look_at_subinterface(record));
            if let Err(failure) = made {
                let residue = self.abandon(&new, done);
                return Err(failure.into_error(residue.iter().map(ToString::to_string).collect()));
            }
            record.phase = Phase::Prepared;
        }
        if let Err(error) = self.record(&first, new.iter().cloned()) {
            self.abandon(&new, done);
            return Err(error);
        }
        Ok(new)
    }

    fn make(&mut self, draft: &Draft, done: &mut Done) -> Result<(), Stopped> {
        let mut pin = VfPin::Loose;
        if let Some(step) = plan::unpin_vf(&draft.record)
            && execute(&mut self.node, &[step], None, done).is_err()
        {
            pin = VfPin::Fast;
        }
        let steps = plan::prepare(&draft.record, &draft.settings, pin);
        execute(&mut self.node, &steps, None, done)
    }

    /// Only now there is a sub-interface to look at.
    pub(super) fn look_at_subinterface(&mut self, record: &mut Record) -> Result<(), Failure> {
        let Some(spec) = &record.subinterface else {
            return Ok(());
        };
        let device = record.device.name.clone();
        match self.interface(Place::Host, By::Name(spec.name.clone())) {
            Ok(Some(state)) => record.before = state,
            Ok(None) => return Err(Failure::Vanished(device)),
            Err(source) => return Err(Failure::Unseen(device, source)),
        }
        Ok(())
    }

    /// The record of a device that this claim has prepared already.
    fn known(
        &mut self,
        wanted: &PrepareClaim,
        device: &Wanted,
    ) -> Result<Option<Record>, AttachError> {
        // Shares of one device have a holder each; whoever has it whole has all of it.
        let is_same = |record: &&Record| {
            record.device.name == device.name
                && (record.share == device.share
                    || record.share.is_none()
                    || device.share.is_none())
        };
        let holder = self.checkpoint.records().find(is_same).cloned();
        match holder {
            None => Ok(None),
            Some(record) if record.claim.uid != wanted.claim.uid => {
                Err(AttachError::InUse { device: device.name.clone(), holder: record.claim })
            }
            Some(record) => self.renew(record, wanted),
        }
    }

    /// A record that a repeated prepare meets: as good as new, or, where an earlier attempt left it
    /// half-way, gone so that it can be made again.
    fn renew(
        &mut self,
        mut record: Record,
        wanted: &PrepareClaim,
    ) -> Result<Option<Record>, AttachError> {
        let device = record.device.name.clone();
        let is_stale = record.pod != wanted.pod;
        if is_stale && record.phase.netns().is_some() {
            // The claim is reserved for the new pod alone, so the former has ended.
            record.phase = record.phase.leaving();
        }
        if matches!(record.phase, Phase::Attached { .. }) {
            return Ok(Some(record));
        }
        let mut record = match self.settle_one(record) {
            Settled::Kept(record) | Settled::Freed(record) => record,
            Settled::Forgotten => return Ok(None),
            Settled::Lost => return Err(AttachError::NoSuchDevice { device }),
            Settled::Stuck => return Err(AttachError::Stranded { device }),
        };
        // The same claim may serve one pod after another.
        if is_stale {
            record.pod = wanted.pod.clone();
            self.record(&device, [record.clone()])?;
        }
        Ok(Some(record))
    }

    /// Takes back a prepare that failed.
    fn abandon(&mut self, new: &[Record], done: Done) -> Vec<Residue> {
        let mut residue = roll_back(&mut self.node, done);
        // Functions are put back as a whole, since not all take a single setting back.
        residue.retain(|it| !matches!(it.step, Step::SetVf { .. } | Step::SetMac { .. }));
        // A step that failed may have changed something all the same.
        for record in new.iter().rev() {
            residue.extend(put_back(&mut self.node, plan::unprepare(record, true, false)));
            residue.extend(self.put_back_vf(record, true));
        }
        if residue.is_empty() {
            let ids: Vec<_> = new.iter().map(Record::id).collect();
            if let Err(error) = self.checkpoint.remove(&ids) {
                tracing::error!(%error, "a prepare that was undone is still recorded");
            }
        }
        // With residue the records stay, as `Preparing`: the next start sweeps what they name.
        residue
    }

    /// Removes what is pinned for a claim that no record knows, after a lost checkpoint.
    fn sweep_claim(&mut self, claim: &ClaimUid) -> Result<(), AttachError> {
        let unrecorded = match self.unrecorded() {
            Ok(all) => all.into_iter().filter(|id| id.claim == *claim),
            Err(error) => {
                tracing::error!(%claim, %error, "cannot look for what is left of the claim");
                return Ok(());
            }
        };
        for id in unrecorded {
            let device = id.device.clone();
            execute(&mut self.node, &[Step::RemoveDatapath { id }], None, &mut Done::default())
                .map_err(|stopped| stopped.at(device, Vec::new()))?;
        }
        Ok(())
    }

    /// Removes everything that prepare made for a claim.
    pub(super) fn unprepare(&mut self, claim: &ClaimUid) -> Result<(), AttachError> {
        if self.checkpoint.records().any(|record| record.claim.uid == *claim) {
            self.unprepare_recorded(claim)?;
        } else {
            self.sweep_claim(claim)?;
        }
        // A policy of an earlier boot that was still waiting for the claim to be prepared again.
        let forgotten = self.checkpoint.forget_kept(|kept| kept.claim.uid == *claim);
        forgotten.map(drop).map_err(|error| AttachError::Kept { message: error.to_string() })
    }

    fn unprepare_recorded(&mut self, claim: &ClaimUid) -> Result<(), AttachError> {
        let strays =
            self.select(|record| record.claim.uid == *claim && record.phase.netns().is_some());
        if !strays.is_empty() {
            tracing::warn!(%claim, "unprepared while attached: the sandbox's stop was missed");
            self.free(strays);
        }
        let stuck = self.select(|r| r.claim.uid == *claim && r.phase.netns().is_some());
        for record in stuck {
            if !self.is_given_up(&record) {
                return Err(AttachError::Stranded { device: record.device.name });
            }
            tracing::error!(device = %record.device.name, %claim, "the interface did not come back");
        }
        self.shut_out([claim.clone()]);
        let mut records = self.select(|record| record.claim.uid == *claim);
        records.reverse();
        for mut record in records {
            record.phase = Phase::Unpreparing;
            self.record(&record.device.name.clone(), [record.clone()])?;
            let is_home = self.is_home(&record);
            if is_home && !record.residue.is_empty() {
                self.pay_debt(&record);
            }
            match self.clear(&record, is_home) {
                // It stays recorded, and the claim may end.
                Ok(()) | Err(AttachError::Owed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tries for the last time to put back what could not be before.
    fn pay_debt(&mut self, record: &Record) {
        for residue in put_back(&mut self.node, plan::restore(record)) {
            self.tell(record, NoticeKind::Residue, residue.to_string());
        }
    }

    /// Takes away what prepare made of an attachment, and forgets it.
    pub(super) fn clear(&mut self, record: &Record, is_home: bool) -> Result<(), AttachError> {
        let device = record.device.name.clone();
        if is_home {
            // As well as can be: otherwise it ends by itself. What fails is logged there.
            try_all(&mut self.node, plan::release(record));
        }
        let parent_down = self.parent_goes_down(record)?;
        let (settings, steps): (Vec<_>, Vec<_>) =
            plan::unprepare(record, is_home, parent_down).into_iter().partition(is_setting);
        execute(&mut self.node, &steps, None, &mut Done::default())
            .map_err(|stopped| stopped.at(device.clone(), Vec::new()))?;
        // What a driver does not take back is no reason to hold up the claim's end.
        let mut residue = put_back(&mut self.node, settings);
        residue.extend(self.put_back_vf(record, is_home));
        for residue in &residue {
            self.tell(record, NoticeKind::Residue, residue.to_string());
        }
        if let Some(owed) = residue.iter().find(|it| matches!(it.step, Step::SetVf { .. })) {
            // Whoever got the function next would have its settings.
            let mut owing = record.clone();
            (owing.phase, owing.lease, owing.sandbox) = (Phase::Unpreparing, None, None);
            owing.residue = residue.iter().map(ToString::to_string).collect();
            self.record(&device, [owing])?;
            let (claim, message) = (record.claim.clone(), owed.to_string());
            return Err(AttachError::Owed { device, claim, message });
        }
        self.checkpoint
            .remove([&record.id()])
            .map_err(|error| AttachError::Record { device, message: error.to_string() })
    }

    /// Whether the device under a sub-interface goes down with it. Where it has others, the next one
    /// to go is told to see to it.
    fn parent_goes_down(&mut self, record: &Record) -> Result<bool, AttachError> {
        let Some(spec) = record.subinterface.as_ref().filter(|spec| spec.parent_was_down) else {
            return Ok(false);
        };
        let others = self.select(|other| {
            let is_upon = |made: &SubinterfaceSpec| made.parent == spec.parent;
            other.id() != record.id() && other.subinterface.as_ref().is_some_and(is_upon)
        });
        let Some(mut heir) = others.into_iter().next() else {
            return Ok(true);
        };
        if let Some(spec) = &mut heir.subinterface {
            spec.parent_was_down = true;
        }
        self.record(&heir.device.name.clone(), [heir])?;
        Ok(false)
    }

    /// Whether an interface will not come back: a virtual one went with its namespace, hardware has
    /// had its time.
    fn is_given_up(&self, record: &Record) -> bool {
        let since = self.lost.get(&record.id());
        since.is_some_and(|since| record.device.is_virtual || since.elapsed() >= LOST_FOR_GOOD)
    }
}

/// What belongs to the device's driver.
fn is_setting(step: &Step) -> bool {
    matches!(step, Step::SetEthtool { .. })
}

/// How long the interface of hardware may be nowhere before its claim is let go. The kernel gives it
/// back when its namespace dies, which it does in the background (`cleanup_net()`).
const LOST_FOR_GOOD: Duration = Duration::from_mins(1);

impl Stopped {
    /// The error to answer when a plan stopped at `device`.
    pub(super) fn at(self, device: DeviceName, residue: Vec<String>) -> AttachError {
        match self {
            Self::Failed { step, source } => AttachError::Step { device, step, residue, source },
            Self::OutOfTime { step } => AttachError::OutOfTime { device, step, residue },
        }
    }
}
