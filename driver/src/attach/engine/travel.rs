//! Attach and detach: into a sandbox and back. What happens in here holds up the pod.

use std::time::Instant;

use super::Engine;
use super::settle::Settled;
use crate::attach::execute::{Done, Stopped, execute, put_back, roll_back};
use crate::attach::{AttachError, NoticeKind};
use crate::model::{By, DeviceName, IfIndex, NetnsRef, Phase, Place, Record, Sandbox};
use crate::node::{Node, StepError};
use crate::plan::{self, DatapathState};
use crate::telemetry::chain;

impl<N: Node> Engine<N> {
    /// Moves all devices of the sandbox's pod into it, or none.
    pub(super) fn attach(
        &mut self,
        sandbox: &Sandbox,
        deadline: Instant,
    ) -> Result<Vec<Record>, AttachError> {
        let records = self.select(|record| record.pod.uid == sandbox.pod.uid);
        let Some(first) = records.first() else {
            return Ok(records);
        };
        if Instant::now() >= deadline {
            return Err(AttachError::TooLate { device: first.device.name.clone() });
        }
        let Some(netns) = &sandbox.netns else {
            return Err(AttachError::HostNetwork { pod: sandbox.pod.clone() });
        };
        let (mut here, mut strays) = (Vec::new(), Vec::new());
        for record in records {
            if self.is_attached_to(&record, sandbox, netns)? {
                here.push(record);
            } else if record.phase.netns().is_some() {
                strays.push(record);
            }
        }
        // A sandbox that died without a stop leaves its devices attached to nothing.
        self.free(strays);
        let waiting = self.select(|record| {
            record.pod.uid == sandbox.pod.uid && !here.iter().any(|h| h.id() == record.id())
        });
        let mut attached = self.attach_all(waiting, sandbox, netns, deadline)?;
        attached.extend(here);
        attached.sort_by_key(Record::id);
        Ok(attached)
    }

    /// The runtime repeats itself: the device may be where it is wanted already.
    fn is_attached_to(
        &mut self,
        record: &Record,
        sandbox: &Sandbox,
        netns: &NetnsRef,
    ) -> Result<bool, AttachError> {
        match &record.phase {
            Phase::Attached { netns: held, .. } if held.id == netns.id => {
                let is_same = record.sandbox.as_ref() == Some(&sandbox.id);
                Ok(is_same && self.is_in_pod(record)?)
            }
            _ => Ok(false),
        }
    }

    fn is_in_pod(&mut self, record: &Record) -> Result<bool, AttachError> {
        let Phase::Attached { netns, inside } = &record.phase else {
            return Ok(false);
        };
        if !record.has_interface() {
            return self.is_bare_in_pod(record, netns);
        }
        let there = self.interface(Place::Pod(netns.clone()), By::Index(*inside));
        let device = || record.device.name.clone();
        let unseen = |source| AttachError::Observe { device: device(), source };
        there.map(|state| state.is_some()).map_err(unseen)
    }

    /// Makes of a prepared record what is written before its device is touched.
    fn set_out(
        &mut self,
        record: &mut Record,
        sandbox: &Sandbox,
        netns: &NetnsRef,
    ) -> Result<(), AttachError> {
        let name = record.device.name.clone();
        let device = || name.clone();
        let unseen = |source| AttachError::Observe { device: device(), source };
        if record.phase != Phase::Prepared {
            return Err(if self.lost.contains_key(&record.id()) {
                AttachError::NoSuchDevice { device: device() }
            } else {
                AttachError::Stranded { device: device() }
            });
        }
        if !record.has_interface() {
            record.sandbox = Some(sandbox.id.clone());
            record.phase = Phase::Attaching { netns: netns.clone() };
            return Ok(());
        }
        if record.wishes.interface.dhcp && record.lease.is_none() {
            return Err(AttachError::NoLease { device: device() });
        }
        let at_home = By::Name(record.before.name.clone());
        let mut now = self.interface(Place::Host, at_home.clone()).map_err(unseen)?;
        if now.is_none() && record.subinterface.is_some() {
            // It went with its last sandbox.
            if let Settled::Kept(kept) = self.settle_one(record.clone()) {
                *record = kept;
            }
            now = self.interface(Place::Host, at_home).map_err(unseen)?;
        }
        let now = now.ok_or_else(|| AttachError::NoSuchDevice { device: device() })?;
        if record.datapath.is_some() {
            let mut state = self.datapath(record.id()).map_err(unseen)?;
            if state != DatapathState::Attached || !record.build.is_known() {
                // Kubelet will not prepare again, so it is mended here if at all.
                if let Settled::Kept(kept) = self.settle_one(record.clone()) {
                    *record = kept;
                }
                state = self.datapath(record.id()).map_err(unseen)?;
            }
            if state != DatapathState::Attached {
                return Err(AttachError::NoDatapath { device: device(), state });
            }
            if !record.build.is_known() {
                // The pod would run under other rules than those that are recorded.
                return Err(AttachError::Stranded { device: device() });
            }
        }
        // What the host had may have changed since prepare, and what it has now is put back. Not so
        // after a return that failed in part: then what it had before is still owed.
        if record.residue.is_empty() {
            record.belongings = self.belongings(now.index).map_err(unseen)?;
            record.before = now;
        }
        record.sandbox = Some(sandbox.id.clone());
        record.phase = Phase::Attaching { netns: netns.clone() };
        Ok(())
    }

