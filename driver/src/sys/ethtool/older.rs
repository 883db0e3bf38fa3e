//! What the older interface of ethtool answers, by ioctl: tests read back by other means than ours.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use nix::libc;

use super::driver::REQUEST;
use crate::model::IfName;

/// Numbers that the longest of the answers below has, and some more.
const LEN: usize = 32;

/// A command of `include/uapi/linux/ethtool.h` whose answer is numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Older {
    Coalesce = 0xe,
    RxChecksum = 0x14,
    Tso = 0x1e,
    Gso = 0x23,
    Gro = 0x2b,
    Channels = 0x3c,
}

/// What the kernel answers about an interface of the calling thread's namespace. The first number is
/// the command.
pub fn ask_older(interface: &IfName, command: Older) -> io::Result<[u32; LEN]> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut answer = [0_u32; LEN];
    answer[0] = command as u32;
    // SAFETY: all zeroes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.as_str().bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = answer.as_mut_ptr().cast();
    // SAFETY: `request` names `answer`, which is longer than what any of the commands answers, and
    // both live until this returns.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), REQUEST, &raw mut request) };
    if status == 0 { Ok(answer) } else { Err(io::Error::last_os_error()) }
}
