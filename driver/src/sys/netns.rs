//! Network namespaces: opened, told apart, and entered by threads that never come back.
//!
//! The only place of the driver that calls `setns(2)`. It never reads `/proc/self/ns/net`, which shows the main
//! thread's namespace whoever asks.

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{self, CloneFlags};
use nix::sys::statfs::{self, NSFS_MAGIC};

use crate::model::{NetnsId, NetnsRef};

/// An open network namespace.
///
/// The descriptor keeps the namespace alive after its last process is gone, so a path that was
/// opened once cannot come to mean another namespace later. Drop it promptly: a pod's namespace
/// that stays open keeps the pod's interfaces from returning to the host.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

/// Proof that this thread runs inside a chosen network namespace.
///
/// The proof is neither `Send` nor `Sync`: it says something about one thread and stays there.
#[derive(Debug)]
pub struct Inside<'ns> {
    netns: &'ns Netns,
    _this_thread: PhantomData<*const ()>,
}

/// Why a namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    #[error("open network namespace {}", .path.display())]
    Open { path: PathBuf, source: io::Error },

    /// A plain file, say: what is left of a mount point once the namespace is unmounted.
    #[error("{} is no namespace", .path.display())]
    NotANamespace { path: PathBuf },

    /// What was recorded is not there any more. Normal once a pod's sandbox has ended.
    #[error("network namespace {id} is gone from {}", .path.display())]
    Gone { path: PathBuf, id: NetnsId },

    #[error("make a thread for a visit to a network namespace")]
    Spawn(#[source] io::Error),

    #[error("enter network namespace {id}")]
    Enter { id: NetnsId, source: Errno },

    #[cfg(any(test, feature = "testing"))]
    #[error("ask for the cookie of network namespace {id}")]
    Cookie { id: NetnsId, source: io::Error },

    #[cfg(any(test, feature = "testing"))]
    #[error("make network namespace {}", .path.display())]
    Create { path: PathBuf, source: io::Error },
}

impl NetnsError {
    /// Whether the namespace is not there any more, rather than out of reach.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }
}

