//! A pod that comes and goes, by a kubelet and a runtime that try again as the real ones do.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use driver::model::{ClaimRef, IfIndex, InterfaceState};
use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;
use tests::kubelet::{Answers, Driver, DriverError, Kubelet};
use tests::node::{CDI_DIR, DRIVER, Node, sandbox};
use tests::runtime::{Container, HookError, PodSandbox, Runtime};
use tests::sandbox::{NETNS_DIRECTORY, state_in};

use super::super::world::{Deployed, inside};

/// How long it may take until something succeeds that is tried again and again.
const LIMIT: Duration = Duration::from_mins(2);
/// Before something is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// What pods are made with.
#[derive(Clone, Copy)]
pub(super) struct Machine<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) kubelet: &'a Kubelet,
    pub(super) tokio: &'a tokio::runtime::Runtime,
}

impl<'a> Machine<'a> {
    pub(super) fn of(node: &'a Node) -> Self {
        let Node { runtime, kubelet, tokio, .. } = node;
        Self { runtime, kubelet, tokio }
    }
}

/// What is moved into the pod.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Nature {
    /// A NIC of the box, which stands for hardware.
    Veth,
    /// What the driver makes upon one.
    Macvlan,
}

/// What a pod is at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Stage {
    #[default]
    Rest,
    Prepare,
    Run,
    Start,
    Up,
    Stop,
    Unprepare,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Prepare => "prepare",
            Self::Run => "run",
            Self::Start => "start",
            Self::Up => "up",
            Self::Stop => "stop",
            Self::Unprepare => "unprepare",
        }
    }
}

/// Where others see what a pod is at.
#[derive(Default)]
pub(super) struct Where(Mutex<Stage>);

impl Where {
    pub(super) fn stage(&self) -> Stage {
        *self.0.lock().unwrap()
    }

    fn enter(&self, stage: Stage) {
        *self.0.lock().unwrap() = stage;
    }
}

/// A sandbox, and its namespace as long as this is there.
struct Made {
    sandbox: PodSandbox,
    netns: Netns,
}

pub(super) struct Life<'a> {
    machine: Machine<'a>,
    pod: &'a Deployed,
    nature: Nature,
    whereabouts: &'a Where,
    /// Namespaces in which the NIC may be.
    held: Vec<Made>,
    sandboxes: usize,
}

impl<'a> Life<'a> {
    pub(super) fn new(
        machine: Machine<'a>,
        pod: &'a Deployed,
        nature: Nature,
        whereabouts: &'a Where,
    ) -> Self {
        Self { machine, pod, nature, whereabouts, held: Vec::new(), sandboxes: 0 }
    }

    /// How many sandboxes were made.
    pub(super) fn sandboxes(&self) -> usize {
        self.sandboxes
    }

    /// From prepare to unprepare, whatever becomes of the driver meanwhile. `up` is called while a
    /// container runs.
    pub(super) fn once(&mut self, up: impl FnOnce(&Netns)) {
        let before = self.on_host();
        self.whereabouts.enter(Stage::Prepare);
        let ids = self.prepare();
        let (made, container) = self.start(&ids);
        self.whereabouts.enter(Stage::Up);
        up(&made.netns);
        drop(container);
        self.stop(made);
        self.whereabouts.enter(Stage::Unprepare);
        self.unprepare();
        for made in std::mem::take(&mut self.held) {
            assert_eq!(inside(&made.netns, self.interface()), None, "unprepared and still there");
            made.end();
        }
        assert_eq!(self.on_host(), before);
        self.whereabouts.enter(Stage::Rest);
    }

