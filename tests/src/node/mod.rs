//! The node in the box: the driver's process, and everything around it that a real node has.
//!
//! It furnishes a box that the caller is in already, and drives the driver the way kubelet and a
//! container runtime do. What claims and pods there are is the caller's business.

mod metrics;

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use driver::model::ClaimRef;
use driver::sys::netns::Netns;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::ResourceExt;

pub use self::metrics::{Counted, Samples};
use crate::api_server::Server;
use crate::kubelet::{Answers, Kubelet, PreparedDevice};
use crate::runtime::{self, Container, ContainerError, PodSandbox};
use crate::sandbox::{NETNS_DIRECTORY, Network, Process};
use crate::scheduler;

/// The name of the node, and so of its pool.
pub const NODE: &str = "node-a";
pub const DRIVER: &str = "weir.dev";
/// How long the driver may take for anything, also in an emulated machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Below this everything that belongs to the node is kept; it is on the box's own tmpfs.
pub const ROOT: &str = "/run/box";
/// Where the driver keeps its checkpoint.
pub const STATE_DIR: &str = "/run/box/state";
/// Where the runtime looks for CDI specifications.
pub const CDI_DIR: &str = "/run/cdi";
/// Where the runtime listens, below [`ROOT`].
const NRI_SOCKET: &str = "nri.sock";
/// Where the driver serves `/metrics`.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9177);
/// Where the driver mounts bpffs.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Everything of the node, in the order in which it is to be dropped.
#[derive(Debug)]
pub struct Node {
    pub driver: Process,
    /// What it is called in the API; to be changed together with its arguments.
    pub driver_name: &'static str,
    pub runtime: runtime::Runtime,
    /// Whether the driver is told to meet `runtime`.
    is_ours: bool,
    pub kubelet: Kubelet,
    pub server: Server,
    pub tokio: tokio::runtime::Runtime,
    pub network: Network,
}

impl Node {
    /// Starts everything but the driver, in the namespaces of the calling thread.
    pub fn new(weir: &Path, nics: u8, options: runtime::Options) -> Result<Self> {
        Self::with_driver_at(&Path::new(ROOT).join(NRI_SOCKET), weir, nics, options)
    }

    /// As [`Self::new`], for a driver that a container runtime at `nri_socket` calls. Where that is
    /// another one than ours, it is not asked whether the driver is there.
    pub fn with_driver_at(
        nri_socket: &Path,
        weir: &Path,
        nics: u8,
        options: runtime::Options,
    ) -> Result<Self> {
        let root = Path::new(ROOT);
        fs::create_dir_all(root).context("make the node's directory")?;
        let network = Network::new(nics)?;
        let tokio = tokio::runtime::Runtime::new().context("start a runtime")?;
        let server = tokio.block_on(Server::start()).context("start the API server")?;
        server.kubeconfig(&root.join("kubeconfig")).context("write the kubeconfig")?;
        let kubelet = {
            // Its tasks run on this runtime.
            let _entered = tokio.enter();
            Kubelet::start(&root.join("kubelet")).context("start kubelet")?
        };
        let socket = root.join(NRI_SOCKET);
        let is_ours = socket == nri_socket;
        let runtime =
            runtime::Runtime::start(&socket, options).context("start the container runtime")?;
        let driver =
            Process::new(weir.to_owned(), arguments(root, nri_socket), root.join("weir.log"));
        Ok(Self { driver, driver_name: DRIVER, runtime, is_ours, kubelet, server, tokio, network })
    }

