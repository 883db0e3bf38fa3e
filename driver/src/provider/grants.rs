//! Profiles that were asked for, and are to be given back: a file below the state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Identity, ProviderError};
use crate::model::{ClaimUid, Record, ShareId};
use crate::sys::disk::{self, Survival};

const NAME: &str = "profiles.json";
/// Raised when a reader of the former version could misread it.
const VERSION: u32 = 1;

/// How long after its preparation was given up a claim may still turn up among the records: the
/// worker goes on with what kubelet no longer waits for.
const GRACE: Duration = Duration::from_mins(2);

/// One profile that one provider resolves for one device of one claim.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Grant {
    pub(super) claim: ClaimUid,
    pub(super) device: Identity,
    pub(super) share: Option<ShareId>,
    pub(super) provider: String,
    pub(super) profile: String,
    /// What the provider was asked with, and then what came of it.
    pub(super) config: Value,
    /// `None` until it has answered, and from the moment on when it is given back.
    pub(super) answer: Option<Value>,
    /// Whether another profile or provider is to take its place: it is given back although its claim
    /// is still there.
    #[serde(default)]
    pub(super) superseded: bool,
}

#[derive(Deserialize, Serialize)]
struct Content {
    version: u32,
    grants: Vec<Grant>,
}

/// The file, and what is under way. Clones share it.
#[derive(Clone)]
pub(super) struct Grants(Arc<Parts>);

struct Parts {
    path: PathBuf,
    /// Held from reading the grants until they are written, so that changes follow one another. Only
    /// threads that may wait for the disk take it, and before the state.
    writing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    grants: Vec<Grant>,
    /// Claims that are being prepared, and how many times.
    open: BTreeMap<ClaimUid, usize>,
    /// When the last preparation of a claim ended, by this process.
    closed: BTreeMap<ClaimUid, Instant>,
    /// Claims that have been among the records.
    recorded: BTreeSet<ClaimUid>,
    releasing: BTreeSet<ClaimUid>,
}

