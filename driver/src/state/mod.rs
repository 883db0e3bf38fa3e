//! The checkpoint: one versioned file that says what is prepared and how far each attachment got.
//!
//! It is written before the node is touched and again afterwards, each time as a whole: a new file
//! beside the old one, then renamed over it, and then a mirror of it. The disk is waited for where the
//! change outlasts the boot. This room knows records and nothing of what they are for. Only `attach`
//! writes; the command line reads.
//!
//! Of an earlier boot nothing is left but what an operator has ordered: policies are kept until their
//! devices are prepared again.

#[cfg(test)]
mod damage;
mod file;
mod former;
mod kept;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use self::file::Content;
#[cfg(any(test, feature = "testing"))]
pub use self::file::read_any;
use crate::model::{AttachmentId, KeptPolicy, OperatorPolicy, Record};
use crate::telemetry::{Part, Timings};

/// Why the checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{what} {}: {source}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// Another driver runs on the same directory.
    #[error("{} is locked: another weir runs on it", .path.display())]
    Locked { path: PathBuf },
    /// Not JSON, or a wrong checksum: the file did not come from us, or the disk lost part of it.
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged { path: PathBuf, reason: String },
    /// Written by a version of the driver that this one does not know.
    #[error("{} has version {version}, this driver reads up to {known}", .path.display())]
    Version { path: PathBuf, version: u32, known: u32 },
}

/// The right to change the checkpoint, held by a lock on its directory until the process ends.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    boot_id: String,
    records: BTreeMap<AttachmentId, Record>,
    /// Oldest first.
    kept: Vec<KeptPolicy>,
    is_partial: bool,
    timings: Timings,
    _lock: Flock<File>,
}

/// How the checkpoint was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// Of this boot, with this many records.
    Records(usize),
    /// There was none: this is the first driver in this place, or somebody has removed it.
    Nothing,
    /// Of an earlier boot: every namespace and every pin that it speaks of is gone, so it was
    /// dropped. Kubelet prepares again what it still needs (kubernetes/kubernetes PR 141966), and
    /// then these operators' policies hold again. `lost` are those that there was no room to keep.
    EarlierBoot { records: usize, policies: usize, lost: usize },
    /// Unreadable or gone; this many records were read from the mirror in its stead. A damaged file
    /// lies beside the new one under the name `to`.
    Mirrored { records: usize, to: Option<PathBuf>, reason: String },
    /// Unreadable, as a power cut may leave it, and so is its mirror; it lies beside the new one under
    /// this name, and the driver starts without it.
    SetAside { to: PathBuf, reason: String },
}

impl Checkpoint {
    /// Opens the checkpoint in `directory`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Locked`], [`CheckpointError::Io`] and [`CheckpointError::Version`]. A
    /// damaged file is no error: it is set aside, since a driver that does not start helps nobody.
    pub fn open(directory: &Path, boot_id: &str) -> Result<(Self, Found), CheckpointError> {
        make_private(directory).map_err(|e| io_error("create", directory, e))?;
        let lock = lock(&directory.join("lock"))?;
        let path = directory.join(file::NAME);
        let ((records, kept), found) = match file::read(&path) {
            Ok(Some(content)) => of_boot(content, boot_id),
            Ok(None) => match read_mirror(directory, boot_id) {
                Some((read, records)) => {
                    let reason = "it is gone".to_owned();
                    (read, Found::Mirrored { records, to: None, reason })
                }
                None => (Held::default(), Found::Nothing),
            },
            // Of a later version it is as good as it was written; only this driver cannot read it.
            Err(error @ (CheckpointError::Io { .. } | CheckpointError::Version { .. })) => {
                return Err(error);
            }
            Err(error) => {
                let (to, reason) = (set_aside(&path)?, error.to_string());
                if let Some((read, records)) = read_mirror(directory, boot_id) {
                    (read, Found::Mirrored { records, to: Some(to), reason })
                } else {
                    mark(directory, boot_id)?;
                    (Held::default(), Found::SetAside { to, reason })
                }
            }
        };
        let marked = fs::read_to_string(directory.join(PARTIAL));
        let is_partial = marked.is_ok_and(|marked| marked == boot_id);
        let (boot_id, timings) = (boot_id.to_owned(), Timings::default());
        Ok((Self { path, boot_id, records, kept, is_partial, timings, _lock: lock }, found))
    }

