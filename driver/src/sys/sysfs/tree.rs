//! Small sysfs trees for tests, written as text.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::Sysfs;

/// A sysfs in a temporary directory.
///
/// Its text has a line for each file, link or directory:
///
/// ```text
/// class/net/eth1 -> ../../devices/pci0000:00/0000:00:03.0/net/eth1
/// devices/pci0000:00/0000:00:03.0/numa_node = 1
/// devices/pci0000:00/0000:00:03.0/infiniband/mlx5_0/
/// ```
pub(crate) struct SysfsTree {
    root: tempfile::TempDir,
}

impl SysfsTree {
    pub(crate) fn new(text: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            plant(root.path(), line);
        }
        Self { root }
    }

    /// The same tree without `path` and what is below it.
    pub(crate) fn without(self, path: &str) -> Self {
        fs::remove_dir_all(self.root.path().join(path)).unwrap();
        self
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.root.path()).unwrap()
    }
}

fn plant(root: &Path, line: &str) {
    let make_parent = |path: &Path| fs::create_dir_all(path.parent().unwrap()).unwrap();
    if let Some((path, target)) = line.split_once(" -> ") {
        let path = root.join(path);
        make_parent(&path);
        symlink(target, path).unwrap();
    } else if let Some((path, content)) = line.split_once(" = ") {
        let path = root.join(path);
        make_parent(&path);
        fs::write(path, format!("{content}\n")).unwrap();
    } else {
        assert!(line.ends_with('/'), "neither link, file nor directory: {line}");
        fs::create_dir_all(root.join(line)).unwrap();
    }
}
