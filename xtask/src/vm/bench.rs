//! What guests are made of, kept in the cache: QEMU, busybox and kernels, fetched and unpacked but
//! never installed.

use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::{env, fs};

use anyhow::{Context as _, Result};

use super::kernel::{self, Kernel};
use crate::apt::{self, Archive, State};
use crate::shell;
use crate::workspace::Workspace;

/// The folder's name in the cache. To be changed whenever what is kept of the packages changes.
const FOLDER: &str = "vm-2";
/// Where the kernels are; the first also carries the oldest of them.
const SUITES: [&str; 3] = ["bookworm", "trixie", "trixie-backports"];
/// Where QEMU is from. It comes with its C library, so that it does not matter what the machine has.
const TOOLS_SUITE: &str = "trixie";
/// Beside QEMU and what `init` runs, what tests run in guests: `rping` and libibverbs' part for rxe, and
/// an `ip` that knows all kinds of links.
const TOOLS: [&str; 5] =
    ["qemu-system-x86", "busybox-static", "rdmacm-utils", "ibverbs-providers", "iproute2"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

pub(crate) struct Bench {
    folder: PathBuf,
}

impl Bench {
    /// Fetches what is missing for kernels of these series. Where nothing is, it only looks.
    ///
    /// What is there is not refreshed, so that a ring which passed yesterday runs the same kernels
    /// today: removing the folder fetches what is newest then.
    pub(crate) fn ensure(workspace: &Workspace, series: &[String]) -> Result<Self> {
        let bench = Self { folder: workspace.cache.join(FOLDER) };
        let missing: Vec<_> =
            series.iter().filter(|series| !bench.kernel_folder(series).exists()).collect();
        if missing.is_empty() && bench.tools().exists() {
            return Ok(bench);
        }
        let archive = Archive::of_debian(&SUITES)
            .context("the vm ring takes its kernels from Debian's archive")?;
        // Beside its final place, so that each part can be renamed as a whole.
        let scratch = workspace.cache.join(format!("{FOLDER}.{}", process::id()));
        let outcome = bench.fetch(&scratch, &archive, &missing);
        // What is left of it is of no use to anyone, and its absence no failure.
        let _ = fs::remove_dir_all(&scratch);
        outcome.map(|()| bench)
    }

    fn fetch(&self, scratch: &Path, archive: &Archive, series: &[&String]) -> Result<()> {
        let state = State::make(&scratch.join("apt"), archive)?;
        state.update(archive)?;
        if !self.tools().exists() {
            let packages = state.download_closure(TOOLS_SUITE, &TOOLS).context("fetch QEMU")?;
            shell::say(&format!(
                "fetched QEMU, tools and their libraries ({} MB)",
                megabytes(&packages)?
            ));
            let unpacked = scratch.join("tools");
            apt::unpack(&packages, &unpacked)?;
            put(&unpacked, &self.tools())?;
        }
        let listing = shell::read(state.tool("apt-cache").args([
            "search",
            "--names-only",
            kernel::PACKAGES,
        ]))?;
        for series in series {
            let what = || format!("fetch a kernel {series} from {}", archive.uri);
            let release = kernel::newest(&listing, series)
                .with_context(|| format!("none of {} has one", archive.suites.join(", ")))
                .with_context(what)?;
            let packages =
                state.download(&kernel::packages(&listing, &release)).with_context(what)?;
            shell::say(&format!("fetched Linux {release} ({} MB)", megabytes(&packages)?));
            let (unpacked, kept) = (scratch.join("unpacked"), scratch.join(series));
            apt::unpack(&packages, &unpacked)?;
            kernel::keep(&unpacked, &kept, &release, &self.busybox())
                .with_context(|| format!("unpack Linux {release}"))?;
            fs::remove_dir_all(&unpacked)
                .with_context(|| format!("remove {}", unpacked.display()))?;
            put(&kept, &self.kernel_folder(series))?;
        }
        Ok(())
    }

    pub(crate) fn kernel(&self, series: &str) -> Result<Kernel> {
        Kernel::open(self.kernel_folder(series))
    }

    /// A program of its own, without libraries: shell, module loader and what else a guest needs
    /// before it has the machine's files.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.tools().join("usr/bin/busybox")
    }

    /// QEMU, on its own libraries and firmware.
    ///
    /// It ends when its parent does, whichever way that is.
    pub(crate) fn qemu(&self) -> Command {
        let tools = self.tools();
        let libraries = tools.join(LIBRARIES);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(libraries.join("ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries);
        command.arg(tools.join("usr/bin/qemu-system-x86_64"));
        for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(tools.join(firmware));
        }
        command.env("QEMU_MODULE_DIR", libraries.join("qemu")).env_remove("LD_LIBRARY_PATH");
        command.current_dir(env::temp_dir());
        command
    }

    /// Where the packages were unpacked to. Programs among them need their own loader and libraries.
    pub(super) fn tools(&self) -> PathBuf {
        self.folder.join("tools")
    }

    fn kernel_folder(&self, series: &str) -> PathBuf {
        self.folder.join("kernels").join(series)
    }
}

/// Moves a folder to its final place.
fn put(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::rename(from, to).with_context(|| format!("move {} to {}", from.display(), to.display()))
}

fn megabytes(files: &[PathBuf]) -> Result<u64> {
    let mut bytes = 0;
    for file in files {
        bytes += file.metadata().with_context(|| format!("look at {}", file.display()))?.len();
    }
    Ok(bytes / 1_000_000)
}
