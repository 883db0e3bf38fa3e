//! Namespaces of a test's own.

use std::panic;
use std::path::Path;
use std::thread;

use driver::sys::netns::Netns;
use nix::mount::{self, MsFlags};
use nix::sched::{self, CloneFlags};

/// Runs a test in a network namespace and a mount namespace of its own, with a sysfs that shows
/// them, on a thread that ends with the test. Nothing of it is left.
pub(crate) fn in_own_namespaces<T: Send>(test: impl FnOnce(&Path) -> T + Send) -> T {
    let sysfs = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        let tester = scope.spawn(|| {
            sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("the kernel ring needs root");
            let none = None::<&Path>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount::mount(none, "/", none, private, none).unwrap();
            mount::mount(none, sysfs.path(), Some("sysfs"), MsFlags::MS_RDONLY, none).unwrap();
            test(sysfs.path())
        });
        tester.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// A namespace on a file of a temporary directory, gone with this value.
pub(crate) struct MadeNetns {
    pub(crate) netns: Netns,
    directory: tempfile::TempDir,
}

impl MadeNetns {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let netns = Netns::create(&directory.path().join("netns")).unwrap();
        Self { netns, directory }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("netns")
    }
}

impl Drop for MadeNetns {
    fn drop(&mut self) {
        // Fails where a test has removed it already.
        let _ = Netns::remove(&self.path());
    }
}
