//! One guest: its virtual machine, and the script that it runs.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{env, io, thread};

use anyhow::{Context as _, Result};

use super::bench::Bench;
use super::hardware;
use super::initramfs;
use super::kernel::Kernel;
use crate::{enter, shell};

/// How long a guest may take. It is about thirty times slower than the machine.
pub(super) const LIMIT: Duration = Duration::from_mins(20);

/// How long one may take until its command begins; in a quiet machine it is ten seconds. Emulated timers
/// of one of several processors stop now and then while it boots, and the kernel waits for ever for what
/// that one is to do: such a guest is booted anew.
const BOOT_LIMIT: Duration = Duration::from_mins(3);

/// How often a guest is booted before that is an error.
pub(super) const BOOTS: usize = 3;

/// The kernel's command line. Whatever goes wrong in the kernel ends the guest at once, and what only
/// makes an emulated machine slower is off.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet oops=panic panic=-1 mitigations=off no_timer_check";

/// Variables that the tests see: where programs and libraries are, and what they are told. Not all
/// that there are, because they are written to a file.
const PASSED_ON: [&str; 5] = ["HOME", "LD_LIBRARY_PATH", "PATH", "RUST_", "WEIR_"];

/// How a guest ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// The command in it ended, with this status.
    Exited(i32),
    /// It had to be stopped.
    TimedOut,
    /// Its command did not begin, however often it was booted.
    Stuck,
    /// It ended by itself and said nothing about the command: the kernel panicked, or `init` failed.
    Died,
}

pub(super) struct Guest<'a> {
    pub(super) bench: &'a Bench,
    pub(super) kernel: &'a Kernel,
    /// What the ring calls the kernel.
    pub(super) series: &'a str,
    /// Where there is a container runtime.
    pub(super) containerd: &'a Path,
    /// A folder of its own that it can write to.
    pub(super) share: &'a Path,
}

impl Guest<'_> {
    /// What the command wrote.
    pub(super) fn output(&self) -> PathBuf {
        self.share.join("output")
    }

    /// What the kernel and `init` wrote.
    pub(super) fn console(&self) -> PathBuf {
        self.share.join("console")
    }

    /// Boots, runs `command` by `xtask enter` in fresh namespaces, and waits for the end.
    pub(super) fn run(&self, xtask: &Path, command: &[OsString]) -> Result<Ending> {
        self.furnish(xtask, command)?;
        for _ in 0..BOOTS {
            let ending = self.boot()?;
            if ending != Ending::Stuck {
                return Ok(ending);
            }
            shell::say(&format!("{}: does not come up", self.kernel.release));
        }
        Ok(Ending::Stuck)
    }

    /// Makes the folder that the guest can write to anew, and everything in it that it boots from.
    fn furnish(&self, xtask: &Path, command: &[OsString]) -> Result<()> {
        match fs::remove_dir_all(self.share) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", self.share.display()));
            }
            _ => fs::create_dir_all(self.share)
                .with_context(|| format!("create {}", self.share.display()))?,
        }
        let write = |name: &str, content: &[u8]| {
            let file = self.share.join(name);
            fs::write(&file, content).with_context(|| format!("write {}", file.display()))
        };
        let words = enter::words(xtask, &[])?.into_iter().map(OsString::from);
        let words: Vec<_> = words.chain(command.iter().cloned()).collect();
        let folder = env::current_dir().context("find the current folder")?;
        let told = [
            // Where `init` keeps it.
            ("WEIR_MACHINE".into(), "/dev/machine".into()),
            ("WEIR_CONTAINERD".into(), self.containerd.into()),
            ("WEIR_SHARE".into(), "/dev/share".into()),
            ("WEIR_SERIES".into(), self.series.into()),
            ("WEIR_TOOLS".into(), self.bench.tools().into_os_string()),
        ];
        write("run", script(&folder, env::vars_os().chain(told), &words)?.as_bytes())?;
        write("initramfs", &initramfs::make(self.kernel, &self.bench.busybox())?)
    }

    fn boot(&self) -> Result<Ending> {
        let console = self.console();
        let console =
            File::create(&console).with_context(|| format!("create {}", console.display()))?;
        let mut qemu = self.bench.qemu();
        qemu.args(arguments(&self.kernel.image(), &self.share.join("initramfs"), self.share));
        qemu.stdin(Stdio::null());
        qemu.stderr(console.try_clone().context("share the console's file")?).stdout(console);
        let mut qemu = qemu.spawn().context("run QEMU")?;
        let start = Instant::now();
        let mut has_begun = false;
        while qemu.try_wait()?.is_none() {
            has_begun = has_begun || self.output().exists();
            let ending = match start.elapsed() {
                taken if taken > LIMIT => Some(Ending::TimedOut),
                taken if taken > BOOT_LIMIT && !has_begun => Some(Ending::Stuck),
                _ => None,
            };
            if let Some(ending) = ending {
                qemu.kill()?;
                qemu.wait()?;
                return Ok(ending);
            }
            thread::sleep(Duration::from_millis(100));
        }
        let status = fs::read_to_string(self.share.join("status")).unwrap_or_default();
        Ok(status.trim().parse().map_or(Ending::Died, Ending::Exited))
    }
}