    fn attach_all(
        &mut self,
        mut records: Vec<Record>,
        sandbox: &Sandbox,
        netns: &NetnsRef,
        deadline: Instant,
    ) -> Result<Vec<Record>, AttachError> {
        let Some(first) = records.first().map(|record| record.device.name.clone()) else {
            return Ok(records);
        };
        for record in &mut records {
            self.set_out(record, sandbox, netns)?;
        }
        self.record(&first, records.iter().cloned())?;

        let mut done = Done::default();
        let mut failed = None;
        for record in &mut records {
            let steps = plan::attach(record, netns);
            let outcome = execute(&mut self.node, &steps, Some(deadline), &mut done)
                .map_err(|stopped| Failure::Stopped(record.device.name.clone(), stopped))
                .and_then(|()| self.look_at_files(record))
                .and_then(|()| self.index_inside(record, netns));
            match outcome {
                Ok(inside) => record.phase = Phase::Attached { netns: netns.clone(), inside },
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            }
        }
        let failed = match failed {
            Some(failure) => failure,
            None => match self.let_in(&first, &records, netns, &mut done) {
                Ok(()) => return Ok(records),
                Err(failure) => failure,
            },
        };
        Err(self.undo_all(records, done, failed))
    }

    /// Writes down that everything is attached, and then lets containers in: whatever happens after
    /// this, a start finds them with their device.
    fn let_in(
        &mut self,
        first: &DeviceName,
        records: &[Record],
        netns: &NetnsRef,
        done: &mut Done,
    ) -> Result<(), Failure> {
        self.record(first, records.iter().cloned()).map_err(Failure::Unrecorded)?;
        let unseen = |source| Failure::Unseen(first.clone(), source);
        let steps = self.admission(records, netns).map_err(unseen)?;
        execute(&mut self.node, &steps, None, done)
            .map_err(|stopped| Failure::Stopped(first.clone(), stopped))
    }

    /// The files of an RDMA device have other numbers once it has moved. Nobody has opened them yet:
    /// containers are made after their sandbox.
    fn look_at_files(&mut self, record: &mut Record) -> Result<(), Failure> {
        if record.rdma.is_none() {
            return Ok(());
        }
        let unseen = |source| Failure::Unseen(record.device.name.clone(), source);
        record.device.rdma_nodes = self.files_of(record).map_err(unseen)?;
        Ok(())
    }

    fn index_inside(&mut self, record: &Record, netns: &NetnsRef) -> Result<IfIndex, Failure> {
        let device = record.device.name.clone();
        if !record.has_interface() {
            return Ok(IfIndex(0));
        }
        let by = By::Name(record.pod_interface().clone());
        match self.interface(Place::Pod(netns.clone()), by) {
            Ok(Some(state)) => Ok(state.index),
            Ok(None) => Err(Failure::Vanished(device)),
            Err(source) => Err(Failure::Unseen(device, source)),
        }
    }

