//! A real container runtime: Debian's containerd, unpacked and run from a folder, on a node in a box.
//!
//! It has everything of its own below one directory on the box's tmpfs, but for control groups, which
//! `cargo xtask test --ring runtime` makes. What it is asked goes by [`Cri`].

mod config;
mod cri;

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{self, MsFlags};

pub use self::cri::{Cri, Pod};
use crate::sandbox::{self, Process};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_mins(1);
/// What a plugin of NRI has for an event unless a runtime is told otherwise (`DefaultPluginRequestTimeout`
/// in `pkg/adaptation/plugin.go` of NRI 0.8).
pub const EVENT_SECONDS: u32 = 2;
const GROUPS: &str = "/sys/fs/cgroup";

/// Furnishes the box of the calling thread, and leaves the control groups in it that were there.
pub fn furnish() -> Result<()> {
    let groups = fs::File::open(GROUPS).with_context(|| format!("open {GROUPS}"))?;
    sandbox::furnish()?;
    let open = format!("/proc/thread-self/fd/{}", groups.as_raw_fd());
    let none = None::<&Path>;
    mount::mount(Some(open.as_str()), GROUPS, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("mount {GROUPS} again"))
}

/// containerd and where it keeps what it has.
#[derive(Debug)]
pub struct Containerd {
    /// The unpacked packages.
    packages: PathBuf,
    root: PathBuf,
    process: Process,
}

impl Containerd {
    /// Prepares one from `packages` that keeps everything below `root` and looks for CDI
    /// specifications in `cdi`. A plugin of NRI may take `event_seconds` for an event. It does not run yet.
    pub fn new(packages: &Path, root: &Path, cdi: &Path, event_seconds: u32) -> Result<Self> {
        for folder in [root, &root.join("cni"), cdi] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let program = program(packages, "containerd")?;
        let version = Command::new(&program).arg("--version").output()?.stdout;
        let is_first = String::from_utf8_lossy(&version).contains(" 1.");
        let file = root.join("config.toml");
        fs::write(&file, config::daemon(is_first, packages, root, cdi, event_seconds))?;
        fs::write(root.join("cni").join("10-bridge.conflist"), config::NETWORK)?;
        let path = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|part| packages.join(part));
        let path = path.iter().map(|part| part.display().to_string()).collect::<Vec<_>>();
        // It finds runc and its shim by the search path, and they what they need.
        let path = format!("PATH={}:{}", path.join(":"), std::env::var("PATH").unwrap_or_default());
        let words: Vec<OsString> =
            vec![path.into(), program.into(), "--config".into(), file.into()];
        let process = Process::new("/usr/bin/env".into(), words, root.join("containerd.log"));
        Ok(Self { packages: packages.to_owned(), root: root.to_owned(), process })
    }

    pub fn socket(&self) -> PathBuf {
        self.root.join("containerd.sock")
    }

    pub fn nri_socket(&self) -> PathBuf {
        self.root.join("nri.sock")
    }

    /// Starts it and waits until it listens. Pods that are there go on.
    pub fn start(&mut self) -> Result<()> {
        self.process.start()?;
        let started = Instant::now();
        let sockets = [self.socket(), self.nri_socket()];
        while !sockets.iter().all(|socket| UnixStream::connect(socket).is_ok()) {
            self.process.check()?;
            let log = || self.process.log_tail();
            ensure!(started.elapsed() < PATIENCE, "containerd does not listen:\n{}", log());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Gives it the images of sandboxes and containers.
    pub fn import_images(&self) -> Result<()> {
        let mut ctr = Command::new(program(&self.packages, "ctr")?);
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]);
        // Unpacked when the first container is made, by who knows how.
        ctr.args(["images", "import", "--no-unpack"]);
        let output = ctr.arg(self.packages.join("image.tar")).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctr ended with {}: {said}", output.status);
        Ok(())
    }

    /// Kills it. Pods go on.
    pub fn kill(&mut self) -> Result<()> {
        Ok(self.process.kill()?)
    }

    /// The last lines that it printed.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

fn program(packages: &Path, name: &str) -> Result<PathBuf> {
    let places = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|part| packages.join(part).join(name));
    let found = places.into_iter().find(|file| file.exists());
    found.with_context(|| format!("there is no {name} in {}", packages.display()))
}
