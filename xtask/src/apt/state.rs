//! apt at work in a folder of our own: lists, packages, and nothing installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};

use super::Archive;
use crate::shell;

/// Where `apt-get download` leaves packages; its working directory.
const DOWNLOAD: &str = "download";
/// Where `apt-get install --download-only` leaves them.
const ARCHIVES: &str = "cache/archives";

/// A state directory for apt that knows one archive and no installed package.
pub(crate) struct State {
    folder: PathBuf,
}

impl State {
    pub(crate) fn make(folder: &Path, archive: &Archive) -> Result<Self> {
        for part in ["sources", "state/lists/partial", "cache/archives/partial", DOWNLOAD] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        }
        let state = Self { folder: folder.to_owned() };
        for (file, content) in
            [("sources/archive.sources", archive.stanza()), ("state/status", String::new())]
        {
            let file = folder.join(file);
            fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(state)
    }

    /// Fetches the lists of what `archive` has.
    pub(crate) fn update(&self, archive: &Archive) -> Result<()> {
        shell::say(&format!(
            "fetching package lists of {} ({}) into a folder of our own",
            archive.uri,
            archive.suites.join(", ")
        ));
        shell::run_quietly(self.tool("apt-get").arg("update"))
    }

    /// Fetches packages, without what they depend on.
    pub(crate) fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        shell::run_quietly(self.tool("apt-get").arg("download").args(packages))?;
        self.packages_in(DOWNLOAD)
    }

    /// Fetches packages of one suite, with everything that they depend on down to the C library.
    pub(crate) fn download_closure(&self, suite: &str, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let mut install = self.tool("apt-get");
        install.args(["--yes", "--target-release", suite, "--no-install-recommends"]);
        shell::run_quietly(install.args(["--download-only", "install"]).args(packages))?;
        self.packages_in(ARCHIVES)
    }

    /// One of apt's programs, set to work on this state only.
    pub(crate) fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, part) in [
            ("Dir::Etc::sourcelist", "sources/none"),
            ("Dir::Etc::sourceparts", "sources"),
            ("Dir::State", "state"),
            ("Dir::State::status", "state/status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{name}={}", self.folder.join(part).display()));
        }
        // Translations and the catalogues of graphical tools are of no use here. As root, apt would
        // become another user, who may not be able to read a folder in root's home.
        command.args(["-q", "-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root"]);
        command.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        command.current_dir(self.folder.join(DOWNLOAD)).env("LC_ALL", "C");
        command
    }

    fn packages_in(&self, part: &str) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join(part);
        let mut packages = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                packages.push(path);
            }
        }
        ensure!(
            !packages.is_empty(),
            "apt-get left no package in {} ({})",
            folder.display(),
            env::consts::ARCH
        );
        Ok(packages)
    }
}

/// Unpacks packages into one folder, and removes their files.
pub(crate) fn unpack(packages: &[PathBuf], folder: &Path) -> Result<()> {
    for package in packages {
        shell::run_quietly(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder))?;
        fs::remove_file(package).with_context(|| format!("remove {}", package.display()))?;
    }
    Ok(())
}
