//! What a driver says of itself. That is older than netlink, and an ioctl is the only way to it.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use nix::libc;

use crate::model::IfName;
use crate::sys::asked;

/// `SIOCETHTOOL` (`include/uapi/linux/sockios.h`).
pub(super) const REQUEST: libc::Ioctl = 0x8946;
/// `ETHTOOL_GDRVINFO` (`include/uapi/linux/ethtool.h`).
const GET_DRIVER: u32 = 3;

/// `struct ethtool_drvinfo`, in the same file.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    rest: [u8; 32 + 32 + 12 + 5 * 4],
}

/// What a driver says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DriverFacts {
    pub driver: Option<String>,
    /// Of the firmware in the device.
    pub firmware: Option<String>,
}

/// What the driver of an interface of the calling thread's namespace says of itself. `None` where
/// there is no such interface, or its driver says nothing.
///
/// The kernel holds its lock on all interfaces meanwhile (`dev_ethtool()` in `net/ethtool/ioctl.c`,
/// Linux 6.12).
pub fn driver(interface: &IfName) -> io::Result<Option<DriverFacts>> {
    asked::note();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut answer = DriverInfo {
        command: GET_DRIVER,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        rest: [0; 96],
    };
    // SAFETY: all zeroes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.as_str().bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut answer).cast();
    // SAFETY: `request` names `answer`, which is as long as what the command answers, and both live
    // until this returns.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), REQUEST, &raw mut request) };
    if status == 0 {
        let facts = DriverFacts { driver: said(&answer.driver), firmware: said(&answer.firmware) };
        return Ok(Some(facts));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::EOPNOTSUPP) => Ok(None),
        _ => Err(error),
    }
}

/// A text up to its NUL. `None` for nothing, and for `N/A`, by which drivers say that too.
fn said(text: &[u8]) -> Option<String> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text).trim().to_owned();
    (!text.is_empty() && !text.eq_ignore_ascii_case("n/a")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_nothing_however_it_is_said() {
        for nothing in [&b""[..], b"\0abc", b"  \0", b"N/A\0", b"n/a"] {
            assert_eq!(said(nothing), None, "{nothing:?}");
        }
        assert_eq!(said(b"28.39.1002 (MT_0000000834)\0\0").unwrap(), "28.39.1002 (MT_0000000834)");
        assert_eq!(size_of::<DriverInfo>(), 196);
    }
}
