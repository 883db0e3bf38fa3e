//! A gRPC service on a unix socket that only root can reach.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use super::ServeError;
use crate::sys::socket::{self, MAX_PATH_LEN, SocketFile};

/// How long calls that are under way may take when the service ends. They lose their answer then,
/// not their work.
const GRACE: Duration = Duration::from_secs(5);

/// A socket in the file system and the task that serves it. Dropping it changes nothing: the task
/// goes on.
#[derive(Debug)]
pub(super) struct Socket {
    file: SocketFile,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Socket {
    /// Serves `routes` at `path`, in place of whatever socket was there.
    ///
    /// It is made under a name that begins with a dot, at which kubelet does not look
    /// (`pkg/kubelet/pluginmanager/pluginwatcher`, Kubernetes 1.36).
    ///
    /// Ending it cancels `stop`, by which whatever streams without end has to end.
    ///
    /// # Errors
    ///
    /// [`ServeError::PathTooLong`] and [`ServeError::Listen`]; nothing is at `path` that was not
    /// there before.
    pub(super) fn serve(
        path: &Path,
        routes: Routes,
        stop: CancellationToken,
    ) -> Result<Self, ServeError> {
        let (listener, file) = listen(path)?;
        let incoming = UnixListenerStream::new(listener).filter_map(admit);
        let (stopped, shown) = (stop.clone().cancelled_owned(), path.to_owned());
        let task = tokio::spawn(async move {
            let server = Server::builder().add_routes(routes);
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, path = %shown.display(), "socket no longer served");
            }
        });
        Ok(Self { file, stop, task })
    }

    /// Whether nobody can reach the service any more: its file was removed, or its task has ended.
    ///
    /// A file of somebody else's at the path is not a loss. It is the next instance of this driver,
    /// which has taken over.
    pub(super) fn is_lost(&self) -> bool {
        self.task.is_finished() || self.file.is_gone()
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Removes the file if it is still ours, and ends the service.
    pub(super) async fn close(self) {
        self.file.remove();
        self.abandon().await;
    }

    /// Ends the service without a look at the file, and lets calls that are under way end.
    pub(super) async fn abandon(self) {
        self.stop.cancel();
        if timeout(GRACE, self.task).await.is_err() {
            tracing::warn!(path = %self.file.path().display(), "calls were still under way at the end");
        }
    }
}

fn listen(path: &Path) -> Result<(UnixListener, SocketFile), ServeError> {
    let length = socket::needed_path_len(path);
    if length > MAX_PATH_LEN {
        return Err(ServeError::PathTooLong { path: path.to_owned(), length, limit: MAX_PATH_LEN });
    }
    socket::listen(path).map_err(|source| ServeError::Listen { path: path.to_owned(), source })
}

fn admit(connection: io::Result<UnixStream>) -> Option<io::Result<UnixStream>> {
    match connection {
        Ok(connection) => socket::admits(&connection).then_some(Ok(connection)),
        Err(error) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn serve(path: &Path) -> Result<Socket, ServeError> {
        Socket::serve(path, Routes::default(), CancellationToken::new())
    }

    #[tokio::test]
    async fn a_path_that_the_kernel_would_not_take_is_named() {
        let path = Path::new("/tmp").join("x".repeat(200));
        let error = serve(&path).unwrap_err();
        assert!(error.to_string().contains("206 bytes long"), "{error}");
        assert!(error.to_string().contains("the kernel takes 107"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_that_another_instance_took_over_is_left_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let first = serve(&path).unwrap();
        let second = serve(&path).unwrap();

        assert!(!first.is_lost());
        first.close().await;

        assert!(UnixStream::connect(&path).await.is_ok());
        fs::remove_file(&path).unwrap();
        assert!(second.is_lost());
    }
}
