//! Attach and detach: into a sandbox and back. What happens in here holds up the pod.

use std::time::Instant;

use super::Engine;
use crate::attach::AttachError;
use crate::attach::execute::{Done, Stopped, execute, roll_back, try_all};
use crate::model::{By, DeviceName, IfIndex, NetnsRef, Phase, Place, Record, Sandbox};
use crate::node::{Node, StepError};
use crate::plan;

impl<N: Node> Engine<N> {
    /// Moves all devices of the sandbox's pod into it, or none.
    pub(super) fn attach(
        &mut self,
        sandbox: &Sandbox,
        deadline: Instant,
    ) -> Result<Vec<Record>, AttachError> {
        let records = self.select(|record| record.pod.uid == sandbox.pod.uid);
        if records.is_empty() {
            return Ok(records);
        }
        let Some(netns) = &sandbox.netns else {
            return Err(AttachError::HostNetwork { pod: sandbox.pod.clone() });
        };
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|r| self.is_attached_to(r, sandbox, netns));
        // A sandbox that died without a stop leaves its devices attached to nothing.
        let strays = elsewhere.into_iter().filter(|r| r.phase.netns().is_some()).collect();
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
    fn is_attached_to(&mut self, record: &Record, sandbox: &Sandbox, netns: &NetnsRef) -> bool {
        match &record.phase {
            Phase::Attached { netns: held, inside } if held.id == netns.id => {
                let there = self.interface(Place::Pod(netns.clone()), By::Index(*inside));
                record.sandbox.as_ref() == Some(&sandbox.id) && matches!(there, Ok(Some(_)))
            }
            _ => false,
        }
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
            let device = record.device.name.clone();
            if record.phase != Phase::Prepared {
                return Err(AttachError::NoSuchDevice { device });
            }
            // What the host had may have changed since prepare; what it has now is put back.
            record.before = self
                .interface(Place::Host, By::Name(record.before.name.clone()))
                .map_err(|source| AttachError::Observe { device: device.clone(), source })?
                .ok_or(AttachError::NoSuchDevice { device })?;
            record.sandbox = Some(sandbox.id.clone());
            record.phase = Phase::Attaching { netns: netns.clone() };
        }
        self.record(&first, records.iter().cloned())?;

        let mut done = Done::default();
        let mut failed = None;
        for record in &mut records {
            let steps = plan::attach(record, &record.before, netns);
            let outcome = execute(&mut self.node, &steps, Some(deadline), &mut done)
                .map_err(|stopped| Failure::Stopped(record.device.name.clone(), stopped))
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
            None => match self.record(&first, records.iter().cloned()) {
                Ok(()) => return Ok(records),
                Err(error) => Failure::Unrecorded(error),
            },
        };
        Err(self.undo_all(records, done, failed))
    }

    fn index_inside(&mut self, record: &Record, netns: &NetnsRef) -> Result<IfIndex, Failure> {
        let device = record.device.name.clone();
        let by = By::Name(record.pod_interface().clone());
        match self.interface(Place::Pod(netns.clone()), by) {
            Ok(Some(state)) => Ok(state.index),
            Ok(None) => Err(Failure::Vanished(device)),
            Err(source) => Err(Failure::Unseen(device, source)),
        }
    }

    /// Brings every device of a failed attach back to where it was, and says why it failed.
    fn undo_all(&mut self, mut records: Vec<Record>, done: Done, failed: Failure) -> AttachError {
        let residue = roll_back(&mut self.node, done);
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
        if let Err(error) = self.checkpoint.put(records) {
            tracing::error!(%error, "an attach that was undone is still recorded as under way");
        }
        failed.into_error(residue.iter().map(ToString::to_string).collect())
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
        for mut record in records {
            record.phase = record.phase.leaving();
            if let Err(error) = self.checkpoint.put([record.clone()]) {
                // The phase on disk is `Attaching` or `Attached` still, which a start settles the
                // same way. Leaving the device in a dying namespace would be worse.
                tracing::error!(%error, device = %record.device.name, "cannot record the detach");
            }
            freed.extend(self.settle_one(record));
        }
        freed
    }

    /// Compares what is recorded with the sandboxes that the runtime has now.
    pub(super) fn synchronize(&mut self, sandboxes: &[Sandbox]) {
        let is_running = |record: &Record| {
            sandboxes.iter().any(|sandbox| record.sandbox.as_ref() == Some(&sandbox.id))
        };
        let strays = self.select(|record| record.phase.netns().is_some() && !is_running(record));
        for record in &strays {
            tracing::warn!(device = %record.device.name, pod = %record.pod, "its sandbox is gone");
        }
        self.free(strays);
        for record in self.select(|record| record.phase == Phase::Prepared) {
            if sandboxes.iter().any(|sandbox| sandbox.pod.uid == record.pod.uid) {
                tracing::warn!(
                    device = %record.device.name, pod = %record.pod,
                    "the pod's sandbox started while nobody was there to attach its device"
                );
            }
        }
    }

    /// Applies all `steps`, whichever fail; whether none did.
    pub(super) fn carry_out(&mut self, steps: Vec<plan::Step>) -> bool {
        try_all(&mut self.node, steps).is_empty()
    }
}

/// Why an attach did not come to its end.
enum Failure {
    Stopped(DeviceName, Stopped),
    Vanished(DeviceName),
    Unseen(DeviceName, StepError),
    Unrecorded(AttachError),
}

impl Failure {
    fn into_error(self, residue: Vec<String>) -> AttachError {
        match self {
            Self::Stopped(device, stopped) => stopped.at(device, residue),
            Self::Vanished(device) => AttachError::NoSuchDevice { device },
            Self::Unseen(device, source) => AttachError::Observe { device, source },
            Self::Unrecorded(error) => error,
        }
    }
}
