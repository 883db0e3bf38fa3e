//! Has the kernel keep from a socket what nobody would read.

use std::io;
use std::os::fd::AsRawFd as _;

use netlink_sys::Socket;
use nix::libc;

// Offsets in `struct nlmsghdr`, `struct tcmsg` and `struct nlattr`
// (`include/uapi/linux/netlink.h` and `rtnetlink.h`).
const KIND_AT: u32 = 16 + 20 + 4;

/// Lets through only news of filters and qdiscs whose kinds begin with one of these. The kind is their first
/// attribute (`tcf_fill_node()` in `net/sched/cls_api.c`, `tc_fill_qdisc()` in `sch_api.c`, Linux
/// 6.12).
pub(super) fn only_of_kinds<const N: usize>(
    socket: &Socket,
    kinds: [[u8; 4]; N],
) -> io::Result<()> {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Codes from include/uapi/linux/bpf_common.h.
    let mut program = vec![step(0x20, 0, 0, KIND_AT)]; // ld kind; what is shorter is refused
    for kind in kinds {
        // The next one, or past it.
        program.push(step(0x15, 0, 1, u32::from_be_bytes(kind)));
        program.push(step(0x06, 0, 0, u32::MAX)); // take all of it
    }
    program.push(step(0x06, 0, 0, 0)); // refuse
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let length = libc::socklen_t::try_from(size_of_val(&program)).map_err(io::Error::other)?;
    // SAFETY: `program` and what it points to live until the call is over, of the lengths that are
    // passed; the kernel copies them.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