    /// Brings every device of a failed attach back to where it was, and says why it failed.
    fn undo_all(&mut self, mut records: Vec<Record>, done: Done, failed: Failure) -> AttachError {
        self.shut_out(records.iter().map(|record| record.claim.uid.clone()));
        let mut residue = roll_back(&mut self.node, done);
        // What went along with something else has no undo of its own, and an undo may have failed for
        // want of that: where IPv6 is off for new interfaces, no IPv6 address can be put back before
        // the interface has its settings again.
        let rest = records.iter().flat_map(|record| {
            let leave = record.phase.netns().map(|netns| plan::leave(record, netns));
            leave.into_iter().flatten().chain(plan::restore(record))
        });
        let lacking = put_back(&mut self.node, rest);
        if lacking.is_empty() {
            residue.clear();
        } else {
            residue.extend(lacking);
        }
        for record in &mut records {
            // With residue the device may be anywhere on its way: `Detaching` says so, and the next
            // stop, unprepare or start settles it.
            if residue.is_empty() {
                record.sandbox = None;
                record.phase = Phase::Prepared;
            } else {
                record.phase = record.phase.clone().leaving();
            }
        }
        if let Err(error) = self.checkpoint.put(records.clone()) {
            tracing::error!(%error, "an attach that was undone is still recorded as under way");
        }
        let error = failed.into_error(residue.iter().map(ToString::to_string).collect());
        for record in &records {
            self.tell(record, NoticeKind::AttachFailed, chain(&error));
        }
        if !residue.is_empty() {
            // A step that failed may have done something all the same.
            self.free(records);
        }
        error
    }

    /// Takes all devices out of a sandbox that stops, newest first.
    pub(super) fn detach(&mut self, sandbox: &Sandbox) -> Vec<Record> {
        // By the sandbox, not by the pod: the stop of an old sandbox may come after the run of a
        // new one.
        let mut records = self.select(|record| {
            record.pod.uid == sandbox.pod.uid
                && record.phase.netns().is_some()
                && record.sandbox.as_ref() == Some(&sandbox.id)
        });
        records.reverse();
        self.free(records)
    }

    /// Brings devices back to the host, in the order given, wherever they are now. Answers those
    /// that are there.
    pub(super) fn free(&mut self, records: Vec<Record>) -> Vec<Record> {
        let mut freed = Vec::new();
        self.shut_out(records.iter().map(|record| record.claim.uid.clone()));
        for mut record in records {
            record.phase = record.phase.leaving();
            if let Err(error) = self.checkpoint.put([record.clone()]) {
                // The phase on disk is `Attaching` or `Attached` still, which a start settles the
                // same way. Leaving the device in a dying namespace would be worse.
                tracing::error!(%error, device = %record.device.name, "cannot record the detach");
            }
            if let Settled::Freed(record) = self.settle_one(record) {
                freed.push(record);
            }
        }
        freed
    }

    /// Compares what is recorded with the sandboxes that the runtime has now. It lists those that
    /// have stopped as well, so what counts is whether the device is still in there.
    pub(super) fn synchronize(&mut self, sandboxes: &[Sandbox]) {
        let mut strays = Vec::new();
        for record in self.select(|record| record.phase.netns().is_some()) {
            let is_listed =
                sandboxes.iter().any(|sandbox| record.sandbox.as_ref() == Some(&sandbox.id));
            // Where nobody can look, the device stays where it is.
            if !is_listed || !self.is_in_pod(&record).unwrap_or(true) {
                let (device, pod) = (&record.device.name, &record.pod);
                tracing::warn!(%device, %pod, "it is attached to a sandbox that is gone");
                strays.push(record);
            }
        }
        self.free(strays);
        self.reconcile_admissions();
        for record in self.select(|record| record.phase == Phase::Prepared) {
            if sandboxes.iter().any(|sandbox| sandbox.pod.uid == record.pod.uid) {
                tracing::warn!(
                    device = %record.device.name, pod = %record.pod,
                    "the pod's sandbox started while nobody was there to attach its device"
                );
                let message = "the sandbox started without it; its containers that name the claim \
                               cannot start";
                self.tell(&record, NoticeKind::RunningWithout, message.to_owned());
            }
        }
    }
}

/// Why an attach did not come to its end.
pub(super) enum Failure {
    Stopped(DeviceName, Stopped),
    Vanished(DeviceName),
    Unseen(DeviceName, StepError),
    Unrecorded(AttachError),
}

impl Failure {
    pub(super) fn into_error(self, residue: Vec<String>) -> AttachError {
        match self {
            Self::Stopped(device, stopped) => stopped.at(device, residue),
            Self::Vanished(device) => AttachError::NoSuchDevice { device },
            Self::Unseen(device, source) => AttachError::Observe { device, source },
            Self::Unrecorded(error) => error,
        }
    }
}