    /// Has it known that there were records of this boot, for whoever found [`Found::Nothing`] where a
    /// driver has been.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn set_partial(&mut self) -> Result<(), CheckpointError> {
        mark(self.path.parent().unwrap_or(Path::new("/")), &self.boot_id)?;
        self.is_partial = true;
        Ok(())
    }

    /// Has it report how long writing takes.
    #[must_use]
    pub fn timed(self, timings: Timings) -> Self {
        Self { timings, ..self }
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Whether records of this boot were lost, so that pods may have what no record knows.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    pub fn record(&self, id: &AttachmentId) -> Option<&Record> {
        self.records.get(id)
    }

    /// The operator's policy that an earlier boot left for an attachment.
    pub fn kept(&self, id: &AttachmentId) -> Option<&OperatorPolicy> {
        self.kept.iter().find(|kept| kept.id() == *id).map(|kept| &kept.policy)
    }

    /// Writes `records` over those of the same name, all in one replacement of the file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; then neither the file nor [`Self::records`] has changed.
    pub fn put(
        &mut self,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<(), CheckpointError> {
        let mut changed = self.records.clone();
        changed.extend(records.into_iter().map(|record| (record.id(), record)));
        let kept = kept::without_what_is_back(&self.kept, &changed);
        self.write(changed, kept)
    }

    /// Forgets `ids`, all in one replacement of the file.
    ///
    /// # Errors
    ///
    /// As [`Self::put`].
    pub fn remove<'a>(
        &mut self,
        ids: impl IntoIterator<Item = &'a AttachmentId>,
    ) -> Result<(), CheckpointError> {
        let mut changed = self.records.clone();
        for id in ids {
            changed.remove(id);
        }
        self.write(changed, self.kept.clone())
    }

    /// Gives up the kept policies for which `is_meant` holds, and answers how many there were.
    ///
    /// # Errors
    ///
    /// As [`Self::put`].
    pub fn forget_kept(
        &mut self,
        is_meant: impl Fn(&KeptPolicy) -> bool,
    ) -> Result<usize, CheckpointError> {
        let (forgotten, kept): (Vec<_>, _) = self.kept.iter().cloned().partition(is_meant);
        if !forgotten.is_empty() {
            self.write(self.records.clone(), kept)?;
        }
        Ok(forgotten.len())
    }

    fn write(
        &mut self,
        records: BTreeMap<AttachmentId, Record>,
        kept: Vec<KeptPolicy>,
    ) -> Result<(), CheckpointError> {
        if records != self.records || kept != self.kept || !self.path.exists() {
            let durability = kept::durability((&self.records, &self.kept), (&records, &kept));
            self.timings.of(Part::Checkpoint, || {
                file::write(durability, &self.path, &self.boot_id, records.values(), &kept)
            })?;
            (self.records, self.kept) = (records, kept);
        }
        Ok(())
    }
}

/// Says in which boot a checkpoint was lost.
const PARTIAL: &str = "checkpoint.lost";

/// Later starts of this boot find whole files, and know no more than this one.
fn mark(directory: &Path, boot_id: &str) -> Result<(), CheckpointError> {
    let marker = directory.join(PARTIAL);
    fs::write(&marker, boot_id).map_err(|e| io_error("write", &marker, e))
}

/// Records and kept policies.
type Held = (BTreeMap<AttachmentId, Record>, Vec<KeptPolicy>);

/// What a file that was read means in this boot.
fn of_boot(content: Content, boot_id: &str) -> (Held, Found) {
    let records = content.records.len();
    if content.boot_id == boot_id {
        let all = content.records.into_iter().map(|r| (r.id(), r)).collect();
        return ((all, content.kept), Found::Records(records));
    }
    let (kept, lost) = kept::keep(content);
    let found = Found::EarlierBoot { records, policies: kept.len(), lost };
    ((BTreeMap::new(), kept), found)
}

