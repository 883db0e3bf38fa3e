//! The cookie of a network namespace: a number that no other namespace gets until the node restarts.
//!
//! Needs the standard library only: it is part of the gate, too, which is a program of its own.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

/// `include/uapi/asm-generic/socket.h`, which x86-64, arm64, ppc64, riscv64 and s390x use.
const SOL_SOCKET: i32 = 1;
/// As above. Since Linux 5.14, for sockets of every family (`sk_getsockopt` in `net/core/sock.c`).
const SO_NETNS_COOKIE: i32 = 71;

unsafe extern "C" {
    /// `getsockopt(2)`, from the C library that the standard library stands on.
    fn getsockopt(fd: i32, level: i32, name: i32, value: *mut c_void, length: *mut u32) -> i32;
}

/// The cookie of the namespace that the calling thread is in. Never 0 (`net_gen_cookie` counts from
/// 1).
///
/// # Errors
///
/// What socket(2) or getsockopt(2) answer; `ENOPROTOOPT` from kernels before 5.14.
pub fn of_this_thread() -> io::Result<u64> {
    of(&UnixDatagram::unbound()?)
}

/// The cookie of the namespace that a socket was opened in.
///
/// # Errors
///
/// What getsockopt(2) answers, as above.
pub fn of(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = 8_u32;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which has as many, and the
    // length itself to `length`; both outlive the call, and the socket is open.
    let outcome = unsafe {
        getsockopt(
            socket.as_raw_fd(),
            SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match outcome {
        0 if length == 8 && cookie != 0 => Ok(cookie),
        0 => Err(io::Error::other(format!("the kernel answered {cookie} in {length} bytes"))),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_keeps_its_cookie() {
        assert_eq!(of_this_thread().unwrap(), of_this_thread().unwrap());
    }
}