    /// Starts the driver and waits until it says that it is ready.
    pub fn start_driver(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.driver.start()?;
        loop {
            self.driver.check()?;
            let page = metrics::fetch(LISTEN, "/readyz");
            match page {
                Ok(page) if page.status == 200 => break,
                _ if started.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(10));
                }
                Ok(page) => {
                    let log = self.driver.log_tail();
                    bail!("the driver does not get ready: {}\n{log}", page.body);
                }
                Err(error) => {
                    let log = self.driver.log_tail();
                    return Err(error).with_context(|| format!("ask the driver\n{log}"));
                }
            }
        }
        let limit = PATIENCE;
        self.tokio.block_on(self.kubelet.wait_for_driver(self.driver_name, limit))?;
        let is_there = !self.is_ours || self.runtime.wait_for_plugin(limit);
        ensure!(is_there, "the driver is not registered over NRI");
        Ok(started.elapsed())
    }

    /// Allocates the pod's claims and binds it to this node, as the scheduler does.
    pub fn schedule(&self, pod: &Pod) -> Result<Vec<ResourceClaim>> {
        let client = self.tokio.block_on(async { self.server.client() })?;
        let namespace = pod.namespace().unwrap_or_default();
        let name = pod.name_any();
        Ok(self.tokio.block_on(scheduler::schedule(&client, &namespace, &name, NODE))?)
    }

    /// Has kubelet ask the driver to prepare claims; answers how long that took.
    pub fn prepare(&self, claims: &[ClaimRef]) -> Result<Duration> {
        let started = Instant::now();
        for (uid, answer) in self.ask_to_prepare(claims)? {
            answer.map_err(anyhow::Error::msg).with_context(|| self.failed("prepare", &uid))?;
        }
        Ok(started.elapsed())
    }

    /// What the driver answers kubelet about each claim.
    pub fn ask_to_prepare(&self, claims: &[ClaimRef]) -> Result<Answers<Vec<PreparedDevice>>> {
        self.tokio.block_on(async {
            let driver = self.kubelet.wait_for_driver(self.driver_name, PATIENCE).await?;
            Ok(driver.prepare(claims).await?)
        })
    }

    pub fn unprepare(&self, claims: &[ClaimRef]) -> Result<()> {
        let answers = self.tokio.block_on(async {
            let driver = self.kubelet.wait_for_driver(self.driver_name, PATIENCE).await?;
            driver.unprepare(claims).await
        })?;
        for (uid, answer) in answers {
            answer.map_err(anyhow::Error::msg).with_context(|| self.failed("unprepare", &uid))?;
        }
        Ok(())
    }

    fn failed(&self, what: &str, uid: &str) -> String {
        format!("{what} claim {uid}; the driver said last:\n{}\n", self.driver.log_tail())
    }

    /// Makes the pod's sandbox and tells the driver, as a runtime does; answers how long the driver
    /// took.
    pub fn run_sandbox(&self, pod: &Pod) -> Result<(Netns, Duration)> {
        let sandbox = sandbox(pod);
        let path = sandbox.netns.as_deref().unwrap_or(Path::new("/"));
        let netns = Netns::create(path)?;
        let took = self.runtime.run_pod_sandbox(&sandbox);
        let took = took.with_context(|| self.failed("attach for pod", &sandbox.uid))?;
        Ok((netns, took))
    }

    /// Starts a container of the pod that uses its claims: `ids` is what the driver answered kubelet
    /// about them.
    pub fn start_container(&self, pod: &Pod, ids: &[String]) -> Result<Container, ContainerError> {
        self.runtime.start_container(&sandbox(pod).id, Path::new(CDI_DIR), ids)
    }

    /// Ends the pod's sandbox. Its namespace goes with the last who holds it open.
    pub fn stop_sandbox(&self, pod: &Pod) -> Result<()> {
        let sandbox = sandbox(pod);
        self.runtime.stop_pod_sandbox(&sandbox.id).context("stop the sandbox")?;
        self.runtime.remove_pod_sandbox(&sandbox.id).context("remove the sandbox")?;
        let path = sandbox.netns.unwrap_or_default();
        Netns::remove(&path).with_context(|| format!("remove {}", path.display()))
    }
}

/// Whether the driver says that it is ready now.
pub fn is_ready() -> bool {
    metrics::fetch(LISTEN, "/readyz").is_ok_and(|page| page.status == 200)
}

/// What the driver shows on `/metrics` now.
pub fn scrape() -> Result<Samples> {
    let page = metrics::fetch(LISTEN, "/metrics").context("scrape the driver")?;
    ensure!(page.status == 200, "/metrics answers {}", page.status);
    // One that ends half-way looks like counters that have gone back.
    ensure!(page.body.ends_with("# EOF\n"), "/metrics is cut off");
    Ok(Samples::parse(&page.body))
}

/// What is there on the node that a pod could have left: pins, records, CDI specs, namespaces.
pub fn residue() -> Vec<String> {
    let mut found = Vec::new();
    for pin in files_below(&Path::new(BPFFS).join("weir")) {
        found.push(format!("pin {}", pin.display()));
    }
    for file in files_below(Path::new(STATE_DIR)) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        // A record names its claim and its pod by UID.
        if text.contains("\"uid\"") {
            found.push(format!("a record in {}", file.display()));
        }
    }
    for spec in files_below(Path::new(CDI_DIR)) {
        found.push(format!("CDI spec {}", spec.display()));
    }
    for netns in files_below(Path::new(NETNS_DIRECTORY)) {
        if !netns.ends_with("wire") {
            found.push(format!("namespace {}", netns.display()));
        }
    }
    found
}

/// How kubelet names a claim.
pub fn claim_ref(claim: &ResourceClaim) -> Result<ClaimRef> {
    Ok(ClaimRef {
        namespace: claim.namespace().unwrap_or_default(),
        name: claim.name_any(),
        uid: claim.uid().unwrap_or_default().parse()?,
    })
}

fn arguments(root: &Path, nri_socket: &Path) -> Vec<OsString> {
    let at = |name: &str| root.join(name).into_os_string();
    vec![
        "node".into(),
        "--node-name".into(),
        NODE.into(),
        "--kubeconfig".into(),
        at("kubeconfig"),
        "--kubelet-root".into(),
        at("kubelet"),
        "--nri-socket".into(),
        nri_socket.into(),
        "--state-dir".into(),
        STATE_DIR.into(),
        "--cdi-dir".into(),
        CDI_DIR.into(),
        "--gate-dir".into(),
        at("bin"),
        "--bpffs".into(),
        BPFFS.into(),
        "--listen".into(),
        LISTEN.to_string().into(),
    ]
}

/// The sandbox that a pod runs in here.
pub fn sandbox(pod: &Pod) -> PodSandbox {
    let uid = pod.uid().unwrap_or_default();
    PodSandbox {
        id: format!("sandbox-{uid}"),
        name: pod.name_any(),
        namespace: pod.namespace().unwrap_or_default(),
        netns: Some(Path::new(NETNS_DIRECTORY).join(&uid)),
        uid,
        pid: 0,
    }
}

/// All that is below a directory and no directory itself; an empty directory counts as well.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let below = files_below(&path);
            if below.is_empty() {
                found.push(path);
            } else {
                found.extend(below);
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
