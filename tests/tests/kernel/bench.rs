//! Namespaces of a test's own, and a way to do in them what the driver itself never does.

use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use driver::model::{By, IfIndex, IfName};
use driver::sys::netlink::Netlink;
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

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("netns")
    }
}

impl Drop for MadeNetns {
    fn drop(&mut self) {
        // Fails where a test has removed it already.
        let _ = Netns::remove(&self.path());
    }
}

/// Runs a program in the caller's namespaces.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// Waits for what the kernel or another thread does by and by.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(2), "waited 2 s for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A veth pair, both ends up and ready to send.
///
/// An interface that has just been set up drops what it shall send until the kernel's link watch has
/// run (`net/core/link_watch.c`); the operational state tells when.
pub(crate) fn veth_pair(netlink: &Netlink, one: &str, other: &str) -> (IfIndex, IfIndex) {
    let names: [IfName; 2] = [one, other].map(|name| name.parse().unwrap());
    netlink.add_veth(&names[0], &names[1]).unwrap();
    let [one, other] = names.map(|name| netlink.link(&By::Name(name)).unwrap().unwrap().index);
    for end in [one, other] {
        netlink.set_up(end).unwrap();
    }
    for end in [one, other] {
        await_state(netlink, end, "up");
    }
    (one, other)
}

pub(crate) fn await_state(netlink: &Netlink, index: IfIndex, state: &str) {
    until(state, || netlink.link(&By::Index(index)).unwrap().unwrap().oper_state == state);
}
