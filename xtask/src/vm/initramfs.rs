//! A guest's first files: busybox, our `init`, and the modules that the machine's files are behind.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::kernel::Kernel;

const INIT: &str = include_str!("init.sh");
/// What `init` mounts the machine's files with. Parts of it are built into some kernels.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
const FOLDERS: [&str; 8] = ["bin", "dev", "modules", "new", "proc", "root", "sys", "upper"];

const IS_FOLDER: u32 = 0o040_755;
const IS_PROGRAM: u32 = 0o100_755;
const IS_FILE: u32 = 0o100_644;

/// The archive that the kernel unpacks, not compressed.
pub(super) fn make(kernel: &Kernel, busybox: &Path) -> Result<Vec<u8>> {
    let read = |file: &Path| fs::read(file).with_context(|| format!("read {}", file.display()));
    let text = |name: &str| {
        let file = kernel.modules().join(name);
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, IS_FOLDER, &[]);
    }
    archive.add("bin/busybox", IS_PROGRAM, &read(busybox)?);
    archive.add("init", IS_PROGRAM, INIT.as_bytes());
    let modules = in_order(&text("modules.dep")?, &text("modules.builtin")?)?;
    for (place, module) in modules.iter().enumerate() {
        // The shell expands `*` in the order of names.
        archive.add(
            &format!("modules/{place:02}.ko"),
            IS_FILE,
            &read(&kernel.modules().join(module))?,
        );
    }
    archive.add("modules.path", IS_FILE, format!("{}\n", kernel.modules().display()).as_bytes());
    Ok(archive.finish())
}

/// The files of [`MODULES`] and of what they depend on, in the order in which they can be loaded.
fn in_order(dependencies: &str, builtin: &str) -> Result<Vec<String>> {
    let mut order = Vec::new();
    for name in MODULES {
        let is_it = |path: &str| Path::new(path).file_stem().is_some_and(|stem| stem == name);
        if builtin.lines().any(is_it) {
            continue;
        }
        let mut paths = dependencies.lines().filter_map(|line| line.split(':').next());
        let path = paths.find(|path| is_it(path));
        add_after_its_dependencies(
            path.with_context(|| format!("the kernel has no module {name}"))?,
            dependencies,
            &mut order,
        );
    }
    Ok(order)
}

fn add_after_its_dependencies(path: &str, dependencies: &str, order: &mut Vec<String>) {
    if order.iter().any(|there| there == path) {
        return;
    }
    let line = dependencies.lines().find_map(|line| line.strip_prefix(path)?.strip_prefix(':'));
    for other in line.unwrap_or_default().split_whitespace() {
        add_after_its_dependencies(other, dependencies, order);
    }
    order.push(path.to_owned());
}

/// A cpio archive in the format `newc`, which the kernel reads
/// (`Documentation/driver-api/early-userspace/buffer-format.rst`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: usize,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (inode, mode, size) = (self.entries, mode as usize, content.len());
        // Inode, mode, owner, group, links, time, size, the device of the file and the one that it
        // is (two numbers each), the name's length with its zero byte, and no checksum.
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Names and contents end at multiples of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_depend_on_and_built_in_ones_not_at_all() {
        let dependencies = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n\
            kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio.ko\n\
            kernel/fs/netfs/netfs.ko: kernel/fs/fscache/fscache.ko\nkernel/net/9p/9pnet.ko:\n\
            kernel/fs/overlayfs/overlay.ko:\nkernel/drivers/virtio/virtio.ko:\n";
        let order = in_order(dependencies, "kernel/drivers/virtio/virtio_pci.ko\n").unwrap();
        let names: Vec<_> = order
            .iter()
            .map(|path| path.rsplit('/').next().unwrap().trim_end_matches(".ko"))
            .collect();
        assert_eq!(names, ["9pnet", "virtio", "9pnet_virtio", "fscache", "netfs", "9p", "overlay"]);
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let error = in_order("", "").unwrap_err();
        assert!(error.to_string().contains("virtio_pci"), "{error}");
    }

    #[test]
    fn entries_have_their_lengths_and_are_aligned() {
        let mut archive = Archive::default();
        archive.add("init", IS_PROGRAM, b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.starts_with("07070100000001000081ed0000000000000000"), "{text}");
        // The header has 110 bytes; the name with its zero and the padding goes to 116.
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[94..102], b"00000005");
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
