//! Debian's kernels: which packages, and what is kept of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;

/// What the ring boots by default: the oldest kernel that we support, the two long-term ones that
/// follow, and the newest there is.
pub(crate) const SERIES: [&str; 4] = ["6.1", "6.12", "6.18", "7"];

/// What apt is asked for: kernels of all flavours. From 6.19 on the image, the modules and the lists of
/// them are apart.
pub(super) const PACKAGES: &str = "^linux-(image|binary|modules|base)-[0-9]";
const FLAVOUR: &str = "-amd64";

/// Folders of modules that guests may need: links, queueing, RDMA, what hands functions over, what
/// those stand on, and the way to their files.
const KEPT: [&str; 19] = [
    "arch",
    "crypto",
    "drivers/dca",
    "drivers/i2c",
    "drivers/infiniband/core",
    "drivers/infiniband/sw",
    "drivers/iommu",
    "drivers/net",
    "drivers/ptp",
    "drivers/vfio",
    "drivers/virtio",
    "fs/9p",
    "fs/configfs",
    "fs/fscache",
    "fs/netfs",
    "fs/overlayfs",
    "lib",
    "net",
    "virt",
];
/// Folders within them that are large, and drive hardware that no guest has; but for those of their
/// own that are named.
const DROPPED: [(&str, &[&str]); 8] = [
    ("drivers/i2c", &["algos"]),
    ("drivers/net/can", &[]),
    ("drivers/net/ethernet", &["intel"]),
    ("drivers/net/ethernet/intel", &["igb", "igbvf"]),
    ("drivers/net/usb", &[]),
    ("drivers/net/wireless", &[]),
    ("net/mac80211", &[]),
    ("net/wireless", &[]),
];

/// The newest release of `series` in the output of `apt-cache search`, as `uname -r` has it.
pub(super) fn newest(listing: &str, series: &str) -> Option<String> {
    let wanted = numbers(series)?;
    let releases = packages_in(listing).filter_map(|package| package.strip_prefix("linux-image-"));
    let candidates = releases.filter_map(|release| {
        let version = numbers(release.strip_suffix(FLAVOUR)?)?;
        // Two numbers are the name of a series: a package that depends on its newest kernel.
        (version.len() > 2 && version.starts_with(&wanted)).then_some((version, release))
    });
    candidates.max().map(|(_, release)| release.to_owned())
}

/// The packages that hold the kernel `release` and its modules.
pub(super) fn packages(listing: &str, release: &str) -> Vec<String> {
    let apart = ["binary", "modules", "base"].map(|part| format!("linux-{part}-{release}"));
    if apart.iter().all(|wanted| packages_in(listing).any(|package| package == wanted)) {
        return apart.to_vec();
    }
    vec![format!("linux-image-{release}")]
}

fn packages_in(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| line.split_whitespace().next())
}

/// The numbers of a release without its flavour, such as 6, 1, 0 and 50 of `6.1.0-50`, or 7, 3, 4 and
/// 13 of `7.3.4+deb13`. None for another flavour, whose name follows.
fn numbers(release: &str) -> Option<Vec<u32>> {
    release.replace("+deb", ".").split(['.', '-']).map(|number| number.parse().ok()).collect()
}

/// A kernel in the cache.
pub(crate) struct Kernel {
    /// As `uname -r` has it.
    pub(crate) release: String,
    folder: PathBuf,
}

impl Kernel {
    pub(super) fn open(folder: PathBuf) -> Result<Self> {
        let modules = folder.join("lib/modules");
        let mut entries =
            fs::read_dir(&modules).with_context(|| format!("read {}", modules.display()))?;
        let entry = entries.next().with_context(|| format!("{} is empty", modules.display()))?;
        let release = entry?.file_name().to_string_lossy().into_owned();
        Ok(Self { release, folder })
    }

    /// Whether it has what came with this release of Linux.
    pub(super) fn is_from(&self, since: [u32; 2]) -> bool {
        is_from(&self.release, since)
    }

    pub(super) fn image(&self) -> PathBuf {
        image(&self.folder)
    }

    pub(super) fn modules(&self) -> PathBuf {
        modules(&self.folder, &self.release)
    }
}

fn is_from(release: &str, [major, minor]: [u32; 2]) -> bool {
    let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    (parts.next(), parts.next()) >= (Some(major), Some(minor))
}

fn image(folder: &Path) -> PathBuf {
    folder.join("vmlinuz")
}

