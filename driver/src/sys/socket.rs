//! Unix sockets that only root, and whoever we are ourselves, can reach.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use tokio::net::{UnixListener, UnixStream};

/// Longest path of a socket in bytes: `sun_path` of `sockaddr_un` less the terminating NUL.
pub const MAX_PATH_LEN: usize = 107;

/// A socket's place in the file system. Dropping it changes nothing.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

/// How many bytes the longest path has that [`listen`] needs for a socket at `path`.
pub fn needed_path_len(path: &Path) -> usize {
    working_path(path).as_os_str().as_bytes().len()
}

/// Listens at `path`, in place of whatever socket was there.
///
/// The socket is made under another name, which begins with a dot, and moved to its own when it has
/// its mode and listens, so whoever sees it can use it.
///
/// # Errors
///
/// Nothing is at `path` then that was not there before.
pub fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let working = working_path(path);
    match fs::remove_file(&working) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&working)?;
    fs::set_permissions(&working, Permissions::from_mode(0o600))?;
    fs::rename(&working, path)?;
    Ok((listener, SocketFile { path: path.to_owned(), id: file_id(path)? }))
}

fn working_path(path: &Path) -> PathBuf {
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    path.with_file_name(hidden)
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl SocketFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody has removed it. A file of somebody else's at the path is the next instance
    /// of this driver, which has taken over.
    pub fn is_gone(&self) -> bool {
        matches!(file_id(&self.path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Removes the file if it is still ours.
    pub fn remove(&self) {
        if file_id(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "socket not removed");
        }
    }
}

/// Lets in root and whoever we are ourselves. The mode of the socket says the same; this holds also
/// if somebody changes it, or passes an open descriptor on.
pub fn admits(connection: &UnixStream) -> bool {
    match connection.peer_cred() {
        Ok(peer) if is_trusted(peer.uid(), geteuid().as_raw()) => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "connection refused, only root may connect");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "connection of an unknown peer refused");
            false
        }
    }
}

fn is_trusted(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_we_ourselves_are_trusted() {
        assert!(is_trusted(0, 1000) && is_trusted(1000, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(1000, 0) && !is_trusted(1001, 1000));
    }

    #[tokio::test]
    async fn a_socket_replaces_a_stale_one_and_is_for_root_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a socket that nobody listens on stays behind");

        let (_listener, file) = listen(&path).unwrap();

        assert!(UnixStream::connect(&path).await.is_ok());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "the working name is gone");
        let (_next, taken_over) = listen(&path).unwrap();
        file.remove();
        assert!(path.exists(), "it is another's now");
        taken_over.remove();
        assert!(taken_over.is_gone());
    }
}
