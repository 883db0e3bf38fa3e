//! Stub: finds network namespaces.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{self, NSFS_MAGIC};

use crate::model::{NetnsId, NetnsRef};

#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("look at network namespace {}: {source}", .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is no namespace", .path.display())]
    NotNsfs { path: PathBuf },
}

/// A network namespace.
#[derive(Debug)]
pub struct Netns;

impl Netns {
    /// The namespace at `path` if that is one, else that of process `pid`.
    pub fn resolve(path: &Path, pid: Option<u32>) -> Result<NetnsRef, NetnsError> {
        let at = |path: &Path| {
            let open = |source| NetnsError::Open { path: path.to_owned(), source };
            let kind = statfs::statfs(path).map_err(|errno| open(errno.into()))?;
            if kind.filesystem_type() != NSFS_MAGIC {
                return Err(NetnsError::NotNsfs { path: path.to_owned() });
            }
            let found = fs::metadata(path).map_err(open)?;
            let id = NetnsId { device: found.dev(), inode: found.ino() };
            Ok(NetnsRef { path: path.to_owned(), id })
        };
        at(path).or_else(|error| match pid {
            Some(pid) => at(&PathBuf::from(format!("/proc/{pid}/ns/net"))),
            None => Err(error),
        })
    }
}