fn modules(folder: &Path, release: &str) -> PathBuf {
    folder.join("lib/modules").join(release)
}

/// Moves what guests need of the packages that were unpacked, and makes the indexes that an
/// installation would have made.
pub(super) fn keep(from: &Path, to: &Path, release: &str, busybox: &Path) -> Result<()> {
    let (old, new) = (find_modules(from, release)?, modules(to, release));
    let images = [from.join("boot").join(format!("vmlinuz-{release}")), old.join("vmlinuz")];
    let found = images.iter().find(|image| image.exists()).context("there is no vmlinuz")?;
    rename(found, &image(to))?;
    for (name, but) in DROPPED {
        drop_all(&old.join("kernel").join(name), but)?;
    }
    for name in KEPT.map(|name| Path::new("kernel").join(name)) {
        // Not every kernel has all of them.
        if old.join(&name).exists() {
            rename(&old.join(&name), &new.join(&name))?;
        }
    }
    for name in ["modules.builtin", "modules.order"] {
        rename(&old.join(name), &new.join(name))?;
    }
    let mut compressed = Vec::new();
    find_compressed(&new, &mut compressed)?;
    if !compressed.is_empty() {
        shell::run_quietly(Command::new(busybox).arg("unxz").args(&compressed))?;
    }
    shell::run_quietly(Command::new(busybox).args(["depmod", "-b"]).arg(to).arg(release))
}

/// Removes what is in `folder`, but for what is called `but`. Not every kernel has the folder.
fn drop_all(folder: &Path, but: &[&str]) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
        if but.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

fn find_modules(unpacked: &Path, release: &str) -> Result<PathBuf> {
    let folders = ["", "usr"].map(|prefix| modules(&unpacked.join(prefix), release));
    let [old, new] = &folders;
    folders
        .iter()
        .find(|folder| folder.join("kernel").exists())
        .cloned()
        .with_context(|| format!("neither {} nor {} is there", old.display(), new.display()))
}

fn find_compressed(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
        if path.is_dir() {
            find_compressed(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "xz") {
            found.push(path);
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::rename(from, to).with_context(|| format!("move {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "linux-image-6.1.0-9-amd64 - Linux 6.1 for 64-bit PCs (signed)\n\
        linux-image-6.1.0-50-amd64 - Linux 6.1 for 64-bit PCs (signed)\n\
        linux-image-6.1.0-51-amd64-unsigned - Linux 6.1 for 64-bit PCs\n\
        linux-image-6.1.0-52-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
        linux-image-6.12-amd64 - newest Linux 6.12\n\
        linux-image-6.12.90+deb13-amd64 - Linux 6.12\n\
        linux-image-6.12.90+deb13.1-amd64 - Linux 6.12\n\
        linux-image-7.3.4+deb13-amd64 - Linux 7.3\nlinux-image-7.10.1+deb13-amd64 - Linux 7.10\n\
        linux-binary-7.10.1+deb13-amd64 - Linux 7.10\n\
        linux-modules-7.10.1+deb13-amd64 - Linux 7.10\n\
        linux-base-7.10.1+deb13-amd64 - Linux 7.10\n\
        linux-base-6.1.0-50-amd64 - Linux 6.1\n";

    #[test]
    fn the_newest_of_a_series_is_chosen_by_its_numbers() {
        for (series, release) in [
            ("6.1", Some("6.1.0-50-amd64")),
            ("6.12", Some("6.12.90+deb13.1-amd64")),
            ("7", Some("7.10.1+deb13-amd64")),
            ("6.18", None),
        ] {
            assert_eq!(newest(LISTING, series).as_deref(), release, "{series}");
        }
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, is_from_6_6) in [
            ("6.1.0-50-amd64", false),
            ("6.6.1-amd64", true),
            ("6.12.90+deb13.1-amd64", true),
            ("7.3.4+deb13-amd64", true),
        ] {
            assert_eq!(is_from(release, [6, 6]), is_from_6_6, "{release}");
        }
    }

    #[test]
    fn a_kernel_is_one_package_or_an_image_and_its_modules() {
        let packages = |release| packages(LISTING, release);
        assert_eq!(packages("6.1.0-50-amd64"), ["linux-image-6.1.0-50-amd64"]);
        assert_eq!(
            packages("7.10.1+deb13-amd64"),
            ["binary", "modules", "base"].map(|part| format!("linux-{part}-7.10.1+deb13-amd64"))
        );
    }
}