/// QEMU's command line.
///
/// Never by KVM, even where its device is there: a ring that is slow everywhere is better than one that
/// hangs on machines whose KVM is not what it seems. Emulating page tables of five levels costs a fifth.
fn arguments(kernel: &Path, initramfs: &Path, share: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = [
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max,la57=off",
        "-M",
        "q35",
        "-nodefaults",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
    ]
    .map(OsString::from)
    .to_vec();
    let words = format!("{KERNEL_ARGUMENTS} {}", hardware::KERNEL_ARGUMENTS);
    arguments.extend(["-append".into(), words.into()]);
    arguments.extend(["-kernel".into(), kernel.into(), "-initrd".into(), initramfs.into()]);
    // File systems below the root have inode numbers of their own.
    for (folder, options) in
        [(Path::new("/"), "mount_tag=root,readonly=on,multidevs=remap"), (share, "mount_tag=share")]
    {
        let folder = folder.display().to_string().replace(',', ",,");
        let value = format!("local,path={folder},security_model=none,{options}");
        arguments.extend(["-virtfs".into(), value.into()]);
    }
    // Comes last: of several buses, QEMU puts what is not told where on the one that it knows last.
    arguments.extend(hardware::arguments().map(OsString::from));
    arguments
}

/// What the guest runs once it has its files: the command, with its output and its status left in
/// the share.
fn script(
    folder: &Path,
    environment: impl Iterator<Item = (OsString, OsString)>,
    words: &[OsString],
) -> Result<String> {
    let mut lines = Vec::new();
    for (name, value) in environment {
        let name = name.to_string_lossy();
        if PASSED_ON.iter().any(|prefix| name.starts_with(prefix)) {
            lines.push(format!("export {name}={}", quoted(&value)?));
        }
    }
    let words = words.iter().map(|word| quoted(word)).collect::<Result<Vec<_>>>()?.join(" ");
    lines.push(format!("cd {}", quoted(folder.as_os_str())?));
    lines.push(format!("{words} </dev/null >/run/guest/output 2>&1"));
    lines.push("echo $? >/run/guest/status".to_owned());
    lines.push("/run/busybox sync".to_owned());
    lines.push("/run/busybox poweroff -f\n".to_owned());
    Ok(lines.join("\n"))
}

/// A word as a shell reads it back.
fn quoted(word: &OsStr) -> Result<String> {
    let word = word.to_str().with_context(|| format!("{} is not UTF-8", word.display()))?;
    Ok(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_emulated_and_can_write_to_its_share_only() {
        let arguments = arguments(Path::new("/k"), Path::new("/i"), Path::new("/a,b"));
        let text = arguments.join(OsStr::new(" ")).into_string().unwrap();
        assert!(text.starts_with("-accel tcg,"), "{text}");
        assert!(!text.contains("kvm"), "{text}");
        assert!(text.contains("-kernel /k -initrd /i "), "{text}");
        let root = "-virtfs local,path=/,security_model=none,mount_tag=root,readonly=on";
        assert!(text.contains(root), "{text}");
        let share = "-virtfs local,path=/a,,b,security_model=none,mount_tag=share";
        assert!(text.contains(share), "{text}");
    }

    #[test]
    fn the_script_quotes_and_passes_on_what_tests_are_told() {
        let environment = [("WEIR_BINARY", "/it's"), ("SECRET", "x")];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        let words = ["/t".into(), "a b".into()];
        let script = script(Path::new("/f"), environment.into_iter(), &words).unwrap();
        let expected = "export WEIR_BINARY='/it'\\''s'\ncd '/f'\n'/t' 'a b' </dev/null >";
        assert!(script.starts_with(expected), "{script}");
        assert!(!script.contains("SECRET"), "{script}");
    }
}
