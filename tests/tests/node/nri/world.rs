//! The plugin, a runtime it serves, and a worker that the test plays.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use driver::attach::{Command, Desk, Worker};
use driver::model::{BuildId, Phase, Record, Sandbox};
use driver::nri::{Connection, NriConfig, Plugin};
use driver::telemetry::Metrics;
use tempfile::TempDir;
use tests::runtime::{HookError, Options, PodSandbox, Runtime};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(super) const SOON: Duration = Duration::from_secs(10);
/// A network namespace that is always there.
pub(super) const OWN_NETNS: &str = "/proc/thread-self/ns/net";

pub(super) struct World {
    pub(super) runtime: Runtime,
    pub(super) connection: Connection,
    pub(super) commands: UnboundedReceiver<Command>,
    pub(super) records: watch::Sender<Arc<Vec<Record>>>,
    pub(super) attached: UnboundedReceiver<Vec<Record>>,
    pub(super) shutdown: CancellationToken,
    pub(super) running: JoinHandle<()>,
    pub(super) socket: PathBuf,
    _dir: TempDir,
}

impl World {
    /// A runtime with sandboxes that run already, and a plugin that has connected to it. The first
    /// Synchronize is still to be taken from `commands`.
    pub(super) async fn start(options: Options, running: &[PodSandbox]) -> Self {
        Self::with_budget(options, running, Duration::from_millis(1500)).await
    }

    pub(super) async fn with_budget(
        options: Options,
        already: &[PodSandbox],
        attach_budget: Duration,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("nri.sock");
        let runtime = Runtime::start(&socket, options).unwrap();
        for sandbox in already {
            runtime.add_running(sandbox.clone());
        }
        let (worker, Desk { commands, records }) = Worker::pair();
        let (queue, attached) = mpsc::unbounded_channel();
        let config = NriConfig {
            socket: socket.clone(),
            name: "weir.dev".to_owned(),
            index: "10".to_owned(),
            attach_budget,
        };
        let plugin = Plugin::new(worker, config, queue, Metrics::new());
        let connection = plugin.connection();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(plugin.run(shutdown.clone()));
        let mut world = Self {
            runtime,
            connection,
            commands,
            records,
            attached,
            shutdown,
            running,
            socket,
            _dir: dir,
        };
        world.becomes_connected(true).await;
        world
    }

    /// A plugin that is through with its first Synchronize, and these records.
    pub(super) async fn settled(options: Options, records: Vec<Record>) -> Self {
        let mut world = Self::start(options, &[]).await;
        world.records.send_replace(Arc::new(records));
        world.synchronize().await;
        world
    }

    pub(super) async fn becomes_connected(&mut self, connected: bool) {
        let becomes = self.connection.wait_for(|now| *now == connected);
        timeout(SOON, becomes).await.expect("in time").expect("the plugin runs");
    }

    pub(super) async fn command(&mut self) -> Command {
        timeout(SOON, self.commands.recv()).await.expect("in time").expect("the plugin runs")
    }

    pub(super) fn has_no_command(&mut self) -> bool {
        self.commands.try_recv().is_err()
    }

    /// Takes a Synchronize, answers it, and tells what was listed.
    pub(super) async fn synchronize(&mut self) -> Vec<Sandbox> {
        match self.command().await {
            Command::Synchronize { sandboxes, answer } => {
                answer.send(()).unwrap();
                sandboxes
            }
            other => panic!("not a Synchronize: {other:?}"),
        }
    }

    /// Has the runtime run a sandbox while the worker answers its attach with all records.
    pub(super) fn run(&mut self, sandbox: &PodSandbox) -> Sandbox {
        let records = self.records.borrow().to_vec();
        let (told, asked) = self.while_worker(
            |runtime| runtime.run_pod_sandbox(sandbox),
            |command| match command {
                Command::Attach { sandbox, answer, .. } => {
                    answer.send(Ok(records)).unwrap();
                    sandbox
                }
                other => panic!("not an Attach: {other:?}"),
            },
        );
        told.unwrap();
        asked
    }

    /// Has the runtime do something while the worker answers one detach.
    pub(super) fn detach(
        &mut self,
        event: impl FnOnce(&Runtime) -> Result<Duration, HookError> + Send,
    ) -> Sandbox {
        let (told, asked) = self.while_worker(event, |command| match command {
            Command::Detach { sandbox, answer } => {
                answer.send(Vec::new()).unwrap();
                sandbox
            }
            other => panic!("not a Detach: {other:?}"),
        });
        told.unwrap();
        asked
    }

    /// Runs a blocking call of the runtime while `worker` handles the first command it leads to.
    /// Detaches that follow, as they do when a run fails, are answered well.
    pub(super) fn while_worker<T: Send, U>(
        &mut self,
        event: impl FnOnce(&Runtime) -> T + Send,
        worker: impl FnOnce(Command) -> U,
    ) -> (T, U) {
        let Self { runtime, commands, .. } = self;
        block_in_place(|| {
            thread::scope(|scope| {
                let event = scope.spawn(|| event(runtime));
                let handled = worker(commands.blocking_recv().expect("the plugin runs"));
                while !event.is_finished() {
                    match commands.try_recv() {
                        Ok(Command::Detach { answer, .. }) => answer.send(Vec::new()).unwrap(),
                        Ok(other) => panic!("not a Detach: {other:?}"),
                        Err(_) => thread::sleep(Duration::from_millis(1)),
                    }
                }
                (event.join().unwrap(), handled)
            })
        })
    }

    /// Runs a blocking call of the runtime that leads to no command.
    pub(super) fn tell<T>(&self, event: impl FnOnce(&Runtime) -> T) -> T {
        block_in_place(|| event(&self.runtime))
    }
}

pub(super) fn sandbox(id: &str, uid: &str) -> PodSandbox {
    PodSandbox {
        id: id.to_owned(),
        name: format!("pod-of-{id}"),
        namespace: "default".to_owned(),
        uid: uid.to_owned(),
        netns: Some(PathBuf::from(OWN_NETNS)),
        pid: 0,
    }
}

/// A record of `eth1` prepared for the pod.
pub(super) fn record(pod_uid: &str) -> Record {
    let uid = |uid: &str| serde_json::Value::from(uid);
    let reference = |name: &str, of: &str| serde_json::json!({ "namespace": "default", "name": name, "uid": uid(of) });
    Record {
        claim: serde_json::from_value(reference("nic", "claim-1")).unwrap(),
        pod: serde_json::from_value(reference("pod", pod_uid)).unwrap(),
        build: BuildId::default(),
        ..driver::testing::record("eth1", None, Phase::Prepared)
    }
}

pub(super) fn ids(sandboxes: &[Sandbox]) -> BTreeSet<&str> {
    sandboxes.iter().map(|sandbox| sandbox.id.as_str()).collect()
}
