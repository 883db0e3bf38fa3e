//! Small sysfs trees for tests, written as text.
//!
//! The text has a line for each file, link or directory:
//!
//! ```text
//! class/net/eth1 -> ../../devices/pci0000:00/0000:00:03.0/net/eth1
//! devices/pci0000:00/0000:00:03.0/driver => bus/pci/drivers/ice
//! devices/pci0000:00/0000:00:03.0/numa_node = 1
//! devices/pci0000:00/0000:00:03.0/infiniband/mlx5_0/
//! ```
//!
//! `=>` links to a place in the tree, which is made if it is not there. A line that ends with `:` is
//! what the lines after it begin with, as long as they are indented more.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Directories of a bus device, or of `devices/virtual`, whose entries are class devices.
const CLASSES: [&str; 6] =
    ["infiniband", "infiniband_cm", "infiniband_mad", "infiniband_verbs", "misc", "net"];

/// Makes the tree that `text` describes below `root`.
///
/// # Errors
///
/// Of the file system, and [`io::ErrorKind::InvalidInput`] for a line that describes nothing.
pub fn plant(root: &Path, text: &str) -> io::Result<()> {
    let mut prefix: Option<(usize, &str)> = None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if prefix.is_some_and(|(outer, _)| indent <= outer) {
            prefix = None;
        }
        match (line.strip_suffix(':'), prefix) {
            (Some(path), None) if !line.contains(" = ") => prefix = Some((indent, path)),
            (_, Some((_, path))) => plant_line(root, &format!("{path}/{line}"))?,
            (_, None) => plant_line(root, line)?,
        }
    }
    Ok(())
}

/// As [`plant`], with the links that the kernel makes by itself: from `class` to each class device, and
/// from `bus/pci/devices` to each function.
///
/// # Errors
///
/// As [`plant`].
pub fn plant_machine(root: &Path, text: &str) -> io::Result<()> {
    plant(root, text)?;
    link_classes(root, Path::new("devices"))
}

/// A sysfs in a temporary directory.
#[cfg(test)]
pub(crate) struct SysfsTree {
    root: tempfile::TempDir,
}

#[cfg(test)]
impl SysfsTree {
    pub(crate) fn new(text: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        plant(root.path(), text).unwrap();
        Self { root }
    }

    pub(crate) fn machine(text: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        plant_machine(root.path(), text).unwrap();
        Self { root }
    }

    /// The same tree without `path` and what is below it.
    pub(crate) fn without(self, path: &str) -> Self {
        fs::remove_dir_all(self.root.path().join(path)).unwrap();
        self
    }

    /// The same tree as it is shown while an interface is in another namespace: neither its class
    /// device nor its directory is there.
    pub(crate) fn without_interface(self, name: &str) -> Self {
        let link = self.root.path().join("class/net").join(name);
        fs::remove_dir_all(fs::canonicalize(&link).unwrap()).unwrap();
        fs::remove_file(link).unwrap();
        self
    }

    /// The same tree without the link at `path`.
    pub(crate) fn unlinked(self, path: &str) -> Self {
        fs::remove_file(self.root.path().join(path)).unwrap();
        self
    }

    /// What is in a file, if it is there.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.path().join(path)).ok()?;
        Some(text.trim_end().to_owned())
    }

    pub(crate) fn sysfs(&self) -> super::Sysfs {
        super::Sysfs::new(self.root.path()).unwrap()
    }
}

fn plant_line(root: &Path, line: &str) -> io::Result<()> {
    if let Some((path, target)) = line.split_once(" -> ") {
        make_parent(&root.join(path))?;
        symlink(target, root.join(path))
    } else if let Some((path, target)) = line.split_once(" => ") {
        fs::create_dir_all(root.join(target))?;
        link(root, Path::new(path), Path::new(target))
    } else if let Some((path, content)) = line.split_once(" = ") {
        let path = root.join(path);
        make_parent(&path)?;
        fs::write(path, format!("{content}\n"))
    } else if line.ends_with('/') {
        fs::create_dir_all(root.join(line))
    } else {
        let text = format!("neither link, file nor directory: {line}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Links `path` to `target`, both in the tree.
fn link(root: &Path, path: &Path, target: &Path) -> io::Result<()> {
    let ups = path.components().count() - 1;
    let relative: PathBuf = std::iter::repeat_n("..", ups).collect();
    make_parent(&root.join(path))?;
    symlink(relative.join(target), root.join(path))
}

fn link_classes(root: &Path, directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root.join(directory))? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = directory.join(entry.file_name());
        let name = entry.file_name().to_string_lossy().into_owned();
        if CLASSES.contains(&name.as_str()) {
            for device in fs::read_dir(root.join(&path))? {
                let device = device?.file_name();
                link(root, &Path::new("class").join(&name).join(&device), &path.join(&device))?;
            }
            continue;
        }
        if name.parse::<crate::model::PciAddress>().is_ok() {
            link(root, &Path::new("bus/pci/devices").join(&name), &path)?;
        }
        link_classes(root, &path)?;
    }
    Ok(())
}
