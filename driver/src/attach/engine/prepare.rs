//! Prepare and unprepare: what is slow is done here, while the interface is still on the host.

use super::Engine;
use crate::attach::execute::{Done, Residue, Stopped, execute, roll_back};
use crate::attach::{AttachError, PrepareClaim, Wanted};
use crate::model::{AttachmentId, By, ClaimUid, DatapathSpec, DeviceName, Phase, Place, Record};
use crate::node::Node;
use crate::plan::{DatapathState, Step, choose_ingress};

impl<N: Node> Engine<N> {
    /// Prepares all devices of a claim or none.
    pub(super) fn prepare(&mut self, wanted: &PrepareClaim) -> Result<Vec<Record>, AttachError> {
        // First decide for all devices, then touch the first.
        let mut answer = Vec::new();
        let mut new = Vec::new();
        for device in &wanted.devices {
            match self.known(wanted, device)? {
                Some(record) => answer.push(record),
                None => new.push(self.draft(wanted, device)?),
            }
        }
        if let Some(first) = new.first() {
            let device = first.device.name.clone();
            self.record(&device, new.iter().cloned())?;
        }
        let mut done = Done::default();
        for record in &new {
            if let Err(stopped) = execute(&mut self.node, &install(record), None, &mut done) {
                return Err(self.give_up(&new, done, record.device.name.clone(), stopped));
            }
        }
        for record in &mut new {
            record.phase = Phase::Prepared;
        }
        if let Some(first) = new.first() {
            let device = first.device.name.clone();
            if let Err(error) = self.record(&device, new.iter().cloned()) {
                self.abandon(&new, done);
                return Err(error);
            }
        }
        answer.extend(new);
        Ok(answer)
    }

    /// The record of a device that this claim has prepared already.
    fn known(
        &mut self,
        wanted: &PrepareClaim,
        device: &Wanted,
    ) -> Result<Option<Record>, AttachError> {
        let holder = self.checkpoint.records().find(|record| record.device.name == device.name);
        match holder {
            None => Ok(None),
            Some(record) if record.claim.uid != wanted.claim.uid => Err(AttachError::InUse {
                device: device.name.clone(),
                holder: record.claim.clone(),
            }),
            Some(record) => {
                let record = record.clone();
                self.renew(record, wanted)
            }
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
        if matches!(record.phase, Phase::Preparing | Phase::Unpreparing) {
            return match self.settle_one(record) {
                None => Ok(None),
                Some(_) => Err(AttachError::Stranded { device }),
            };
        }
        // The same claim may serve one pod after another.
        if record.phase == Phase::Prepared && record.pod != wanted.pod {
            record.pod = wanted.pod.clone();
            self.record(&device, [record.clone()])?;
        }
        Ok(Some(record))
    }

    /// What will be recorded of a device that is new to us.
    fn draft(&mut self, wanted: &PrepareClaim, device: &Wanted) -> Result<Record, AttachError> {
        let gone = || AttachError::NoSuchDevice { device: device.name.clone() };
        let unseen = |source| AttachError::Observe { device: device.name.clone(), source };
        let mut found = device.found.clone().ok_or_else(gone)?;
        let before = self
            .interface(Place::Host, By::Name(found.interface.clone()))
            .map_err(unseen)?
            .ok_or_else(gone)?;
        let id = AttachmentId { claim: wanted.claim.uid.clone(), device: device.name.clone() };
        if self.datapath(id).map_err(unseen)? != DatapathState::Absent {
            // Pins under this very name and no record: the checkpoint was lost. The program on the
            // interface is ours, and makes way for the one that is installed.
            tracing::warn!(device = %device.name, claim = %wanted.claim, "a datapath of no record");
            found.ebpf.xdp_in_use = false;
        }
        let mtu = device.wishes.interface.mtu.unwrap_or(before.mtu);
        let ingress = choose_ingress(&device.wishes.ebpf, &found, mtu)
            .map_err(|reason| AttachError::Impossible { device: device.name.clone(), reason })?;
        let mut record = Record {
            claim: wanted.claim.clone(),
            pod: wanted.pod.clone(),
            requests: device.requests.clone(),
            pool: device.pool.clone(),
            device: found,
            wishes: device.wishes.clone(),
            datapath: None,
            build: self.build.clone(),
            before,
            sandbox: None,
            phase: Phase::Preparing,
        };
        record.datapath = ingress.map(|ingress| DatapathSpec {
            id: record.id(),
            ingress,
            telemetry: device.wishes.ebpf.telemetry,
            filter: device.wishes.ebpf.filter.clone(),
        });
        Ok(record)
    }

    /// Takes back a prepare that failed at `device`, and says why it did.
    fn give_up(
        &mut self,
        new: &[Record],
        done: Done,
        device: DeviceName,
        stopped: Stopped,
    ) -> AttachError {
        let residue = self.abandon(new, done).iter().map(ToString::to_string).collect();
        stopped.at(device, residue)
    }

    fn abandon(&mut self, new: &[Record], done: Done) -> Vec<Residue> {
        let residue = roll_back(&mut self.node, done);
        if residue.is_empty() {
            let ids: Vec<_> = new.iter().map(Record::id).collect();
            if let Err(error) = self.checkpoint.remove(&ids) {
                tracing::error!(%error, "a prepare that was undone is still recorded");
            }
        }
        // With residue the records stay, as `Preparing`: the next start sweeps what they name.
        residue
    }

    /// Removes everything that prepare made for a claim.
    pub(super) fn unprepare(&mut self, claim: &ClaimUid) -> Result<(), AttachError> {
        let strays =
            self.select(|record| record.claim.uid == *claim && record.phase.netns().is_some());
        if !strays.is_empty() {
            tracing::warn!(%claim, "unprepared while attached: the sandbox's stop was missed");
            self.free(strays);
        }
        let stuck = self.select(|r| r.claim.uid == *claim && r.phase.netns().is_some());
        if let Some(record) = stuck.into_iter().next() {
            return Err(AttachError::Stranded { device: record.device.name });
        }
        for mut record in self.select(|record| record.claim.uid == *claim) {
            let (id, device) = (record.id(), record.device.name.clone());
            record.phase = Phase::Unpreparing;
            self.record(&device, [record])?;
            let steps = [Step::RemoveDatapath { id: id.clone() }];
            execute(&mut self.node, &steps, None, &mut Done::default())
                .map_err(|stopped| stopped.at(device.clone(), Vec::new()))?;
            self.checkpoint
                .remove([&id])
                .map_err(|error| AttachError::Record { device, message: error.to_string() })?;
        }
        Ok(())
    }
}

/// Nothing of a new record's name is wanted that is there already: it would be of no known build.
fn install(record: &Record) -> Vec<Step> {
    let interface = record.before.name.clone();
    let install = |spec: &DatapathSpec| Step::InstallDatapath { spec: spec.clone(), interface };
    let mut steps = vec![Step::RemoveDatapath { id: record.id() }];
    steps.extend(record.datapath.as_ref().map(install));
    steps
}

impl Stopped {
    /// The error to answer when a plan stopped at `device`.
    pub(super) fn at(self, device: DeviceName, residue: Vec<String>) -> AttachError {
        match self {
            Self::Failed { step, source } => AttachError::Step { device, step, residue, source },
            Self::OutOfTime { step } => AttachError::OutOfTime { device, step, residue },
        }
    }
}
