//! A gRPC service on a unix socket that only root can reach.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use super::ServeError;

/// Longest path of a socket in bytes: `sun_path` of `sockaddr_un` less the terminating NUL.
const MAX_PATH_LEN: usize = 107;

/// How long calls that are under way may take when the service ends. They lose their answer then,
/// not their work.
const GRACE: Duration = Duration::from_secs(5);

/// A socket in the file system and the task that serves it. Dropping it changes nothing: the task
/// goes on.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    file: FileId,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Which file a path led to: device and inode.
type FileId = (u64, u64);

impl Socket {
    /// Serves `routes` at `path`, in place of whatever socket was there.
    ///
    /// The socket is made under another name and moved to its own when it has its mode and listens,
    /// so whoever sees it can use it. Kubelet does not look at names that begin with a dot
    /// (`pkg/kubelet/pluginmanager/pluginwatcher`, Kubernetes 1.36).
    ///
    /// # Errors
    ///
    /// [`ServeError::PathTooLong`] and [`ServeError::Listen`]; nothing is at `path` that was not
    /// there before.
    pub(super) fn serve(path: &Path, routes: Routes) -> Result<Self, ServeError> {
        let (listener, file) = listen(path)?;
        let stop = CancellationToken::new();
        let incoming = UnixListenerStream::new(listener).filter_map(admit);
        let (stopped, shown) = (stop.clone().cancelled_owned(), path.to_owned());
        let task = tokio::spawn(async move {
            let server = Server::builder().add_routes(routes);
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, path = %shown.display(), "socket no longer served");
            }
        });
        Ok(Self { path: path.to_owned(), file, stop, task })
    }

    /// Whether nobody can reach the service any more: its file was removed, or its task has ended.
    ///
    /// A file of somebody else's at the path is not a loss. It is the next instance of this driver,
    /// which has taken over.
    pub(super) fn is_lost(&self) -> bool {
        self.task.is_finished()
            || matches!(file_id(&self.path), Err(e) if e.kind() == io::ErrorKind::NotFound)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file if it is still ours, and ends the service.
    pub(super) async fn close(self) {
        if file_id(&self.path).is_ok_and(|file| file == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "socket not removed");
        }
        self.abandon().await;
    }

    /// Ends the service without a look at the file, and lets calls that are under way end.
    pub(super) async fn abandon(self) {
        self.stop.cancel();
        if timeout(GRACE, self.task).await.is_err() {
            tracing::warn!(path = %self.path.display(), "calls were still under way at the end");
        }
    }
}

fn listen(path: &Path) -> Result<(UnixListener, FileId), ServeError> {
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    let hidden = path.with_file_name(hidden);
    let length = hidden.as_os_str().as_bytes().len();
    if length > MAX_PATH_LEN {
        return Err(ServeError::PathTooLong { path: path.to_owned(), length, limit: MAX_PATH_LEN });
    }
    let make = || {
        match fs::remove_file(&hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&hidden)?;
        fs::set_permissions(&hidden, Permissions::from_mode(0o600))?;
        fs::rename(&hidden, path)?;
        Ok((listener, file_id(path)?))
    };
    make().map_err(|source| ServeError::Listen { path: path.to_owned(), source })
}

fn file_id(path: &Path) -> io::Result<FileId> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Lets in root and whoever we are ourselves. The mode of the socket says the same; this holds also
/// if somebody changes it, or passes an open descriptor on.
fn admit(connection: io::Result<UnixStream>) -> Option<io::Result<UnixStream>> {
    let peer = match connection.as_ref().map(UnixStream::peer_cred) {
        Ok(Ok(peer)) => peer.uid(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "connection of an unknown peer refused");
            return None;
        }
        Err(_) => return Some(connection),
    };
    if is_trusted(peer, geteuid().as_raw()) {
        Some(connection)
    } else {
        tracing::warn!(uid = peer, "connection refused, only root may connect");
        None
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
    async fn a_path_that_the_kernel_would_not_take_is_named() {
        let path = Path::new("/tmp").join("x".repeat(200));
        let error = Socket::serve(&path, Routes::default()).unwrap_err();
        assert!(error.to_string().contains("206 bytes long"), "{error}");
        assert!(error.to_string().contains("the kernel takes 107"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_replaces_a_stale_one_and_is_for_root_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a socket that nobody listens on stays behind");

        let socket = Socket::serve(&path, Routes::default()).unwrap();

        assert!(UnixStream::connect(&path).await.is_ok());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "the working name is gone");
        assert!(!socket.is_lost());
        socket.close().await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_another_instance_took_over_is_left_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let first = Socket::serve(&path, Routes::default()).unwrap();
        let second = Socket::serve(&path, Routes::default()).unwrap();

        assert!(!first.is_lost());
        first.close().await;

        assert!(UnixStream::connect(&path).await.is_ok());
        fs::remove_file(&path).unwrap();
        assert!(second.is_lost());
    }
}
