//! Settings of a namespace's network stack below `/proc/sys/net`.
//!
//! What `/proc/sys/net` shows is the namespace of whoever looks a name up in it
//! (`net_ctl_header_lookup()` in `net/sysctl_net.c`, Linux 6.12). A directory below stays that of the
//! namespace where it was opened, whoever uses it later (kernel ring:
//! `a_sysctl_directory_stays_in_its_namespace`).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::sys::netns::{Netns, NetnsError};

/// The settings of one namespace. Holds directories open, which does not keep the namespace alive.
#[derive(Debug)]
pub struct Sysctls {
    ipv4: File,
    /// `None` where the kernel has no IPv6.
    ipv6: Option<File>,
}

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    #[error("open /proc/sys/net/{family}")]
    Open { family: &'static str, source: io::Error },

    #[error("visit the namespace")]
    Visit(#[from] NetnsError),

    #[error("{0:?} is no setting of ipv4 or ipv6")]
    Name(String),

    #[error("read net/{name}")]
    Read { name: String, source: io::Error },

    #[error("write {value:?} to net/{name}")]
    Write { name: String, value: String, source: io::Error },
}

impl Sysctls {
    /// Those of the calling thread's namespace.
    pub fn of_this_thread() -> Result<Self, SysctlError> {
        let directory = |family: &'static str| {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let path = Path::new("/proc/sys/net").join(family);
            open(&path, flags, Mode::empty()).map(File::from).map_err(|errno| (family, errno))
        };
        let error =
            |(family, errno): (_, Errno)| SysctlError::Open { family, source: errno.into() };
        let ipv6 = match directory("ipv6") {
            Ok(directory) => Some(directory),
            Err((_, Errno::ENOENT)) => None,
            Err(other) => return Err(error(other)),
        };
        Ok(Self { ipv4: directory("ipv4").map_err(error)?, ipv6 })
    }

    /// Those of `netns`, by a short visit.
    pub fn of(netns: &Netns) -> Result<Self, SysctlError> {
        netns.run(|_| Self::of_this_thread())?
    }

    /// What a setting such as `ipv4/conf/eth0/rp_filter` is, without the end of its line.
    ///
    /// # Errors
    ///
    /// [`SysctlError::is_absent`] where there is no such setting, or no such interface.
    pub fn read(&self, name: &str) -> Result<String, SysctlError> {
        let mut text = String::new();
        self.open(name, OFlag::O_RDONLY)?
            .read_to_string(&mut text)
            .map_err(|source| SysctlError::Read { name: name.to_owned(), source })?;
        Ok(text.trim_end().to_owned())
    }

    pub fn write(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        self.open(name, OFlag::O_WRONLY)?.write_all(value.as_bytes()).map_err(|source| {
            SysctlError::Write { name: name.to_owned(), value: value.to_owned(), source }
        })
    }

    fn open(&self, name: &str, flags: OFlag) -> Result<File, SysctlError> {
        let error =
            |errno: Errno| SysctlError::Read { name: name.to_owned(), source: errno.into() };
        let (family, rest) = split(name).ok_or_else(|| SysctlError::Name(name.to_owned()))?;
        let directory = match family {
            "ipv4" => &self.ipv4,
            _ => self.ipv6.as_ref().ok_or_else(|| error(Errno::ENOENT))?,
        };
        openat(directory, rest, flags | OFlag::O_CLOEXEC, Mode::empty())
            .map(File::from)
            .map_err(error)
    }
}

/// The family of a setting and the rest of its name, which leads nowhere else.
fn split(name: &str) -> Option<(&str, &str)> {
    let (family, rest) = name.split_once('/')?;
    let is_plain = rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (matches!(family, "ipv4" | "ipv6") && is_plain).then_some((family, rest))
}

impl SysctlError {
    /// Whether there is no such setting here: the kernel has none, or the interface is gone.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_below_its_family() {
        assert_eq!(split("ipv4/conf/eth0.5/rp_filter"), Some(("ipv4", "conf/eth0.5/rp_filter")));
        for bad in ["ipv4", "core/somaxconn", "ipv4/../../kernel/panic", "ipv6//etc", "ipv4/./x"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
