//! RDMA by software upon the machine's NICs, in containers of a real runtime.
//!
//! An RDMA device of `rdma_rxe` ends when its NIC changes namespace (`rxe_notify()` in
//! `drivers/infiniband/sw/rxe/rxe_net.c`, Linux 6.12), as one of hardware does not. So tests make it anew
//! where its NIC has gone, as whoever sets it up on a node would; its files are called the same then.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::thread;

use driver::model::MacAddr;
use driver::sys::netns::Netns;
use nix::mount::{self, MsFlags};
use tests::containerd::{Containerd, Cri, Pod};
use tests::node::{CDI_DIR, Node, ROOT, sandbox};
use tests::runtime::Options;
use tests::sandbox::furnish;

use super::machine::{
    IGB0, IGB1, Wish, attribute, awaited, claim, config, in_its_namespace, interface, is_called,
    rdma, set_up, tidy_up,
};
use crate::driver::world::{Deployed, deploy_claim, nothing_is_left, prepared_ids, told, until};

/// An emulated machine is slow, so a runtime has to be patient with it.
const EVENT_SECONDS: u32 = 60;

/// A node whose container runtime is containerd.
pub(super) struct Ring {
    pub(super) node: Node,
    pub(super) cri: Cri,
    containerd: Containerd,
}

/// Runs a test on such a node, in the machine's own network namespace.
pub(super) fn on_containerd(test: impl FnOnce(&Ring) + Send) {
    in_its_namespace(|| {
        furnish().unwrap();
        mount::mount(
            Some("cgroup2"),
            "/sys/fs/cgroup",
            Some("cgroup2"),
            MsFlags::empty(),
            None::<&Path>,
        )
        .unwrap();
        tidy_up();
        let ring = Ring::start();
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| test(&ring)));
        assert!(
            outcome.is_ok(),
            "the driver said last:\n{}\nand containerd:\n{}",
            ring.node.driver.log_tail(),
            ring.containerd.log_tail()
        );
    });
}

impl Ring {
    fn start() -> Self {
        let root = Path::new(ROOT).join("containerd");
        let mut containerd =
            Containerd::new(&told("WEIR_CONTAINERD"), &root, Path::new(CDI_DIR), EVENT_SECONDS)
                .unwrap();
        containerd.start().unwrap();
        containerd.import_images().unwrap();
        let (socket, weir) = (containerd.nri_socket(), told("WEIR_BINARY"));
        let mut node = Node::with_driver_at(&socket, &weir, 0, Options::default()).unwrap();
        set_up(&mut node);
        node.start_driver().unwrap();
        let cri = Cri::connect(&containerd.socket(), node.tokio.handle().clone()).unwrap();
        Self { node, cri, containerd }
    }

    /// Has a pod run with a NIC and its RDMA device, which is `name`.
    pub(super) fn pod(&self, mac: MacAddr, name: &str, address: &str) -> RingPod {
        let nic = interface(mac);
        rdma(&["link", "add", name, "type", "rxe", "netdev", &nic]).unwrap();
        awaited(&self.node, "the RDMA device is published", |device| {
            is_called(device, &nic)
                && attribute(device, "rdmaDevice").and_then(|it| it.string.as_deref()) == Some(name)
        });
        let wish = Wish::of(&nic, config("net0", address, "auto"));
        let pod = self.run(&format!("pod-{name}"), &[wish]);
        let netns = Netns::open(&netns_of(&pod.deployed)).unwrap();
        let again = ["link", "add", name, "type", "rxe", "netdev", "net0"];
        netns.run(|_| rdma(&again)).unwrap().unwrap();
        pod
    }

