//! What sysfs tells of interfaces, PCI functions and RDMA devices: where they sit in the machine, and
//! what drives them.
//!
//! A [`Sysfs`] is a value with a root, so a tree of fixtures is as good as `/sys`. Which interfaces
//! `class/net` shows depends on the namespace of whoever *mounted* this sysfs, not of whoever reads.
//!
//! One [`Look`] belongs to one scan: what many interfaces have in common, such as the list of a
//! physical function's virtual ones, is read once in it.

mod function;

mod interface;
mod look;
mod rdma;
mod sriov;
#[cfg(any(test, feature = "testing"))]
pub mod tree;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use nix::libc;

use crate::model::Cpus;
use crate::sys::asked;

pub use self::function::FunctionFacts;
pub use self::interface::SysfsFacts;
pub use self::look::Look;
pub use self::rdma::{RdmaDevice, RdmaHome};

/// A mounted sysfs.
#[derive(Clone, Debug)]
pub struct Sysfs {
    /// Without symbolic links in it.
    root: PathBuf,
}

/// Why sysfs could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysfsError {
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("write {text} to {}", .path.display())]
    Write { path: PathBuf, text: String, source: io::Error },

    #[error("{} holds {is} by now, not {from}", .path.display())]
    Overtaken { path: PathBuf, is: u32, from: u32 },

    #[error("{} leads out of {}, to {}", .path.display(), .root.display(), .target.display())]
    Outside { path: PathBuf, root: PathBuf, target: PathBuf },

    #[error("{} holds {text:?}, which is not {expected}", .path.display())]
    Malformed { path: PathBuf, text: String, expected: &'static str },
}

impl Sysfs {
    /// A sysfs at `root`, `/sys` as a rule.
    pub fn new(root: &Path) -> Result<Self, SysfsError> {
        let root = fs::canonicalize(root)
            .map_err(|source| SysfsError::Read { path: root.to_owned(), source })?;
        Ok(Self { root })
    }

    /// Begins to look; what it has seen is not looked at again.
    pub fn look(&self) -> Look<'_> {
        Look::new(self)
    }

    /// Where the link at `path` leads to; `None` where there is no link. Links of sysfs lead straight
    /// to directories below `devices`, so that nothing has to be asked of the directories on the way.
    fn target(&self, path: &Path) -> Result<Option<PathBuf>, SysfsError> {
        asked::note_read();
        let link = match fs::read_link(path) {
            Ok(link) => link,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(source) => return Err(SysfsError::Read { path: path.to_owned(), source }),
        };
        let target = plain(&path.parent().unwrap_or(path).join(link));
        if target.starts_with(&self.root) {
            return Ok(Some(target));
        }
        Err(SysfsError::Outside { path: path.to_owned(), root: self.root.clone(), target })
    }

    /// The name of what the link at `path` leads to.
    fn link_name(&self, path: &Path) -> Result<Option<String>, SysfsError> {
        let target = self.target(path)?;
        Ok(target.as_deref().and_then(Path::file_name).and_then(OsStr::to_str).map(str::to_owned))
    }
}

/// The path without `..` in it, by its text alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// A number that is not negative. `None` when there is nothing to tell, which is normal: -1 stands
/// for "unknown", and `speed` fails with `EINVAL` while an interface is down.
fn number(path: &Path) -> Result<Option<u32>, SysfsError> {
    match text(path)?.as_deref() {
        None | Some("-1") => Ok(None),
        Some(text) => u32::from_str(text).map(Some).map_err(|_| SysfsError::Malformed {
            path: path.to_owned(),
            text: text.to_owned(),
            expected: "a number from -1 to 4294967295",
        }),
    }
}

fn text(path: &Path) -> Result<Option<String>, SysfsError> {
    asked::note_read();
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if is_absence(&error) => Ok(None),
        Err(source) => Err(SysfsError::Read { path: path.to_owned(), source }),
    }
}

/// The same, `None` where it is empty.
fn some_text(path: &Path) -> Result<Option<String>, SysfsError> {
    Ok(text(path)?.filter(|text| !text.is_empty()))
}

/// A list of CPUs; `None` where there is none, or an empty one.
fn cpus(path: &Path) -> Result<Option<Cpus>, SysfsError> {
    let Some(text) = text(path)? else { return Ok(None) };
    match text.parse::<Cpus>() {
        Ok(cpus) => Ok((!cpus.is_empty()).then_some(cpus)),
        Err(_) => {
            Err(SysfsError::Malformed { path: path.to_owned(), text, expected: "a list of CPUs" })
        }
    }
}

/// What is near a bus device: its NUMA node, and that node's CPUs. Neither where nobody knows.
fn nearness(bus_device: &Path) -> Result<(Option<u32>, Option<Cpus>), SysfsError> {
    let node = number(&bus_device.join("numa_node"))?;
    let cpus = match node {
        Some(_) => cpus(&bus_device.join("local_cpulist"))?,
        None => None,
    };
    Ok((node, cpus))
}

/// Names of what is in a directory, sorted; none where there is no directory.
fn entries(directory: &Path) -> Result<Vec<String>, SysfsError> {
    asked::note_read();
    let error = |source| SysfsError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(absence) if is_absence(&absence) => return Ok(Vec::new()),
        Err(source) => return Err(error(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(error)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn is_there(path: &Path) -> bool {
    asked::note_read();
    path.exists()
}

/// Whether a failed read means "this has no such attribute" rather than "reading broke".
fn is_absence(error: &io::Error) -> bool {
    let absences =
        [libc::ENOENT, libc::ENOTDIR, libc::EINVAL, libc::EOPNOTSUPP, libc::ENODEV, libc::ENXIO];
    error.raw_os_error().is_some_and(|errno| absences.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::tree::SysfsTree;
    use super::*;

    #[test]
    fn nothing_outside_the_root_is_believed() {
        let tree = SysfsTree::new("class/net/eth0 -> /proc");
        let sysfs = tree.sysfs();
        let error = sysfs.look().interface(&"eth0".parse().unwrap()).unwrap_err();
        assert!(matches!(error, SysfsError::Outside { .. }), "{error}");
    }

    #[test]
    fn nonsense_is_an_error_that_shows_it() {
        let tree = SysfsTree::new(
            "
            class/net/veth0 -> ../../devices/virtual/net/veth0
            devices/virtual/net/veth0/speed = fast
            ",
        );
        let sysfs = tree.sysfs();
        let error = sysfs.look().speed_mbps(&"veth0".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("holds \"fast\""), "{error}");
    }

    /// A tree cannot show an errno.
    #[test]
    fn some_errors_only_mean_that_there_is_no_such_attribute() {
        for errno in [libc::ENOENT, libc::EINVAL, libc::EOPNOTSUPP, libc::ENODEV] {
            assert!(is_absence(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::EACCES, libc::EIO, libc::ELOOP] {
            assert!(!is_absence(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
    }
}
