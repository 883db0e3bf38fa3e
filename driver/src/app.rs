//! The composition root: opens the world, hands it to the rooms, owns the order of start and stop.
//!
//! Start: checkpoint, node, settle, then the edges, kubelet's the last to be started. Stop: DRA first, so that nothing new is prepared, then NRI, then the rest.
//! Programs stay attached: the next start adopts them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::utsname;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{AdminError, Door};
use crate::attach::{Engine, Notice, Notices, Worker};
use crate::cdi::{CdiDir, CdiError, Gate};
use crate::config::Config;
use crate::datapath::{self, Datapath, DatapathError, MapCounters};
use crate::dhcp::Keeper;
use crate::dra::{self, Pool, RuleBoard, RuleFollower, ServeError, Sieve};
use crate::inventory::{self, Inventory, InventoryError};
use crate::model::{Phase, Record};
use crate::node::{LinuxNode, StepError};
use crate::nri::{self, NriConfig};
use crate::provider::{ProviderError, Providers};
use crate::state::{self, Checkpoint, CheckpointError, Found};
use crate::sys::sysfs::Sysfs;
use crate::telemetry::{
    self, AllVitals, Condition, DropLog, Metrics, Readiness, Shown, Sightings, Timings, Watch,
};

/// Why the driver could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("open the checkpoint")]
    Checkpoint(#[from] CheckpointError),
    #[error("open the datapath")]
    Datapath(#[from] DatapathError),
    #[error("open the directory of CDI specifications, or put up the gate")]
    Cdi(#[from] CdiError),
    #[error("open the node")]
    Node(#[from] StepError),
    #[error("look for devices")]
    Inventory(#[from] InventoryError),
    #[error("open what providers granted")]
    Providers(#[from] ProviderError),
    #[error("start a thread or the runtime of tasks")]
    Thread(#[source] io::Error),
    #[error("configure the client of the API server: {0}")]
    Client(String),
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("serve kubelet")]
    Kubelet(#[from] ServeError),
    #[error("open the operator's socket")]
    Admin(#[from] AdminError),
    #[error("serve the operator")]
    Operator(#[source] io::Error),
    #[error("serve metrics")]
    Metrics(#[source] io::Error),
    #[error("wait for signals")]
    Signals(#[source] io::Error),
    /// A task panicked.
    #[error("a task of the driver ended by a bug: {0}")]
    Task(String),
    /// The thread that changes the node ended: a bug, since it has no reason to.
    #[error("the worker has ended")]
    Worker,
    /// The thread that looks for devices ended: a bug as well. What is published would stay as it is
    /// for ever.
    #[error("the thread that looks for devices has ended")]
    Devices,
}

/// How long shutting down waits for pods whose devices are prepared, so that they still pass NRI.
const LAST_PODS: Duration = Duration::from_secs(5);

/// How long the tasks may take to end once they are told to. Kubernetes kills after 30 s.
const LAST_TASKS: Duration = Duration::from_secs(10);

/// Runs the driver until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
///
/// Any [`AppError`]; attached devices and programs stay as they are.
pub fn run(config: &Config) -> Result<(), AppError> {
    let (notices, to_tell) = Notices::pair();
    let metrics = Metrics::new();
    let worker = start_worker(config, notices.clone(), metrics.timings())?;
    let shutdown = CancellationToken::new();
    let (board, boarded) = Boarded::pair();
    let told = Some((boarded.publish.clone(), worker.watch()));
    let inventory = Inventory::start_following(config.sysfs.clone(), shutdown.clone(), told)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(AppError::Thread)?;
    let (news, rules) = ((notices, to_tell), (board, boarded));
    let outcome =
        runtime.block_on(serve(config, &worker, (inventory, rules), metrics, news, shutdown));
    // Blocking reads of a scrape may be under way; nobody waits for them any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Opens the checkpoint and the node, settles what an earlier driver left, and starts the thread
/// that from now on is the only one to change the node. It runs in the host's namespace, as this
/// one does.
fn start_worker(config: &Config, notices: Notices, timings: &Timings) -> Result<Worker, AppError> {
    let checkpoint = open_checkpoint(config)?;
    let mut datapath = Datapath::open(&config.bpffs)?;
    if config.log_drops {
        datapath = datapath.logging_drops();
    }
    let build = datapath.attaches();
    let gate = Gate::install(&config.gate_dir)?;
    let cdi = CdiDir::open(&config.cdi_dir, &config.driver_name, gate)?;
    let is_whole = !checkpoint.is_partial();
    let sysfs = Sysfs::new(&config.sysfs).map_err(StepError::from)?;
    let node = LinuxNode::open(datapath, cdi)?.with_sysfs(sysfs).timed(timings);
    let checkpoint = checkpoint.timed(timings.clone());
    let mut engine = Engine::new(node, checkpoint, build).telling(notices);
    engine.settle();
    if is_whole {
        engine.sweep();
    }
    engine.start().map_err(AppError::Thread)
}

/// Opens the checkpoint, and finds out whether it knows everything. To be called before anything of the
/// datapath's is opened: that is there in any boot in which a driver has run, unlike files on a disk.
fn open_checkpoint(config: &Config) -> Result<Checkpoint, AppError> {
    let (mut checkpoint, found) = Checkpoint::open(&config.state_dir, &state::boot_id()?)?;
    match &found {
        Found::SetAside { to, reason } => {
            tracing::error!(to = %to.display(), reason, "the checkpoint was damaged and set aside");
        }
        Found::Mirrored { .. } => tracing::error!(?found, "the checkpoint was damaged or gone"),
        Found::EarlierBoot { lost: 1.., .. } => {
            tracing::error!(?found, "policies of an earlier boot are lost, there are too many");
        }
        Found::Nothing if datapath::has_been_opened(&config.bpffs) => {
            tracing::error!("the checkpoint is gone, and a driver has run since the node started");
            checkpoint.set_partial()?;
        }
        found => tracing::info!(?found, "checkpoint"),
    }
    if found == Found::Nothing {
        // The next start finds it, or knows that it is gone.
        checkpoint.put([])?;
    }
    Ok(checkpoint)
}

/// Where it can be read what holds on this node.
struct Boarded {
    publish: inventory::Rules,
    sieve: watch::Receiver<Sieve>,
}

impl Boarded {
    fn pair() -> (RuleBoard, Self) {
        let (publish, read_publish) = watch::channel(Arc::default());
        let (sieve, read_sieve) = watch::channel(Sieve::Unknown);
        let rules = watch::channel(None).0;
        let board = RuleBoard { publish, sieve, rules };
        (board, Self { publish: read_publish, sieve: read_sieve })
    }
}

/// What the tasks share.
struct Shared {
    pool: Pool,
    client: kube::Client,
    providers: Providers,
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

impl Shared {
    async fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, AppError> {
        Ok(Self {
            pool: Pool { driver: config.driver_name.clone(), node: config.node_name.clone() },
            client: client(config).await?,
            providers: Providers::open(&config.driver_name, &config.state_dir)?,
            metrics,
            readiness: Readiness::default(),
        })
    }
}

/// All that runs, and how it is told to end.
struct Tasks {
    all: JoinSet<Result<(), AppError>>,
    shutdown: CancellationToken,
}

impl Tasks {
    /// Starts what ends soon after its token is cancelled.
    fn spawn<F>(&mut self, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = run(self.shutdown.clone());
        self.all.spawn(running.map(Ok));
    }

    /// The same, for what can fail; the driver stops then.
    fn spawn_fallible<F>(&mut self, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), AppError>> + Send + 'static,
    {
        self.all.spawn(run(self.shutdown.clone()));
    }

    /// Tells all to end, and waits until they have, or for as long as that may take.
    async fn end(mut self) {
        self.shutdown.cancel();
        let ended = async { while self.all.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_TASKS, ended).await.is_err() {
            tracing::warn!("not all tasks have ended in time");
        }
    }
}

async fn serve(
    config: &Config,
    worker: &Worker,
    (inventory, (board, boarded)): (Inventory, (RuleBoard, Boarded)),
    metrics: Arc<Metrics>,
    (notices, to_tell): (Notices, mpsc::Receiver<Notice>),
    shutdown: CancellationToken,
) -> Result<(), AppError> {
    let listen = TcpListener::bind(config.listen)
        .await
        .map_err(|source| AppError::Listen { address: config.listen, source })?;
    let shared = Shared::open(config, metrics).await?;
    let mut tasks = Tasks { all: JoinSet::new(), shutdown };

    let (attached, to_report) = mpsc::unbounded_channel();
    let (seen, sightings) = watch::channel(Sightings::default());
    let (felt, vitals) = watch::channel(AllVitals::default());
    let shown = Shown { sightings: seen, vitals: felt };
    spawn_watch(config, &shared, worker, (shown, attached.clone()), &mut tasks);
    let keeper = Keeper::new(worker.clone(), attached.clone());
    tasks.spawn(|stop| keeper.run(stop));
    let health = dra::HealthSources::new(&inventory, worker, vitals, sightings.clone());
    spawn_doors(config, &shared, worker, (listen, sightings.clone()), &mut tasks)?;
    spawn_tellers(&shared, worker, (to_report, to_tell), sightings, &mut tasks);
    let (client, grace) = (shared.client.clone(), dra::Grace::default());
    let sweeper = dra::Sweeper::new(client, worker.clone(), notices.clone(), grace);
    tasks.spawn(|stop| sweeper.run(stop));
    if config.log_drops {
        let log = DropLog::new(&config.bpffs, worker);
        tasks.spawn(|stop| log.run(stop));
    }

    let offer = dra::Offer {
        vocabulary: config.vocabulary.clone(),
        kernel_release: kernel_release(),
        shares: config.shares.clone(),
        health: config.taint.then(|| health.clone()),
        sieve: boarded.sieve,
        providers: shared.providers.clone(),
        state_dir: Some(config.state_dir.clone()),
    };
    spawn_rules(config, &shared, worker, (&inventory, board), &mut tasks);
    spawn_publisher(&shared, worker, (&inventory, offer), &mut tasks);
    let (watched, told) = (inventory.clone(), (attached, notices));
    let edges = Edges::start(config, &shared, worker, (inventory, health), told, &mut tasks);

    let outcome = until_stopped(worker, &watched, &mut tasks.all).await;
    tracing::info!("stopping");
    edges.stop(worker).await;
    tasks.end().await;
    outcome
}

/// Serves whoever scrapes, and whoever runs the node.
fn spawn_doors(
    config: &Config,
    shared: &Shared,
    worker: &Worker,
    (listen, shown): (TcpListener, watch::Receiver<Sightings>),
    tasks: &mut Tasks,
) -> Result<(), AppError> {
    let source = Arc::new(MapCounters::new(&config.bpffs));
    let (metrics, readiness) = (Arc::clone(&shared.metrics), shared.readiness.clone());
    let scraped = worker.clone();
    tasks.spawn_fallible(|stop| async move {
        telemetry::serve(listen, metrics, readiness, source, shown, scraped, stop)
            .await
            .map_err(AppError::Metrics)
    });
    let door = Door::open(&config.state_dir)?;
    let asked = worker.clone();
    tasks.spawn_fallible(|stop| async move {
        door.serve(asked, stop).await.map_err(AppError::Operator)
    });
    Ok(())
}

/// Looks for what may have changed without us, tells scrapes of it, and has statuses written anew.
fn spawn_watch(
    config: &Config,
    shared: &Shared,
    worker: &Worker,
    (shown, changed): (Shown, mpsc::UnboundedSender<Vec<Record>>),
    tasks: &mut Tasks,
) {
    let bpffs = config.bpffs.clone();
    let look =
        move |record: &Record| (datapath::ahead(&bpffs, record), datapath::vitals(&bpffs, record));
    let metrics = Arc::clone(&shared.metrics);
    let watch = Watch::new(worker.clone(), Arc::new(look), metrics, shown, changed);
    tasks.spawn(|stop| watch.run(stop));
}

/// Starts who writes events and statuses.
fn spawn_tellers(
    shared: &Shared,
    worker: &Worker,
    (attached, to_tell): (mpsc::UnboundedReceiver<Vec<Record>>, mpsc::Receiver<Notice>),
    sightings: watch::Receiver<Sightings>,
    tasks: &mut Tasks,
) {
    let (told, also) = mpsc::unbounded_channel();
    let (pool, client) = (shared.pool.clone(), shared.client.clone());
    let events = dra::Events::new(pool, client, to_tell, told, Arc::clone(&shared.metrics));
    tasks.spawn(|stop| events.run(stop));

    let (client, present) = (shared.client.clone(), worker.watch());
    let news = dra::News { attached, notices: also };
    let driver = &shared.pool.driver;
    let status = dra::StatusWriter::new(driver, client, news, sightings, present);
    tasks.spawn(|stop| status.run(stop));
}

/// Starts who follows the configuration files.
fn spawn_rules(
    config: &Config,
    shared: &Shared,
    worker: &Worker,
    (inventory, board): (&Inventory, RuleBoard),
    tasks: &mut Tasks,
) {
    let (pool, client, files) = (shared.pool.clone(), shared.client.clone(), config.files.clone());
    let state_dir = config.state_dir.clone();
    let providers = shared.providers.clone();
    let asked = (inventory.clone(), providers.clone(), worker.clone());
    let metrics = Arc::clone(&shared.metrics);
    let follower = RuleFollower::new(pool, client, files, state_dir, asked, board, metrics);
    tasks.spawn(|stop| follower.run(stop));
    let (inventory, worker) = (inventory.clone(), worker.clone());
    tasks.spawn(|stop| providers.run(inventory, worker, stop));
}

fn spawn_publisher(
    shared: &Shared,
    worker: &Worker,
    (inventory, offer): (&Inventory, dra::Offer),
    tasks: &mut Tasks,
) {
    let (first_time, has_slices) = watch::channel(false);
    let publisher = dra::Publisher::new(
        shared.pool.clone(),
        offer,
        shared.client.clone(),
        inventory.clone(),
        worker.clone(),
        Arc::clone(&shared.metrics),
        first_time,
    );
    follow(has_slices, shared.readiness.clone(), Condition::SlicesPublished, tasks);
    tasks.spawn(|stop| publisher.run(stop));
}

/// The two sides that ask for changes, and how to stop each.
struct Edges {
    dra_stop: CancellationToken,
    dra_stopped: watch::Receiver<bool>,
    nri_stop: CancellationToken,
}

impl Edges {
    fn start(
        config: &Config,
        shared: &Shared,
        worker: &Worker,
        (inventory, health): (Inventory, dra::HealthSources),
        (attached, notices): (mpsc::UnboundedSender<Vec<Record>>, Notices),
        tasks: &mut Tasks,
    ) -> Self {
        let nri_config = NriConfig {
            socket: config.nri_socket.clone(),
            name: "weir".to_owned(),
            index: config.nri_index.clone(),
            attach_budget: config.attach_budget,
        };
        let metrics = Arc::clone(&shared.metrics);
        let nri = nri::Plugin::new(worker.clone(), nri_config, attached, Arc::clone(&metrics));
        let connection = nri.connection();
        let readiness = shared.readiness.clone();
        follow(connection.clone(), readiness.clone(), Condition::NriConnected, tasks);
        let nri_stop = CancellationToken::new();
        let stop = nri_stop.clone();
        // It ends before the rest does.
        tasks.spawn(|_| nri.run(stop));

        let (registered, has_registered) = watch::channel(false);
        follow(has_registered, readiness, Condition::DraRegistered, tasks);
        let plugin = dra::Plugin::new(
            shared.pool.clone(),
            shared.client.clone(),
            worker.clone(),
            (inventory, shared.providers.clone()),
            connection,
            metrics,
            notices,
        );
        let dra_stop = CancellationToken::new();
        let (stop, root) = (dra_stop.clone(), config.kubelet_root.clone());
        let (stopped, dra_stopped) = watch::channel(false);
        tasks.spawn_fallible(|_| async move {
            let outcome = dra::serve(plugin, health, &root, registered, stop).await;
            stopped.send_replace(true);
            Ok(outcome?)
        });
        Self { dra_stop, dra_stopped, nri_stop }
    }

    /// DRA first; then whoever is prepared gets a bounded time to pass NRI; then NRI.
    async fn stop(mut self, worker: &Worker) {
        self.dra_stop.cancel();
        // An error means that the task is gone, and so has stopped.
        let _ = self.dra_stopped.wait_for(|stopped| *stopped).await;
        let mut records = worker.watch();
        let none_waits = |records: &Arc<Vec<Record>>| {
            !records.iter().any(|record| record.phase == Phase::Prepared)
        };
        let _ = tokio::time::timeout(LAST_PODS, records.wait_for(none_waits)).await;
        self.nri_stop.cancel();
    }
}

/// Lets a condition of readiness follow a flag for as long as the flag lives.
fn follow(
    mut flag: watch::Receiver<bool>,
    readiness: Readiness,
    condition: Condition,
    tasks: &mut Tasks,
) {
    tasks.spawn(|_| async move {
        loop {
            readiness.set(condition, *flag.borrow_and_update());
            if flag.changed().await.is_err() {
                readiness.set(condition, false);
                return;
            }
        }
    });
}

/// Waits for a signal, for the first task that fails, or for the end of a thread that must not end.
async fn until_stopped(
    worker: &Worker,
    inventory: &Inventory,
    background: &mut JoinSet<Result<(), AppError>>,
) -> Result<(), AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signals)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = worker.ended() => return Err(AppError::Worker),
            () = inventory.ended() => return Err(AppError::Devices),
            Some(ended) = background.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                // What is left would serve half of its duties; a restart serves them all.
                Err(panicked) => return Err(AppError::Task(panicked.to_string())),
            },
        }
    }
}

/// The client of the API server: by `--kubeconfig`, else as the environment has it.
async fn client(config: &Config) -> Result<kube::Client, AppError> {
    let found = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig =
                Kubeconfig::read_from(path).map_err(|e| AppError::Client(telemetry::chain(&e)))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|e| AppError::Client(telemetry::chain(&e)))?
        }
        None => kube::Config::infer().await.map_err(|e| AppError::Client(telemetry::chain(&e)))?,
    };
    kube::Client::try_from(found).map_err(|e| AppError::Client(telemetry::chain(&e)))
}

/// What `uname -r` prints; empty where the kernel does not tell, and then no version is published.
fn kernel_release() -> String {
    utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}