    /// Has a pod run with what its claim wishes.
    pub(super) fn run(&self, name: &str, wishes: &[Wish<'_>]) -> RingPod {
        let deployed = deploy_claim(&self.node, name, &claim(wishes));
        let ids = prepared_ids(&self.node, &deployed);
        let metadata = &deployed.pod.metadata;
        let uid = metadata.uid.as_deref().unwrap();
        let pod = self.cri.run(metadata.name.as_deref().unwrap(), uid, 0).unwrap();
        RingPod { deployed, ids, pod }
    }

    /// Starts a container of the pod, with what these CDI ids bring.
    pub(super) fn container(&self, pod: &Pod, name: &str, ids: &[String]) -> String {
        let tools = told("WEIR_TOOLS");
        // containerd hears of specifications by inotify, and a busy one may not have heard yet.
        let container = until("the container is made", || {
            let made = self.cri.create_with(pod, name, ids, &[&tools]);
            made.map_err(|status| status.message().to_owned())
        });
        self.cri.start(&container).unwrap();
        container
    }

    pub(super) fn end(&self, pod: &RingPod) {
        self.cri.remove(&pod.pod).unwrap();
        self.node.unprepare(&pod.deployed.claims()).unwrap();
    }
}

pub(super) struct RingPod {
    deployed: Deployed,
    /// What its containers name the claim's devices by.
    pub(super) ids: Vec<String>,
    pub(super) pod: Pod,
}

/// Where containerd has mounted the namespace of the pod's sandbox.
fn netns_of(deployed: &Deployed) -> std::path::PathBuf {
    let records = deployed.records();
    let netns = records[0].phase.netns().unwrap();
    assert_ne!(Some(&netns.path), sandbox(&deployed.pod).netns.as_ref());
    netns.path.clone()
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn rdma_files_are_in_the_container_that_names_the_claim_and_in_no_other() {
    on_containerd(|ring| {
        let pod = ring.pod(IGB0, "rxe0", "10.9.0.1/24");
        let open =
            "exec 3<>/dev/infiniband/uverbs0 && exec 4<>/dev/infiniband/rdma_cm && ls -R /dev";
        let named = ring.container(&pod.pod, "named", &pod.ids);
        let files = ring.cri.exec(&named, &["sh", "-c", open]).unwrap();
        assert!(files.contains("uverbs0") && files.contains("rdma_cm"), "{files}");

        let other = ring.container(&pod.pod, "other", &[]);
        let files = ring.cri.exec(&other, &["ls", "-R", "/dev"]).unwrap();
        assert!(!files.contains("infiniband"), "{files}");
        // A file of that kind is easily made. It is the control group that lets in or does not.
        let number = "echo $(($(stat -c 0x%t $F))) $(($(stat -c 0x%T $F)))";
        let number = format!("F=/dev/infiniband/uverbs0; {number}");
        let number = ring.cri.exec(&named, &["sh", "-c", &number]).unwrap();
        let forge = format!("mknod /forged c {number} && exec 3<>/forged");
        ring.cri.exec(&named, &["sh", "-c", &forge]).unwrap();
        let refused = ring.cri.exec(&other, &["sh", "-c", &forge]).unwrap_err();
        assert!(refused.to_string().contains("Operation not permitted"), "{refused}");
        ring.end(&pod);
        nothing_is_left();
    });
}

/// The command line of `rping` in a container, where libraries are in no usual place.
fn rping(words: &str) -> String {
    let tools = told("WEIR_TOOLS");
    let libraries = tools.join("usr/lib/x86_64-linux-gnu");
    format!(
        "RDMAV_DRIVERS={l}/libibverbs/librxe {l}/ld-linux-x86-64.so.2 --library-path {l} \
         {t}/usr/bin/rping -v -C 3 {words}",
        l = libraries.display(),
        t = tools.display()
    )
}

/// Has a container of one pod write to the memory of another one's.
pub(super) fn pods_talk_by_rdma() {
    on_containerd(|ring| {
        let pods = [(IGB0, "rxe0", "10.9.0.1/24"), (IGB1, "rxe1", "10.9.0.2/24")]
            .map(|(mac, name, address)| ring.pod(mac, name, address));
        let [client, server] =
            pods.each_ref().map(|pod| ring.container(&pod.pod, "named", &pod.ids));
        thread::scope(|scope| {
            let serve = rping("-s -a 10.9.0.2");
            let cri = &ring.cri;
            let serving = scope.spawn(move || cri.exec(&server, &["sh", "-c", &serve]).unwrap());
            let ask = rping("-c -a 10.9.0.2");
            // Nobody is told when the server listens.
            let said = until("the server answers", || {
                let said = ring.cri.exec(&client, &["sh", "-c", &ask]);
                said.map_err(|error| error.to_string())
            });
            assert_eq!(said.matches("ping data: rdma-ping-").count(), 3, "{said}");
            let heard = serving.join().unwrap();
            assert_eq!(heard.matches("server ping data: rdma-ping-").count(), 3, "{heard}");
        });
        for pod in &pods {
            ring.end(pod);
        }
        nothing_is_left();
    });
}