impl Grants {
    /// A damaged file is set aside: what it says can be given back by hand.
    pub(super) fn open(state_dir: &Path) -> Result<Self, ProviderError> {
        let path = state_dir.join(NAME);
        let failed = |source| ProviderError::Record { path: path.clone(), source };
        let grants = match fs::read(&path) {
            Ok(text) => match serde_json::from_slice::<Content>(&text) {
                Ok(content) if content.version == VERSION => content.grants,
                outcome => {
                    let reason = outcome.err().map(|error| error.to_string());
                    let aside = path.with_extension("damaged.json");
                    fs::rename(&path, &aside).map_err(failed)?;
                    tracing::error!(reason, to = %aside.display(), "the record of profiles was damaged and set aside");
                    Vec::new()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let state = Mutex::new(State { grants, ..State::default() });
        Ok(Self(Arc::new(Parts { path, writing: Mutex::default(), state })))
    }

    /// From now on, and until the answer is dropped, nothing of the claim is given back.
    pub(super) fn granting(&self, claim: &ClaimUid) -> Granting {
        *self.state().open.entry(claim.clone()).or_default() += 1;
        Granting { grants: self.clone(), claim: claim.clone() }
    }

    /// What was granted for this device before.
    pub(super) fn find(
        &self,
        claim: &ClaimUid,
        device: &Identity,
        share: Option<&ShareId>,
    ) -> Option<Grant> {
        let is_it = |it: &&Grant| !it.superseded && it.is(claim, &device.name, share);
        self.state().grants.iter().find(is_it).cloned()
    }

    /// Which providers have yet to be told that something else takes the place of what they granted.
    pub(super) fn superseded(
        &self,
        claim: &ClaimUid,
        device: &Identity,
        share: Option<&ShareId>,
    ) -> Vec<String> {
        let state = self.state();
        let left =
            state.grants.iter().filter(|it| it.superseded && it.is(claim, &device.name, share));
        left.map(|it| it.provider.clone()).collect()
    }

    /// Has a grant given back although its claim is still there. Blocks until that is on disk.
    pub(super) fn supersede(&self, grant: &Grant) -> Result<(), ProviderError> {
        self.change(|grants| {
            for it in grants.iter_mut().filter(|it| it.is_same(grant)) {
                (it.answer, it.superseded) = (None, true);
            }
        })
    }

    pub(super) fn is_releasing(&self, claim: &ClaimUid) -> bool {
        self.state().releasing.contains(claim)
    }

    /// Records a grant, in the place of an earlier one for the same. Blocks until it is on disk.
    pub(super) fn record(&self, grant: Grant) -> Result<(), ProviderError> {
        self.change(|grants| {
            grants.retain(|it| !it.is_same(&grant));
            grants.push(grant);
        })
    }

    /// Records that a grant is about to be given back, so that its answer is nobody's any more: the
    /// release may be carried out and its confirmation lost. Blocks until that is on disk.
    pub(super) fn void(&self, grant: &Grant) -> Result<(), ProviderError> {
        if grant.answer.is_none() {
            return Ok(());
        }
        self.change(|grants| {
            grants.iter_mut().filter(|it| it.is_same(grant)).for_each(|it| it.answer = None);
        })
    }

    /// Forgets a grant that has been given back. Blocks until that is on disk.
    pub(super) fn forget(&self, grant: &Grant) -> Result<(), ProviderError> {
        self.change(|grants| grants.retain(|it| !it.is_same(grant)))
    }

    /// What is to be given back: grants of claims that are neither recorded nor being prepared. They
    /// are being released from now on, until [`Self::released`].
    pub(super) fn due(&self, records: &[Record], now: Instant) -> Vec<Grant> {
        let mut state = self.state();
        let State { grants, open, closed, recorded, releasing } = &mut *state;
        let present: BTreeSet<_> = records.iter().map(|record| &record.claim.uid).collect();
        recorded
            .extend(grants.iter().map(|it| &it.claim).filter(|it| present.contains(it)).cloned());
        let is_late = |claim: &ClaimUid| {
            closed.get(claim).is_some_and(|closed| now.duration_since(*closed) < GRACE)
        };
        let is_due = |claim: &ClaimUid| {
            !present.contains(claim)
                && !open.contains_key(claim)
                && (recorded.contains(claim) || !is_late(claim))
        };
        let is_due = |it: &&Grant| it.superseded || is_due(&it.claim);
        let due: Vec<_> = grants.iter().filter(is_due).cloned().collect();
        *releasing = due.iter().map(|it| it.claim.clone()).collect();
        due
    }

    /// The round that [`Self::due`] began is over.
    pub(super) fn released(&self) {
        let mut state = self.state();
        let State { grants, closed, recorded, releasing, .. } = &mut *state;
        releasing.clear();
        let is_left = |claim: &ClaimUid| grants.iter().any(|it| it.claim == *claim);
        closed.retain(|claim, _| is_left(claim));
        recorded.retain(is_left);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Grant>)) -> Result<(), ProviderError> {
        let _turn = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut grants = self.state().grants.clone();
        change(&mut grants);
        let path = &self.0.path;
        let failed = |source| ProviderError::Record { path: path.clone(), source };
        let content = Content { version: VERSION, grants };
        let text = serde_json::to_vec(&content).map_err(|error| failed(error.into()))?;
        disk::replace(path, &text, Survival::Lasting).map_err(failed)?;
        self.state().grants = content.grants;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has not left it half changed: each change is one assignment.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    /// Whether both stand for the same, whatever has come of it.
    fn is_same(&self, other: &Self) -> bool {
        self.is(&other.claim, &other.device.name, other.share.as_ref())
            && self.provider == other.provider
            && self.profile == other.profile
            && self.superseded == other.superseded
    }

    fn is(&self, claim: &ClaimUid, device: &str, share: Option<&ShareId>) -> bool {
        self.claim == *claim && self.device.name == device && self.share.as_ref() == share
    }
}

/// A claim is being prepared with what was granted.
pub struct Granting {
    grants: Grants,
    claim: ClaimUid,
}

impl fmt::Debug for Granting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Granting").field(&self.claim).finish()
    }
}

/// Changes what is known here and nothing else.
impl Drop for Granting {
    fn drop(&mut self) {
        let mut state = self.grants.state();
        let left = state.open.get(&self.claim).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            state.open.remove(&self.claim);
            state.closed.insert(self.claim.clone(), Instant::now());
        } else {
            state.open.insert(self.claim.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Phase;
    use crate::testing::{claim, record};

    fn grant(name: &str) -> Grant {
        Grant {
            claim: claim(name).uid,
            device: Identity { mac: None, pci: None, name: "eth1".to_owned() },
            share: None,
            provider: "ipam".to_owned(),
            profile: "pool".to_owned(),
            config: json!({}),
            answer: None,
            superseded: false,
        }
    }

    #[test]
    fn what_is_granted_outlives_the_process_and_is_due_without_a_record() {
        let directory = tempfile::tempdir().unwrap();
        let grants = Grants::open(directory.path()).unwrap();
        grants.record(grant("claim-a")).unwrap();
        grants.record(Grant { answer: Some(json!({})), ..grant("claim-a") }).unwrap();
        grants.record(grant("claim-b")).unwrap();
        drop(grants);

        let grants = Grants::open(directory.path()).unwrap();
        let records = [record("eth1", None, Phase::Prepared)];
        let due = grants.due(&records, Instant::now());
        assert_eq!(due, [grant("claim-b")]);
        assert!(grants.is_releasing(&claim("claim-b").uid));
        grants.forget(&due[0]).unwrap();
        grants.released();
        assert!(!grants.is_releasing(&claim("claim-b").uid));
        let left = Grants::open(directory.path()).unwrap().due(&[], Instant::now());
        assert_eq!(left, [Grant { answer: Some(json!({})), ..grant("claim-a") }]);
    }

    #[test]
    fn what_is_about_to_be_given_back_is_nobodys_answer() {
        let directory = tempfile::tempdir().unwrap();
        let grants = Grants::open(directory.path()).unwrap();
        let answered = Grant { answer: Some(json!({})), ..grant("claim-a") };
        grants.record(answered.clone()).unwrap();
        grants.void(&answered).unwrap();
        let left = Grants::open(directory.path()).unwrap().due(&[], Instant::now());
        assert_eq!(left, [grant("claim-a")]);
        grants.forget(&answered).unwrap();
        assert_eq!(grants.due(&[], Instant::now()), []);
    }

    #[test]
    fn what_is_being_prepared_is_kept_and_what_failed_for_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let grants = Grants::open(directory.path()).unwrap();
        let granting = grants.granting(&claim("claim-a").uid);
        grants.record(grant("claim-a")).unwrap();
        let soon = Instant::now() + GRACE / 2;
        let later = Instant::now() + GRACE * 2;
        assert_eq!(grants.due(&[], later), []);
        drop(granting);
        assert_eq!(grants.due(&[], soon), []);
        assert_eq!(grants.due(&[], later).len(), 1);
        // Once it has been prepared, its end is an end.
        assert_eq!(grants.due(&[record("eth1", None, Phase::Prepared)], soon), []);
        assert_eq!(grants.due(&[], soon).len(), 1);
    }

    /// A pipe that nobody reads keeps whoever opens it waiting, as a disk may.
    #[test]
    fn nobody_who_asks_waits_for_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let grants = Grants::open(directory.path()).unwrap();
        let pipe = directory.path().join(NAME).with_extension("new");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let writer = std::thread::spawn({
            let grants = grants.clone();
            move || grants.record(grant("claim-a"))
        });
        while grants.0.writing.try_lock().is_ok() {
            std::thread::yield_now();
        }
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let found = grants.find(&claim("claim-a").uid, &grant("claim-a").device, None);
            tell.send(found).unwrap();
        });
        assert_eq!(told.recv_timeout(Duration::from_mins(1)), Ok(None), "it is not on disk yet");
        let written = fs::read(&pipe).unwrap();
        assert!(!written.is_empty());
        // A pipe cannot be synchronized.
        assert!(writer.join().unwrap().is_err());
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NAME), "{").unwrap();
        assert_eq!(Grants::open(directory.path()).unwrap().due(&[], Instant::now()), []);
        assert!(directory.path().join("profiles.damaged.json").exists());
    }
}
