//! What the runtime ring runs on: containerd, runc and CNI plugins from Debian's packages, fetched and
//! unpacked but never installed, and an image for their containers.

mod cgroups;
mod image;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use self::cgroups::{Cgroups, join, mount_groups};
use crate::apt::{self, Archive, State};
use crate::shell;
use crate::workspace::Workspace;

/// The folder's name in the cache. To be changed whenever what is kept of the packages changes.
const FOLDER: &str = "runtime-1";

/// A containerd that the ring runs on.
pub(crate) struct Release {
    /// What its version starts with.
    pub(crate) series: &'static str,
    /// Debian's suite that has it. To be looked at whenever a suite moves on.
    suite: &'static str,
}

/// The two that differ: their configuration, their NRI, and how they read CDI specifications.
pub(crate) const RELEASES: [Release; 2] =
    [Release { series: "1.7", suite: "trixie" }, Release { series: "2", suite: "sid" }];

/// What comes from the suite.
const PACKAGES: [&str; 2] = ["containerd", "busybox-static"];
/// What comes from the machine's own release: programs that are linked to its libraries. containerd
/// needs the C library only, and an old one.
const OWN_PACKAGES: [&str; 2] = ["runc", "containernetworking-plugins"];

impl Release {
    /// Fetches it, unless it is there, and answers where it is.
    ///
    /// What is there is not refreshed, so that a ring which passed yesterday runs the same runtime
    /// today: removing the folder fetches what is newest then.
    pub(crate) fn ensure(&self, workspace: &Workspace) -> Result<PathBuf> {
        let folder = workspace.cache.join(FOLDER).join(self.suite);
        if !folder.exists() {
            // Beside its final place, so that it can be renamed as a whole.
            let scratch = workspace.cache.join(format!("{FOLDER}.{}", process::id()));
            let outcome = self.fetch(&scratch, &folder);
            // What is left of it is of no use to anyone, and its absence no failure.
            let _ = fs::remove_dir_all(&scratch);
            outcome.with_context(|| format!("fetch containerd {}", self.series))?;
        }
        self.check(&folder)?;
        Ok(folder)
    }

    fn fetch(&self, scratch: &Path, folder: &Path) -> Result<()> {
        let own = codename()?;
        let mut suites = vec![self.suite, &own];
        suites.dedup();
        let archive = Archive::of_debian(&suites)
            .context("the runtime ring takes its runtimes from Debian's archive")?;
        let state = State::make(&scratch.join("apt"), &archive)?;
        state.update(&archive)?;
        let wanted = PACKAGES.map(|package| format!("{package}/{}", self.suite));
        let own = OWN_PACKAGES.map(|package| format!("{package}/{own}"));
        let packages = state.download(&[wanted, own].concat())?;
        shell::say(&format!("fetched containerd and runc ({} packages)", packages.len()));
        let unpacked = scratch.join("unpacked");
        apt::unpack(&packages, &unpacked)?;
        image::make(&unpacked, &scratch.join("image"), &unpacked.join("image.tar"))?;
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        fs::rename(&unpacked, folder)
            .with_context(|| format!("move {} to {}", unpacked.display(), folder.display()))
    }

    /// Whether what was fetched runs here, and is what was wanted.
    fn check(&self, folder: &Path) -> Result<()> {
        let run = |name: &str| {
            let file = program(folder, name)?;
            shell::read(Command::new(file).arg("--version"))
                .with_context(|| format!("{name} of Debian's {} does not run here", self.suite))
        };
        let (containerd, runc) = (run("containerd")?, run("runc")?);
        // `containerd github.com/containerd/containerd/v2 2.1.9+unknown REVISION`
        let version = containerd.split_whitespace().nth(2).unwrap_or_default();
        ensure!(
            version.starts_with(&format!("{}.", self.series)),
            "Debian's {} has containerd {version}, and the ring wants {}: change `RELEASES`, or \
             remove {} if that is old",
            self.suite,
            self.series,
            folder.display()
        );
        let runc = runc.lines().next().unwrap_or_default();
        shell::say(&format!("containerd {version}, {runc}"));
        Ok(())
    }
}

/// Where a program was unpacked to; packages are not of one mind about `/usr`.
fn program(folder: &Path, name: &str) -> Result<PathBuf> {
    let places = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|place| folder.join(place).join(name));
    let found = places.into_iter().find(|file| file.exists());
    found.with_context(|| format!("there is no {name} in {}", folder.display()))
}

/// What the machine's release calls itself.
fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let found = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    match found {
        Some(name) => Ok(name.trim_matches('"').to_owned()),
        None => bail!("/etc/os-release names no release"),
    }
}
