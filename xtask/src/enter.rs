//! `cargo xtask enter`: the first process of fresh namespaces, which `unshare` has just made.

use std::ffi::OsString;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::runtime;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Control groups to be in, and to see as the roots of all.
    #[arg(long = "cgroup", value_name = "DIR")]
    cgroups: Vec<PathBuf>,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// The words that, before a command, run it in namespaces of its own: whatever it leaves behind goes
/// with them, whichever way it ends. `xtask` is this program's file.
pub(crate) fn words<'w>(xtask: &'w Path, cgroups: &'w [PathBuf]) -> Result<Vec<&'w str>> {
    let xtask = xtask.to_str().context("the path of this program is not UTF-8")?;
    let mut words = vec!["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork"];
    words.extend(["--kill-child", "--mount-proc", xtask, "enter"]);
    for cgroup in cgroups {
        words.extend(["--cgroup", cgroup.to_str().context("a path is not UTF-8")?]);
    }
    words.push("--");
    Ok(words)
}

/// Runs the command in a place where nothing is shared with the machine but its files.
///
/// This process stays, as process 1: it takes care of orphans, and when it ends the kernel ends
/// every process that is left. As process 1 the command itself would be deaf to Ctrl-C.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !arguments.cgroups.is_empty() {
        runtime::join(&arguments.cgroups)?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // A sysfs shows the interfaces of the namespace that it was mounted in.
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>).context("mount /sys")?;
    if !arguments.cgroups.is_empty() {
        runtime::mount_groups()?;
    }
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some("mode=0755")).context("mount /run")?;
    loopback_up().context("set the loopback interface up")?;

    let (program, words) = arguments.command.split_first().context("there is no command")?;
    let child = Command::new(program)
        .args(words)
        .spawn()
        .with_context(|| format!("run {}", program.display()))?;
    let child = Pid::from_raw(i32::try_from(child.id()).context("a process id is too large")?);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                anyhow::bail!("{} was ended by {signal}", program.display());
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for the command"),
        }
    }
}

/// Length in bytes of the one message that is sent: `struct nlmsghdr` and `struct ifinfomsg`.
const MESSAGE_LEN: u32 = 32;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const IFF_UP: u32 = 1;
/// The kernel gives the loopback interface of every namespace the index 1 (`loopback_net_init`
/// in `drivers/net/loopback.c`).
const LOOPBACK: i32 = 1;

/// Sets `lo` up by route netlink: one message is not worth a dependency on a program or a crate.
fn loopback_up() -> Result<()> {
    let route = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let mut message = Vec::new();
    message.extend(MESSAGE_LEN.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    // Sequence number, and our port, which the kernel fills in.
    message.extend([0; 8]);
    // Address family, padding and device type: unspecified.
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    // The flags, and which of them to change.
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    sendto(route.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;

    // The answer is an NLMSG_ERROR whose code, after the header, is 0 or an errno below zero.
    let mut answer = [0; 128];
    let len = recv(route.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = answer[..len].get(16..20).context("the kernel's answer is too short")?;
    match i32::from_ne_bytes(code.try_into()?) {
        0 => Ok(()),
        code => Err(Errno::from_raw(-code).into()),
    }
}
