//! Small sysfs trees for tests, written as text.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Sysfs;

/// A sysfs in a temporary directory.
///
/// Its text has a line for each file, link or directory:
///
/// ```text
/// class/net/eth1 -> ../../devices/pci0000:00/0000:00:03.0/net/eth1
/// devices/pci0000:00/0000:00:03.0/driver => bus/pci/drivers/ice
/// devices/pci0000:00/0000:00:03.0/numa_node = 1
/// devices/pci0000:00/0000:00:03.0/infiniband/mlx5_0/
/// ```
///
/// `=>` links to a place in the tree, which is made if it is not there. A line that ends with `:` is
/// what the lines after it begin with, as long as they are indented more.
pub(crate) struct SysfsTree {
    root: tempfile::TempDir,
}

/// Directories of a bus device, or of `devices/virtual`, whose entries are class devices.
const CLASSES: [&str; 6] =
    ["infiniband", "infiniband_cm", "infiniband_mad", "infiniband_verbs", "misc", "net"];

impl SysfsTree {
    pub(crate) fn new(text: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut prefix: Option<(usize, &str)> = None;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let indent = line.len() - line.trim_start().len();
            let line = line.trim();
            if prefix.is_some_and(|(outer, _)| indent <= outer) {
                prefix = None;
            }
            match (line.strip_suffix(':'), prefix) {
                (Some(path), None) if !line.contains(" = ") => prefix = Some((indent, path)),
                (_, Some((_, path))) => plant(root.path(), &format!("{path}/{line}")),
                (_, None) => plant(root.path(), line),
            }
        }
        Self { root }
    }

    /// The same, with the links that the kernel makes by itself: from `class` to each class device, and
    /// from `bus/pci/devices` to each function.
    pub(crate) fn machine(text: &str) -> Self {
        let tree = Self::new(text);
        link_classes(tree.root.path(), Path::new("devices"));
        tree
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

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.root.path()).unwrap()
    }
}

fn plant(root: &Path, line: &str) {
    if let Some((path, target)) = line.split_once(" -> ") {
        make_parent(&root.join(path));
        symlink(target, root.join(path)).unwrap();
    } else if let Some((path, target)) = line.split_once(" => ") {
        fs::create_dir_all(root.join(target)).unwrap();
        link(root, Path::new(path), Path::new(target));
    } else if let Some((path, content)) = line.split_once(" = ") {
        let path = root.join(path);
        make_parent(&path);
        fs::write(path, format!("{content}\n")).unwrap();
    } else {
        assert!(line.ends_with('/'), "neither link, file nor directory: {line}");
        fs::create_dir_all(root.join(line)).unwrap();
    }
}

fn make_parent(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
}

/// Links `path` to `target`, both in the tree.
fn link(root: &Path, path: &Path, target: &Path) {
    let ups = path.components().count() - 1;
    let relative: PathBuf = std::iter::repeat_n("..", ups).collect();
    make_parent(&root.join(path));
    symlink(relative.join(target), root.join(path)).unwrap();
}

fn link_classes(root: &Path, directory: &Path) {
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_type().unwrap().is_dir() {
            continue;
        }
        let path = directory.join(entry.file_name());
        let name = entry.file_name().into_string().unwrap();
        if CLASSES.contains(&name.as_str()) {
            for device in fs::read_dir(root.join(&path)).unwrap() {
                let device = device.unwrap().file_name();
                link(root, &Path::new("class").join(&name).join(&device), &path.join(&device));
            }
            continue;
        }
        if name.parse::<crate::model::PciAddress>().is_ok() {
            link(root, &Path::new("bus/pci/devices").join(&name), &path);
        }
        link_classes(root, &path);
    }
}
