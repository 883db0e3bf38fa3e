//! A node whose container runtime is containerd, and what tests ask of it.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::thread;

use driver::model::Phase;
use driver::sys::netns::Netns;
use nix::sched::{self, CloneFlags};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tests::containerd::{self, Containerd, Cri, EVENT_SECONDS, Pod};
use tests::node::{CDI_DIR, Node, ROOT};
use tests::runtime::Options;

use super::world::{Deployed, config, deploy, introduce, told, until};

/// The node, its runtime, and the way to ask the runtime.
pub(super) struct Ring {
    pub(super) node: Node,
    pub(super) cri: Cri,
    pub(super) containerd: Containerd,
}

/// Runs a test on a node with one NIC and a driver that is ready.
pub(super) fn on_containerd(test: impl FnOnce(&mut Ring) + Send) {
    thread::scope(|scope| {
        let tester = scope.spawn(|| {
            sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("the runtime ring needs root");
            containerd::furnish().unwrap();
            let mut ring = Ring::start();
            let version = ring.cri.version().unwrap();
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| test(&mut ring)));
            assert!(
                outcome.is_ok(),
                "the driver said last:\n{}\nand {version}:\n{}",
                ring.node.driver.log_tail(),
                ring.containerd.log_tail()
            );
        });
        tester.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
    });
}

impl Ring {
    fn start() -> Self {
        let (root, cdi) = (Path::new(ROOT).join("containerd"), Path::new(CDI_DIR));
        let mut containerd =
            Containerd::new(&told("WEIR_CONTAINERD"), &root, cdi, EVENT_SECONDS).unwrap();
        containerd.start().unwrap();
        containerd.import_images().unwrap();
        let socket = containerd.nri_socket();
        let mut node =
            Node::with_driver_at(&socket, &told("WEIR_BINARY"), 1, Options::default()).unwrap();
        introduce(&node);
        node.start_driver().unwrap();
        let cri = Cri::connect(&containerd.socket(), node.tokio.handle().clone()).unwrap();
        Self { node, cri, containerd }
    }

    /// Has a pod scheduled that wants the NIC, and its claim prepared; answers the CDI ids that
    /// kubelet passes on to its containers.
    pub(super) fn prepare(&self, name: &str) -> (Deployed, Vec<String>) {
        let web = deploy(&self.node, name, &[(0, config(0, "xdp"))]);
        let mut answers = self.node.ask_to_prepare(&web.claims()).unwrap();
        let devices = answers.remove(web.claim.uid.as_str()).unwrap().unwrap();
        let ids: Vec<_> = devices.into_iter().flat_map(|device| device.cdi_device_ids).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        (web, ids)
    }

    /// Makes the pod's sandbox.
    pub(super) fn run(&self, web: &Deployed, attempt: u32) -> Pod {
        let metadata = &web.pod.metadata;
        let (name, uid) = (metadata.name.as_deref().unwrap(), metadata.uid.as_deref().unwrap());
        self.cri.run(name, uid, attempt).unwrap()
    }

    /// Makes and starts a container, and answers its id. Making it is tried again, as kubelet does:
    /// containerd hears of specifications by inotify, and a busy one may not have heard yet.
    pub(super) fn start_container(&self, pod: &Pod, name: &str, ids: &[String]) -> String {
        let container = until("the container is made", || {
            self.cri.create(pod, name, ids).map_err(|status| status.message().to_owned())
        });
        self.cri.start(&container).unwrap();
        container
    }

    /// Why a container cannot be made that names its device, for want of a specification.
    pub(super) fn assert_unresolvable(&self, pod: &Pod, name: &str, ids: &[String]) {
        let refused = self.cri.create(pod, name, ids).unwrap_err();
        let text = refused.message();
        assert!(text.contains("unresolvable CDI devices") && text.contains(&ids[0]), "{text}");
    }

    pub(super) fn signal_driver(&self, signal: Signal) {
        let pid = Pid::from_raw(self.node.driver.pid().unwrap().cast_signed());
        signal::kill(pid, signal).unwrap();
    }
}

/// The namespace that the pod's NIC is in, as it was recorded.
pub(super) fn netns_of(web: &Deployed) -> Netns {
    let record = web.records().remove(0);
    let Phase::Attached { netns, .. } = &record.phase else { panic!("{:?}", record.phase) };
    Netns::open_ref(netns).unwrap()
}