impl Netns {
    /// Opens what `path` names, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Open`], or [`NetnsError::NotANamespace`] where the file is not on nsfs.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let error = |source| NetnsError::Open { path: path.to_owned(), source };
        // Opening a FIFO would wait for a writer without O_NONBLOCK; on nsfs it means nothing.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(error)?;
        let kind = statfs::fstatfs(&file).map_err(|errno| error(errno.into()))?.filesystem_type();
        if kind != NSFS_MAGIC {
            return Err(NetnsError::NotANamespace { path: path.to_owned() });
        }
        Self::identified(file).map_err(error)
    }

    /// Opens a namespace that was seen before, if it is still the same one.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Gone`] when nothing is at the path, no namespace is, or another one;
    /// [`NetnsError::Open`] when looking failed.
    pub fn open_ref(recorded: &NetnsRef) -> Result<Self, NetnsError> {
        let gone = || NetnsError::Gone { path: recorded.path.clone(), id: recorded.id };
        match Self::open(&recorded.path) {
            Ok(netns) if netns.id == recorded.id => Ok(netns),
            Ok(_) | Err(NetnsError::NotANamespace { .. }) => Err(gone()),
            Err(NetnsError::Open { source, .. }) if is_absence(&source) => Err(gone()),
            Err(error) => Err(error),
        }
    }

    /// The namespace of the calling thread.
    pub fn of_this_thread() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Finds out which namespace a runtime means: the one at `path`, or the one of process `pid`
    /// where the path cannot be opened, as when the runtime's mounts are not ours to see.
    ///
    /// # Errors
    ///
    /// What opening `path` said, also when `pid` did not help.
    pub fn resolve(path: &Path, pid: Option<u32>) -> Result<NetnsRef, NetnsError> {
        let error = match Self::open(path) {
            Ok(netns) => return Ok(NetnsRef { path: path.to_owned(), id: netns.id }),
            Err(error) => error,
        };
        let own = Self::of_this_thread()?.id;
        let of_process = pid.filter(|pid| *pid != 0).and_then(|pid| {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            Self::open(&path).ok().map(|netns| NetnsRef { path, id: netns.id })
        });
        // A pod with a namespace of its own is not in ours: the process is another one, because
        // we do not see the host's processes.
        of_process.filter(|found| found.id != own).ok_or(error)
    }

    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `visit` inside this namespace, on a thread made for it.
    ///
    /// The thread enters and never comes back: it ends with the visit. So there is no way home that
    /// could fail, and no runtime worker that could be left in the wrong place. A panic of `visit`
    /// goes on in the caller.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Spawn`] when no thread can be made, [`NetnsError::Enter`] when the kernel
    /// refuses `setns(2)`; in both cases `visit` did not run.
    pub fn run<T: Send>(
        &self,
        visit: impl FnOnce(&Inside<'_>) -> T + Send,
    ) -> Result<T, NetnsError> {
        thread::scope(|scope| {
            let visitor = thread::Builder::new()
                .name("netns-visit".to_owned())
                .spawn_scoped(scope, move || {
                    sched::setns(&self.fd, CloneFlags::CLONE_NEWNET)
                        .map_err(|source| NetnsError::Enter { id: self.id, source })?;
                    Ok(visit(&Inside { netns: self, _this_thread: PhantomData }))
                })
                .map_err(NetnsError::Spawn)?;
            visitor.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    fn identified(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let id = NetnsId { device: metadata.dev(), inode: metadata.ino() };
        Ok(Self { fd: file.into(), id })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Inside<'_> {
    /// Which namespace this thread is in.
    pub fn id(&self) -> NetnsId {
        self.netns.id
    }
}

/// Whether opening failed because nothing is there. A process that is gone but not yet reaped
/// answers `ESRCH` below `/proc`.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ESRCH))
}

/// Namespaces made, removed and told apart by tests, as a container runtime would.
#[cfg(any(test, feature = "testing"))]
mod made {
    use std::fs;

    use nix::mount::{self, MntFlags, MsFlags};

    use super::super::cookie;
    use super::{CloneFlags, Errno, File, Netns, NetnsError, Path, io, panic, sched, thread};

    impl Netns {
        /// Makes a namespace and mounts it on a new file at `path`, so that it lives on without a
        /// process. Needs `CAP_SYS_ADMIN`.
        pub fn create(path: &Path) -> Result<Self, NetnsError> {
            let error = |source| NetnsError::Create { path: path.to_owned(), source };
            File::create_new(path).map_err(error)?;
            let made = thread::scope(|scope| {
                let maker = scope.spawn(|| -> Result<(), Errno> {
                    sched::unshare(CloneFlags::CLONE_NEWNET)?;
                    let here = Path::new("/proc/thread-self/ns/net");
                    let none = None::<&Path>;
                    mount::mount(Some(here), path, none, MsFlags::MS_BIND, none)
                });
                maker.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
            });
            match made {
                Ok(()) => Self::open(path),
                Err(errno) => {
                    // The file is empty and ours; what failed before matters more.
                    let _ = fs::remove_file(path);
                    Err(error(errno.into()))
                }
            }
        }

        /// The namespace's cookie, as the gate finds it.
        pub fn cookie(&self) -> Result<u64, NetnsError> {
            let cookie = self.run(|_| cookie::of_this_thread())?;
            cookie.map_err(|source| NetnsError::Cookie { id: self.id, source })
        }

        /// Takes away what [`create`](Self::create) left at `path`. The namespace itself ends with
        /// its last process and descriptor.
        pub fn remove(path: &Path) -> io::Result<()> {
            mount::umount2(path, MntFlags::MNT_DETACH)?;
            fs::remove_file(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn a_plain_file_is_no_namespace() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Netns::open(file.path()).unwrap_err();
        assert!(matches!(error, NetnsError::NotANamespace { .. }), "{error}");
    }

    #[test]
    fn a_namespace_is_itself_whichever_way_it_is_opened() {
        let this = Netns::of_this_thread().unwrap();
        let path = PathBuf::from(format!("/proc/{}/ns/net", process::id()));
        let found = NetnsRef { path, id: this.id() };
        assert_eq!(Netns::open_ref(&found).unwrap().id(), this.id());
    }

    #[test]
    fn a_recorded_namespace_is_gone_when_its_path_means_something_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let id = NetnsId { device: 4, inode: 1 };
        let own = PathBuf::from("/proc/thread-self/ns/net");
        for path in [PathBuf::from("/nowhere/at/all"), file.path().to_owned(), own] {
            let error = Netns::open_ref(&NetnsRef { path, id }).unwrap_err();
            assert!(error.is_gone(), "{error}");
        }
    }

    /// The kernel ring shows that another namespace is found this way.
    #[test]
    fn our_own_namespace_is_no_sandboxs_whatever_process_has_the_number() {
        let nowhere = Path::new("/nowhere/at/all");
        for pid in [Some(process::id()), Some(0), None] {
            let error = Netns::resolve(nowhere, pid).unwrap_err();
            assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
        }
    }
}