/// What the mirror holds and how many records that are, if it is whole and of this boot.
fn read_mirror(directory: &Path, boot_id: &str) -> Option<(Held, usize)> {
    let content = file::read(&directory.join(file::MIRROR)).ok().flatten()?;
    match of_boot(content, boot_id) {
        (held, Found::Records(records)) => Some((held, records)),
        _ => None,
    }
}

/// What is recorded in `directory`, read without the lock: for the command line, while a driver may
/// or may not run. No checkpoint means no records.
///
/// # Errors
///
/// Any [`CheckpointError`] but `Locked`.
pub fn read_records(directory: &Path) -> Result<Vec<Record>, CheckpointError> {
    Ok(file::read(&directory.join(file::NAME))?.map(|content| content.records).unwrap_or_default())
}

/// This boot's identity (`random(4)`: `/proc/sys/kernel/random/boot_id`).
///
/// # Errors
///
/// [`CheckpointError::Io`] where procfs is not mounted.
pub fn boot_id() -> Result<String, CheckpointError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(|e| io_error("read", path, e))?;
    Ok(text.trim().to_owned())
}

/// Makes a directory that is root's alone: whoever could open the lock could keep the driver out.
fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

/// Opens a file for writing, empty and for its owner alone.
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// How many damaged files are kept apart; a further one replaces the last.
const MAX_DAMAGED: u32 = 9;

fn lock(path: &Path) -> Result<Flock<File>, CheckpointError> {
    let file = private_file(path).map_err(|e| io_error("create", path, e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => CheckpointError::Locked { path: path.to_owned() },
        errno => io_error("lock", path, errno.into()),
    })
}

