//! Getting into the box: a process that starts itself again, as pid 1 of namespaces of its own.
//!
//! Everything that the box makes (interfaces, mounts, pins, processes) lives in those namespaces,
//! and the namespaces live no longer than the process outside: it is the parent of pid 1, which the
//! kernel kills when that parent dies of whatever cause, and with pid 1 dies every process of the
//! box. So nothing needs tidying up, and no signal can prevent it.

use std::env;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::mount::{self, MsFlags};
use nix::sched::{self, CloneFlags};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// The argument that a program which uses [`outside`] must take, and then call [`inside`].
pub const FLAG: &str = "--inside";

/// Why there is no box.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    #[error("make namespaces (this needs root)")]
    Namespaces(#[source] Errno),
    #[error("start this program again, inside")]
    Start(#[source] io::Error),
    #[error("wait for the process inside")]
    Wait(#[source] io::Error),
    #[error("have this process end with the one outside")]
    Bind(#[source] Errno),
    #[error("mount {what} on {at}")]
    Mount { what: &'static str, at: &'static str, source: Errno },
}

/// Runs this program again inside a new box, with the same arguments and [`FLAG`] in front, and
/// answers how it ended.
///
/// Must be called before any thread is made: what `unshare(2)` changes is the calling thread's.
pub fn outside() -> Result<ExitCode, EnterError> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    sched::unshare(flags).map_err(EnterError::Namespaces)?;
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut child = Command::new("/proc/self/exe")
        .arg0(name)
        .arg(FLAG)
        .args(arguments)
        // Open for as long as this process lives; see `end_with_the_other_side`.
        .stdin(Stdio::piped())
        .spawn()
        .map_err(EnterError::Start)?;
    let lifeline = child.stdin.take();
    let status = child.wait().map_err(EnterError::Wait)?;
    drop(lifeline);
    Ok(exit_code(status))
}

/// Enters the box and furnishes it: mounts that belong to its own namespaces, under which nothing of the machine
/// can be changed by way of `/proc`, `/sys` or `/run`.
///
/// Must be called first thing by the process that has got [`FLAG`].
pub fn inside() -> Result<(), EnterError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(EnterError::Bind)?;
    end_with_the_other_side();
    furnish()
}

/// Mounts what shows the calling thread's own namespaces, in its mount namespace and for nobody
/// else.
pub fn furnish() -> Result<(), EnterError> {
    let none = None::<&Path>;
    mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|source| EnterError::Mount { what: "nothing shared", at: "/", source })?;
    // sysfs shows the network namespace of whoever mounts it, procfs the pids of its namespace.
    for (what, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")] {
        mount::mount(Some(what), at, Some(what), MsFlags::empty(), none)
            .map_err(|source| EnterError::Mount { what, at, source })?;
    }
    Ok(())
}

/// Ends this process, and so the box, when the process outside is gone. The death signal does that
/// too, except where the parent died before it was asked for.
fn end_with_the_other_side() {
    thread::spawn(|| {
        let mut byte = [0];
        // Nothing is ever sent: this returns when the other end is closed.
        let _ = io::stdin().read(&mut byte);
        std::process::exit(EXIT_ABANDONED);
    });
}

/// What nobody is left to see.
const EXIT_ABANDONED: i32 = 125;

fn exit_code(status: ExitStatus) -> ExitCode {
    let signal = || status.signal().map(|signal| 128 + signal);
    let code = status.code().or_else(signal).unwrap_or(1);
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
