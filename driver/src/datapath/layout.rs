//! Where things are pinned. Nothing is removed but by a path that was computed here.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use common::{LAYOUT_VERSION, names};

use super::{DatapathError, Hook, list};
use crate::model::{AttachmentId, ClaimUid, DeviceName, DeviceNameError, ShareId};

const COUNTERS: &str = "counters_v";

/// The tree below bpffs: `weir/<claim uid>/<device>/<pin>`. Names on bpffs hold no dots (the kernel
/// reserves them, `bpf_lookup()` in kernel/bpf/inode.c), and neither do UIDs and device names.
#[derive(Clone, Debug)]
pub(super) struct BpffsLayout {
    root: PathBuf,
}

/// What is pinned for an attachment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pin {
    Link(Hook),
    /// The program for a hook that has no link, because it is a filter.
    Program(Hook),
    /// The same, on its way into the place of the former one.
    NextProgram(Hook),
    /// Of this build's layout: an upgrade to another starts new counters beside the old ones.
    Counters,
    /// A map of the programs that are attached now, see [`MAPS`].
    Map(&'static str),
}

/// The conversations. They outlive the programs, as counters do: who talks shall not notice that rules
/// are changed.
pub(super) const STATE: &str = "state";

/// What is pinned of each program instance beside the counters, and the names of the maps.
pub(super) const MAPS: [(&str, &str); 9] = [
    ("rules", names::RULES),
    ("rows", names::ROWS),
    ("pages", names::PAGES),
    ("hits", names::HITS),
    ("limits", names::LIMITS),
    (STATE, names::STATE),
    ("flows", names::FLOWS),
    ("evicted", names::EVICTED),
    ("logs", names::LOGS),
];

/// The name of an attachment's directory in that of its claim: `DEVICE` or `DEVICE,SHARE`. Neither
/// holds a comma.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) device: DeviceName,
    pub(super) share: Option<ShareId>,
}

impl FromStr for Place {
    type Err = DeviceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((device, share)) = text.split_once(',') else {
            return Ok(Self { device: text.parse()?, share: None });
        };
        match share.parse() {
            Ok(share) => Ok(Self { device: device.parse()?, share: Some(share) }),
            // Not ours; as a whole it is no device's name either.
            Err(_) => text.parse().map(|device| Self { device, share: None }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.share {
            Some(share) => write!(f, "{},{share}", self.device),
            None => self.device.fmt(f),
        }
    }
}

/// A place on bpffs that is ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PinPath {
    path: PathBuf,
    root: PathBuf,
}

impl BpffsLayout {
    pub(super) fn new(bpffs: &Path) -> Self {
        Self { root: bpffs.join("weir") }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn claim(&self, claim: &ClaimUid) -> PathBuf {
        self.root.join(claim.as_str())
    }

    pub(super) fn device(&self, id: &AttachmentId) -> PathBuf {
        let place = Place { device: id.device.clone(), share: id.share.clone() };
        self.claim(&id.claim).join(place.to_string())
    }

    pub(super) fn pin(&self, id: &AttachmentId, pin: Pin) -> PinPath {
        let name = match pin {
            Pin::Link(hook) => hook.name().to_owned(),
            Pin::Program(hook) => format!("prog_{}", hook.name()),
            Pin::NextProgram(hook) => format!("next_{}", hook.name()),
            Pin::Counters => format!("{COUNTERS}{LAYOUT_VERSION}"),
            Pin::Map(name) => name.to_owned(),
        };
        PinPath { path: self.device(id).join(name), root: self.root.clone() }
    }

    /// All that is pinned for `id`, also by other builds; `None` where there is no place for it.
    pub(super) fn pins(&self, id: &AttachmentId) -> Result<Option<Vec<PinPath>>, DatapathError> {
        let entries = list(&self.device(id))?;
        Ok(entries.map(|entries| {
            let pin = |entry: fs::DirEntry| PinPath { path: entry.path(), root: self.root.clone() };
            entries.into_iter().map(pin).collect()
        }))
    }

    /// Removes the device's directory, and the claim's when this was its last device.
    pub(super) fn remove_dirs(&self, id: &AttachmentId) -> Result<(), DatapathError> {
        let device = self.device(id);
        fs::remove_dir(&device).map_err(|source| DatapathError::Remove { path: device, source })?;
        let claim = self.claim(&id.claim);
        match fs::remove_dir(&claim) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            result => result.map_err(|source| DatapathError::Remove { path: claim, source }),
        }
    }
}

impl PinPath {
    pub(super) fn as_path(&self) -> &Path {
        &self.path
    }

    /// Counters, of whichever layout.
    pub(super) fn is_counters(&self) -> bool {
        self.path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(COUNTERS))
    }

    /// Removes the pin; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// A path outside the root is refused, whoever made it.
    pub(super) fn remove(&self) -> Result<(), DatapathError> {
        let is_inside = self.path.strip_prefix(&self.root).is_ok_and(|below| {
            below.components().all(|part| matches!(part, std::path::Component::Normal(_)))
        });
        let result = if is_inside {
            fs::remove_file(&self.path)
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "outside our part of bpffs"))
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => {
                result.map_err(|source| DatapathError::Remove { path: self.path.clone(), source })
            }
        }
    }
}

impl PinPath {
    /// Takes the place of `other`, which is gone by the same act.
    pub(super) fn replace(&self, other: &Self) -> Result<(), DatapathError> {
        fs::rename(&self.path, &other.path)
            .map_err(|source| DatapathError::Pin { path: other.path.clone(), source })
    }
}

impl From<PinPath> for PathBuf {
    fn from(pin: PinPath) -> Self {
        pin.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> AttachmentId {
        AttachmentId { claim: "1-2".parse().unwrap(), device: "eth1".parse().unwrap(), share: None }
    }

    #[test]
    fn pins_lie_below_the_claim_and_hold_no_dots() {
        let layout = BpffsLayout::new(Path::new("/sys/fs/bpf"));
        for (pin, path) in [
            (Pin::Link(Hook::Xdp), "/sys/fs/bpf/weir/1-2/eth1/xdp"),
            (Pin::Link(Hook::Egress), "/sys/fs/bpf/weir/1-2/eth1/egress"),
            (Pin::Program(Hook::Egress), "/sys/fs/bpf/weir/1-2/eth1/prog_egress"),
            (Pin::Counters, "/sys/fs/bpf/weir/1-2/eth1/counters_v2"),
            (Pin::Map("rules"), "/sys/fs/bpf/weir/1-2/eth1/rules"),
        ] {
            assert_eq!(layout.pin(&id(), pin).as_path(), Path::new(path));
        }
        assert!(layout.pin(&id(), Pin::Counters).is_counters());
    }

    #[test]
    fn what_is_outside_the_root_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, victim) = (dir.path().join("weir"), dir.path().join("victim"));
        fs::create_dir(&root).unwrap();
        fs::write(&victim, "").unwrap();
        for path in [victim.clone(), root.join("../victim")] {
            let error = PinPath { path, root: root.clone() }.remove().unwrap_err();
            assert_eq!(error.reason(), "remove");
        }
        assert!(victim.exists());

        let ours = root.join("ours");
        fs::write(&ours, "").unwrap();
        for _ in 0..2 {
            PinPath { path: ours.clone(), root: root.clone() }.remove().unwrap();
        }
        assert!(!ours.exists());
    }
}