/// Renames the file to the first free `NAME.damaged-N`.
fn set_aside(path: &Path) -> Result<PathBuf, CheckpointError> {
    let to = (1..=MAX_DAMAGED)
        .map(|n| path.with_extension(format!("json.damaged-{n}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| path.with_extension("json.damaged"));
    fs::rename(path, &to).map_err(|e| io_error("set aside", path, e))?;
    Ok(to)
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::model::Phase;

    fn record(name: &str) -> Record {
        let phase = Phase::Attaching { netns: crate::testing::netns(7) };
        let mut record = crate::testing::record(name, None, phase);
        record.before.addresses = vec!["2001:db8::1/64".parse().unwrap()];
        record
    }

    fn open(directory: &TempDir) -> (Checkpoint, Found) {
        Checkpoint::open(directory.path(), "boot-1").unwrap()
    }

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let directory = TempDir::new().unwrap();
        let (mut checkpoint, found) = open(&directory);
        assert_eq!(found, Found::Nothing);
        checkpoint.put([record("eth1"), record("eth2")]).unwrap();
        checkpoint.remove([&record("eth2").id()]).unwrap();
        drop(checkpoint);

        let (checkpoint, found) = open(&directory);
        assert_eq!(found, Found::Records(1));
        assert_eq!(checkpoint.record(&record("eth1").id()), Some(&record("eth1")));
        assert_eq!(read_records(directory.path()).unwrap(), [record("eth1")]);
    }

    #[test]
    fn nobody_else_can_read_it() {
        let directory = TempDir::new().unwrap();
        let state = directory.path().join("state");
        let (mut checkpoint, _) = Checkpoint::open(&state, "boot-1").unwrap();
        checkpoint.put([record("eth1")]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        for file in [file::NAME, file::MIRROR, "lock"] {
            assert_eq!(mode(&state.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn one_driver_at_a_time() {
        let directory = TempDir::new().unwrap();
        let (_first, _) = open(&directory);
        let error = Checkpoint::open(directory.path(), "boot-1").unwrap_err();
        assert!(matches!(error, CheckpointError::Locked { .. }), "{error}");
    }

    #[test]
    fn another_boot_starts_with_nothing() {
        let directory = TempDir::new().unwrap();
        open(&directory).0.put([record("eth1")]).unwrap();
        let (checkpoint, found) = Checkpoint::open(directory.path(), "boot-2").unwrap();
        assert_eq!(found, Found::EarlierBoot { records: 1, policies: 0, lost: 0 });
        assert_eq!(checkpoint.records().count(), 0);
    }

    #[test]
    fn a_damaged_policy_of_an_earlier_boot_is_found_out() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(file::NAME);
        let with_policy = Record { policy: Some(OperatorPolicy::default()), ..record("eth1") };
        open(&directory).0.put([with_policy]).unwrap();
        let (mut checkpoint, _) = Checkpoint::open(directory.path(), "boot-2").unwrap();
        checkpoint.put([record("eth2")]).unwrap();
        drop(checkpoint);
        let good = fs::read_to_string(&path).unwrap();
        let at = good.find("\"kept\"").unwrap();
        for at in at..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            fs::write(directory.path().join(file::MIRROR), &bad).unwrap();
            let (_, found) = Checkpoint::open(directory.path(), "boot-2").unwrap();
            assert!(matches!(found, Found::SetAside { .. }), "byte {at}: {found:?}");
        }
    }

    #[test]
    fn a_damaged_file_is_set_aside_whatever_byte_is_wrong() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(file::NAME);
        open(&directory).0.put([record("eth1")]).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let (checkpoint, found) = open(&directory);
            let Found::Mirrored { records: 1, to: Some(to), .. } = found else {
                panic!("byte {at}: {found:?}")
            };
            assert_eq!(fs::read(to).unwrap(), bad, "byte {at}: is kept for whoever wants to know");
            assert_eq!(checkpoint.records().count(), 1);

            drop(checkpoint);
            fs::write(&path, &bad).unwrap();
            fs::write(directory.path().join(file::MIRROR), &bad).unwrap();
            let (checkpoint, found) = open(&directory);
            assert!(matches!(found, Found::SetAside { .. }), "byte {at}: {found:?}");
            assert_eq!(checkpoint.records().count(), 0);
            drop(checkpoint);
            fs::write(directory.path().join(file::MIRROR), &good).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_gone_has_its_mirror() {
        let directory = TempDir::new().unwrap();
        open(&directory).0.put([record("eth1")]).unwrap();
        fs::remove_file(directory.path().join(file::NAME)).unwrap();
        let (checkpoint, found) = open(&directory);
        assert!(matches!(found, Found::Mirrored { records: 1, to: None, .. }), "{found:?}");
        assert_eq!(checkpoint.records().count(), 1);
    }

    #[test]
    fn the_next_version_is_read_as_far_as_it_is_known() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(file::NAME);
        file::write_version(
            3,
            file::Durability::Lasting,
            &path,
            "boot-1",
            [record("eth1")].iter(),
            &[],
        )
        .unwrap();
        assert_eq!(open(&directory).1, Found::Records(1));
    }

    #[test]
    fn a_record_without_an_interface_is_kept_from_drivers_that_would_take_it_for_damage() {
        let directory = TempDir::new().unwrap();
        let mut bare = record("vfio");
        (bare.device.interface, bare.device.index) = (None, None);
        let (mut checkpoint, _) = open(&directory);
        let version = || {
            let text = fs::read_to_string(directory.path().join(file::NAME)).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["version"].clone()
        };
        checkpoint.put([record("eth1")]).unwrap();
        assert_eq!(version(), 2);
        checkpoint.put([bare.clone()]).unwrap();
        assert_eq!(version(), 4);
        checkpoint.remove([&bare.id()]).unwrap();
        assert_eq!(version(), 2);
        checkpoint.put([bare]).unwrap();
        drop(checkpoint);
        assert_eq!(open(&directory).1, Found::Records(2));
    }

    #[test]
    fn a_whole_file_of_another_version_is_left_to_the_driver_that_wrote_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(file::NAME);
        file::write_version(
            5,
            file::Durability::Lasting,
            &path,
            "boot-1",
            [record("eth1")].iter(),
            &[],
        )
        .unwrap();
        let error = Checkpoint::open(directory.path(), "boot-1").unwrap_err();
        assert!(matches!(error, CheckpointError::Version { version: 5, .. }), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn a_file_cut_short_is_set_aside() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(file::NAME);
        open(&directory).0.put([record("eth1")]).unwrap();
        let cut = fs::read(&path).unwrap()[..40].to_vec();
        fs::write(&path, &cut).unwrap();
        fs::write(directory.path().join(file::MIRROR), &cut).unwrap();
        let (_, found) = open(&directory);
        let Found::SetAside { to, .. } = found else { panic!("{found:?}") };
        assert!(to.exists());
    }
}