    fn interface(&self) -> &'static str {
        match self.nature {
            Nature::Veth => "net1",
            Nature::Macvlan => "net2",
        }
    }

    /// What the host has of the device; its index aside, which the kernel may give anew.
    fn on_host(&self) -> InterfaceState {
        let device = match self.nature {
            Nature::Veth => "nic1",
            Nature::Macvlan => "nic2",
        };
        let host = Netlink::open().unwrap();
        let state = state_in(&host, &device.parse().unwrap()).unwrap();
        let state = state.unwrap_or_else(|| panic!("{device} is lost"));
        InterfaceState { index: IfIndex(0), ..state }
    }

    fn prepare(&self) -> Vec<String> {
        let ask = async |driver: &Driver, claims: &[ClaimRef]| driver.prepare(claims).await;
        let devices = self.insist("prepare", &ask);
        devices.into_iter().flat_map(|device| device.cdi_device_ids).collect()
    }

    fn unprepare(&self) {
        let ask = async |driver: &Driver, claims: &[ClaimRef]| driver.unprepare(claims).await;
        self.insist("unprepare", &ask);
    }

    /// Asks the driver until it answers that it did it.
    fn insist<T: Debug>(
        &self,
        what: &str,
        ask: &impl AsyncFn(&Driver, &[ClaimRef]) -> Result<Answers<T>, DriverError>,
    ) -> T {
        let claims = self.pod.claims();
        let started = Instant::now();
        loop {
            let answer = match self.machine.kubelet.driver(DRIVER) {
                None => Err("no driver is registered".to_owned()),
                Some(driver) => match self.machine.tokio.block_on(ask(&driver, &claims)) {
                    Ok(mut answers) => answers.remove(self.pod.claim.uid.as_str()).unwrap(),
                    Err(error) => Err(format!("{error:?}")),
                },
            };
            match answer {
                Ok(value) => return value,
                Err(instead) => assert!(started.elapsed() < LIMIT, "{what}: {instead}"),
            }
            thread::sleep(PAUSE);
        }
    }

    /// Makes sandboxes until a container starts in one.
    fn start(&mut self, ids: &[String]) -> (Made, Container) {
        let started = Instant::now();
        loop {
            match self.try_to_start(ids) {
                Ok(there) => return there,
                Err(refusal) => {
                    assert!(started.elapsed() < LIMIT, "no container starts: {refusal}");
                }
            }
            thread::sleep(PAUSE);
        }
    }

    fn try_to_start(&mut self, ids: &[String]) -> Result<(Made, Container), String> {
        self.whereabouts.enter(Stage::Run);
        let made = self.make();
        let runtime = self.machine.runtime;
        if let Err(HookError::Plugin(refusal)) = runtime.run_pod_sandbox(&made.sandbox) {
            self.leave(made);
            return Err(refusal);
        }
        // It runs, with its device or without.
        self.whereabouts.enter(Stage::Start);
        match runtime.start_container(&made.sandbox.id, Path::new(CDI_DIR), ids) {
            Ok(container) => {
                let there = inside(&made.netns, self.interface());
                assert!(there.is_some_and(|state| state.up), "a container without its device");
                Ok((made, container))
            }
            Err(refusal) => {
                self.stop(made);
                Err(refusal.to_string())
            }
        }
    }

    fn make(&mut self) -> Made {
        self.sandboxes += 1;
        let sandbox = sandbox(&self.pod.pod);
        let path = unique(&sandbox.uid);
        let name = path.file_name().unwrap().to_string_lossy();
        let sandbox =
            PodSandbox { id: format!("sandbox-{name}"), netns: Some(path.clone()), ..sandbox };
        let netns = Netns::create(&path).unwrap();
        super::host::probe(&netns);
        Made { sandbox, netns }
    }

    /// Ends the sandbox; who is to be told may not be there.
    fn stop(&mut self, made: Made) {
        self.whereabouts.enter(Stage::Stop);
        let _ = self.machine.runtime.stop_pod_sandbox(&made.sandbox.id);
        let _ = self.machine.runtime.remove_pod_sandbox(&made.sandbox.id);
        self.leave(made);
    }

    /// The namespace goes with its sandbox, unless there is a NIC to lose in it.
    fn leave(&mut self, made: Made) {
        match self.nature {
            Nature::Veth => self.held.push(made),
            Nature::Macvlan => made.end(),
        }
    }
}

impl Made {
    fn end(self) {
        drop(self.netns);
        Netns::remove(&self.sandbox.netns.unwrap()).unwrap();
    }
}

/// Where no namespace was before, since the driver knows them by their paths, too.
fn unique(uid: &str) -> PathBuf {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Path::new(NETNS_DIRECTORY).join(format!("{uid}-{number}"))
}
