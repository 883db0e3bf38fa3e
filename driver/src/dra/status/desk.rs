//! Which claims are to be written: what is known of each, and what waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::api::resource::v1::AllocatedDeviceStatus;

use crate::attach::{Notice, NoticeKind};
use crate::model::{AttachmentId, ClaimRef, ClaimUid, Phase, Record};

/// A claim of which something was or is to be said.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) claim: ClaimRef,
    /// As they were last recorded.
    pub(super) records: Vec<Record>,
    /// Why they are not in their pod, where that was tried.
    pub(super) failure: Option<String>,
    /// Our entries in its status; `None` until they were read or written.
    pub(super) said: Option<Vec<AllocatedDeviceStatus>>,
    /// It is recorded no longer; what is left to say is the last.
    pub(super) is_gone: bool,
}

/// What of a record a status tells of.
type Digest = (AttachmentId, &'static str, Vec<String>, Option<u32>);

#[derive(Debug, Default)]
pub(super) struct Desk {
    claims: BTreeMap<ClaimUid, Known>,
    waiting: VecDeque<ClaimUid>,
    running: BTreeSet<ClaimUid>,
    /// Whether the records of the start have been looked at.
    has_looked: bool,
}

impl Desk {
    /// Takes in all that is recorded.
    pub(super) fn look(&mut self, present: &[Record]) {
        let now = by_claim(present);
        for (claim, records) in &now {
            match self.claims.get_mut(&claim.uid) {
                Some(known) => {
                    let is_news = digest(&known.records) != digest(records);
                    known.records.clone_from(records);
                    known.is_gone = false;
                    if records.iter().any(is_attached) {
                        known.failure = None;
                    }
                    // Where it is on its way there will be more to say in a moment.
                    if is_news && !records.iter().any(is_on_its_way) {
                        self.queue(&claim.uid);
                    }
                }
                // What an earlier driver said may not be so any more. Of what is merely prepared
                // there is nothing to say.
                None if !self.has_looked || records.iter().any(is_worth_saying) => {
                    self.learn(claim, records.clone());
                    self.queue(&claim.uid);
                }
                None => {}
            }
        }
        self.has_looked = true;
        let is_there = |uid: &ClaimUid| now.iter().any(|(claim, _)| claim.uid == *uid);
        let gone = self.claims.iter().filter(|(uid, known)| !known.is_gone && !is_there(uid));
        let gone: Vec<_> = gone.map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            self.take_leave(&uid);
        }
    }

    /// The claim was given back. If it keeps its allocation, its status must not say that its
    /// devices are in a pod.
    fn take_leave(&mut self, uid: &ClaimUid) {
        let Some(known) = self.claims.get_mut(uid) else { return };
        known.is_gone = true;
        for record in &mut known.records {
            record.phase = Phase::Unpreparing;
        }
        self.queue(uid);
    }

    /// Records that were attached, or are not as they were. `present` may know better by now.
    pub(super) fn attached(&mut self, records: &[Record], present: &[Record]) {
        for (claim, records) in by_claim(records) {
            let now: Vec<_> =
                present.iter().filter(|record| record.claim == claim).cloned().collect();
            let records = if now.is_empty() { records } else { now };
            let known = self.learn(&claim, records.clone());
            known.records = records;
            if known.records.iter().any(is_attached) {
                known.failure = None;
            }
            self.queue(&claim.uid);
        }
    }

    /// Something went wrong with a claim. `present` is all that is recorded.
    pub(super) fn notice(&mut self, notice: &Notice, present: &[Record]) {
        let is_about_status =
            !matches!(notice.kind, NoticeKind::PrepareFailed | NoticeKind::UnprepareFailed);
        let records: Vec<_> =
            present.iter().filter(|record| record.claim == notice.claim).cloned().collect();
        if records.is_empty() || !is_about_status {
            return;
        }
        let known = self.learn(&notice.claim, records.clone());
        known.records = records;
        if notice.kind == NoticeKind::AttachFailed && !known.records.iter().any(is_attached) {
            known.failure = Some(notice.message.clone());
        }
        self.queue(&notice.claim.uid);
    }

    fn learn(&mut self, claim: &ClaimRef, records: Vec<Record>) -> &mut Known {
        self.claims.entry(claim.uid.clone()).or_insert_with(|| Known {
            claim: claim.clone(),
            records,
            failure: None,
            said: None,
            is_gone: false,
        })
    }

    fn queue(&mut self, uid: &ClaimUid) {
        if !self.waiting.contains(uid) {
            self.waiting.push_back(uid.clone());
        }
    }

    /// The next claim to write, with all that is known of it now. One that is being written waits.
    pub(super) fn take(&mut self) -> Option<(ClaimUid, Known)> {
        let next = self.waiting.iter().position(|uid| !self.running.contains(uid))?;
        let uid = self.waiting.remove(next)?;
        let known = self.claims.get(&uid)?.clone();
        self.running.insert(uid.clone());
        Some((uid, known))
    }

    /// A claim has been written, or given up for now; `said` is what its status says.
    pub(super) fn wrote(&mut self, uid: &ClaimUid, said: Option<Vec<AllocatedDeviceStatus>>) {
        self.running.remove(uid);
        let Some(known) = self.claims.get_mut(uid) else { return };
        known.said = said.or_else(|| known.said.take());
        if known.is_gone && !self.waiting.contains(uid) {
            self.claims.remove(uid);
        }
    }

    pub(super) fn claim(&self, uid: &ClaimUid) -> Option<&ClaimRef> {
        self.claims.get(uid).map(|known| &known.claim)
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The records of each claim, in the order in which the claims first appear.
fn by_claim(records: &[Record]) -> Vec<(ClaimRef, Vec<Record>)> {
    let mut claims: Vec<(ClaimRef, Vec<Record>)> = Vec::new();
    for record in records {
        match claims.iter_mut().find(|(claim, _)| *claim == record.claim) {
            Some((_, of_claim)) => of_claim.push(record.clone()),
            None => claims.push((record.claim.clone(), vec![record.clone()])),
        }
    }
    claims
}

fn digest(records: &[Record]) -> Vec<Digest> {
    let of = |record: &Record| {
        let generation = record.datapath.as_ref().map(|spec| spec.generation);
        (record.id(), record.phase.name(), record.residue.clone(), generation)
    };
    records.iter().map(of).collect()
}

fn is_attached(record: &Record) -> bool {
    matches!(record.phase, Phase::Attached { .. })
}

fn is_worth_saying(record: &Record) -> bool {
    is_attached(record) || !record.residue.is_empty()
}

fn is_on_its_way(record: &Record) -> bool {
    !matches!(record.phase, Phase::Prepared | Phase::Attached { .. })
}
