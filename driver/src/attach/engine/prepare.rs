//! Prepare and unprepare: what is slow is done here, while the interface is still on the host.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Engine;
use super::settle::Settled;
use crate::attach::execute::{Done, Residue, Stopped, execute, roll_back, try_all};
use crate::attach::{AttachError, PrepareClaim, Wanted};
use crate::model::{
    AttachmentId, Belongings, By, ClaimUid, DatapathSpec, Device, DeviceName, EthtoolState,
    InterfaceState, Phase, Place, Record,
};
use crate::node::Node;
use crate::plan::{DatapathState, Step, choose_hooks};

impl<N: Node> Engine<N> {
    /// Prepares all devices of a claim or none.
    pub(super) fn prepare(&mut self, wanted: &PrepareClaim) -> Result<Vec<Record>, AttachError> {
        // First decide for all devices, then touch the first.
        check_names(wanted)?;
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

    /// What will be recorded of a device that is new to us.
    fn draft(&mut self, wanted: &PrepareClaim, device: &Wanted) -> Result<Record, AttachError> {
        let gone = || AttachError::NoSuchDevice { device: device.name.clone() };
        let unseen = |source| AttachError::Observe { device: device.name.clone(), source };
        let mut found = device.found.clone().ok_or_else(gone)?;
        let before = self
            .interface(Place::Host, By::Name(found.interface.clone()))
            .map_err(unseen)?
            .ok_or_else(gone)?;
        let id = AttachmentId {
            claim: wanted.claim.uid.clone(),
            device: device.name.clone(),
            share: device.share.clone(),
        };
        let (policy, filter) = self.with_kept(&id, &device.wishes)?;
        if self.datapath(id.clone()).map_err(unseen)? != DatapathState::Absent {
            // Pins under this very name and no record: the checkpoint was lost. The program on the
            // interface is ours, and makes way for the one that is installed.
            tracing::warn!(device = %device.name, claim = %wanted.claim, "a datapath of no record");
            found.ebpf.xdp_in_use = false;
        }
        if let Some(reason) = reason_to_stay(&found, &before) {
            return Err(AttachError::Impossible { device: device.name.clone(), reason });
        }
        // Programs are attached at the MTU that it has here, and run at the one that it gets.
        let mtu = device.wishes.interface.mtu.unwrap_or(before.mtu).max(before.mtu);
        let hooks = choose_hooks(&device.wishes.ebpf, &found, mtu)
            .map_err(|reason| AttachError::Impossible { device: device.name.clone(), reason })?;
        let mut record = Record {
            claim: wanted.claim.clone(),
            pod: wanted.pod.clone(),
            requests: device.requests.clone(),
            pool: device.pool.clone(),
            share: device.share.clone(),
            device: found,
            wishes: device.wishes.clone(),
            datapath: None,
            policy,
            build: self.build.clone(),
            subinterface: None,
            before,
            belongings: Belongings::default(),
            ethtool: EthtoolState::default(),
            sandbox: None,
            residue: Vec::new(),
            phase: Phase::Preparing,
        };
        record.datapath = hooks.map(|hooks| DatapathSpec {
            id: record.id(),
            ingress: hooks.ingress,
            why: hooks.why,
            egress: hooks.egress,
            telemetry: device.wishes.ebpf.telemetry,
            flows: device.wishes.ebpf.flows,
            generation: DatapathSpec::FIRST_GENERATION,
            filter,
        });
        if record.policy.is_some() && record.datapath.is_none() {
            let (device, claim) = (id.device, id.claim);
            let reason = "the claim wants no programs".to_owned();
            return Err(AttachError::KeptPolicy { device, claim, reason });
        }
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
        let mut residue = roll_back(&mut self.node, done);
        // A failed install undoes itself; where it could not, the record must not go.
        let remove = new.iter().map(|record| Step::RemoveDatapath { id: record.id() });
        residue.extend(try_all(&mut self.node, remove));
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

    /// Whether an interface will not come back: a virtual one went with its namespace, hardware has
    /// had its time.
    fn is_given_up(&self, record: &Record) -> bool {
        let since = self.lost.get(&record.id());
        since.is_some_and(|since| record.device.is_virtual || since.elapsed() >= LOST_FOR_GOOD)
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

/// How long the interface of hardware may be nowhere before its claim is let go. The kernel gives it
/// back when its namespace dies, which it does in the background (`cleanup_net()`).
const LOST_FOR_GOOD: Duration = Duration::from_mins(1);

/// Interfaces that the kernel keeps in their namespace (`netns_immutable`, Linux 6.18).
const IMMOVABLE: [&str; 5] = ["bond", "bridge", "openvswitch", "team", "vrf"];

/// Why a device cannot be given to a pod and taken back, as far as it can be told beforehand.
fn reason_to_stay(device: &Device, now: &InterfaceState) -> Option<String> {
    if IMMOVABLE.contains(&device.kind.as_str()) {
        return Some(format!("the kernel does not let a {} leave its namespace", device.kind));
    }
    now.controller.map(|index| {
        format!(
            "{} is a member of another interface (index {index}), and would be lost to it",
            now.name
        )
    })
}

/// Refuses names that cannot all be had in one pod.
fn check_names(wanted: &PrepareClaim) -> Result<(), AttachError> {
    let mut names = BTreeSet::new();
    for device in &wanted.devices {
        let own = device.found.as_ref().map(|found| &found.interface);
        let Some(name) = device.wishes.interface.name.as_ref().or(own) else { continue };
        let reason = if name.as_str() == "eth0" {
            "interface.name: eth0 is the pod's own interface, choose another name".to_owned()
        } else if !names.insert(name) {
            format!("interface.name: another device of the claim is called {name} in the pod, too")
        } else {
            continue;
        };
        return Err(AttachError::Impossible { device: device.name.clone(), reason });
    }
    Ok(())
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
