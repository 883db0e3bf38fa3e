//! Follows the configuration files and the node's label: what holds on this node, now.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::error::api_text;
use super::filter::Filter;
use super::sieve::Sieve;
use super::{API_TIMEOUT, Pool};
use crate::attach::Worker;
use crate::config::{NodeFiles, UnknownProfile};
use crate::inventory::Inventory;
use crate::model::{NodeRules, Problems, PublishRules};
use crate::provider::Providers;
use crate::telemetry::Metrics;

/// How often the files are looked at. A changed `ConfigMap` takes about a minute to get here anyway.
const PERIOD: Duration = Duration::from_secs(5);

/// How long the first publication waits for virtual functions.
const PROVISIONING: Duration = Duration::from_secs(20);

/// Below the state directory: what holds, for `weir devices` to read.
const IN_FORCE: &str = "publish.json";

/// Where what holds is shown.
#[derive(Debug)]
pub struct RuleBoard {
    /// What the inventory offers by name; it has to be told by [`Inventory::follow`].
    pub publish: watch::Sender<Arc<PublishRules>>,
    pub sieve: watch::Sender<Sieve>,
    /// All of it, as soon as it is known. Only its `publish` changes after that.
    pub rules: watch::Sender<Option<Arc<NodeRules>>>,
}

/// Reads the files again and again.
pub struct RuleFollower {
    pool: Pool,
    client: Client,
    files: NodeFiles,
    state_dir: PathBuf,
    inventory: Inventory,
    providers: Providers,
    worker: Worker,
    board: RuleBoard,
    metrics: Arc<Metrics>,
    /// `None` where the process cannot have the signal.
    hangups: Option<Signal>,
}

/// Why nobody knows what holds.
#[derive(Debug, thiserror::Error)]
enum RuleError {
    #[error("the configuration is not valid: {0}")]
    NotValid(Problems),
    #[error(transparent)]
    Profile(#[from] UnknownProfile),
    #[error("ask for this node's label: {0}")]
    Label(String),
    #[error("publish.filter: {0}")]
    Filter(String),
}

impl RuleFollower {
    pub fn new(
        pool: Pool,
        client: Client,
        files: NodeFiles,
        state_dir: PathBuf,
        (inventory, providers, worker): (Inventory, Providers, Worker),
        board: RuleBoard,
        metrics: Arc<Metrics>,
    ) -> Self {
        let hangups = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP will not be heard"))
            .ok();
        Self {
            pool,
            client,
            files,
            state_dir,
            inventory,
            providers,
            worker,
            board,
            metrics,
            hangups,
        }
    }

    /// Follows until `shutdown`. What is wrong is logged, and what held before goes on to hold; at
    /// the start nothing is published until it is right.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) -> Infallible {
        let mut seen = None;
        loop {
            let contents = self.files.contents();
            if seen.as_ref() != Some(&contents) {
                match self.resolve().await {
                    Ok((rules, sieve)) => {
                        self.post(rules, sieve).await;
                        seen = Some(contents);
                    }
                    Err(RuleError::Label(error)) => {
                        tracing::warn!(error, "this node's label is not known yet");
                    }
                    Err(error) => {
                        tracing::error!(%error, "the configuration stays as it was");
                        seen = Some(contents);
                    }
                }
            }
            if self.pause().await {
                seen = None;
            }
        }
    }

    /// Waits for a while; whether a signal asked to look at everything anew.
    async fn pause(&mut self) -> bool {
        let Some(hangups) = &mut self.hangups else {
            sleep(PERIOD).await;
            return false;
        };
        tokio::select! {
            _ = hangups.recv() => true,
            () = sleep(PERIOD) => false,
        }
    }

    async fn resolve(&self) -> Result<(NodeRules, Sieve), RuleError> {
        let settings = self.files.read().map_err(RuleError::NotValid)?;
        let profile = if settings.has_profiles() { self.profile().await? } else { None };
        let rules = settings.rules(profile.as_deref())?;
        let sieve = match &rules.publish.filter {
            None => Sieve::All,
            Some(filter) => Sieve::Only(Filter::compile(filter).map_err(RuleError::Filter)?),
        };
        Ok((rules, sieve))
    }

    /// The profile that the node's label names.
    async fn profile(&self) -> Result<Option<String>, RuleError> {
        let api = Api::<Node>::all(self.client.clone());
        let node = match timeout(API_TIMEOUT, api.get_opt(&self.pool.node)).await {
            Ok(Ok(node)) => node,
            Ok(Err(error)) => return Err(RuleError::Label(api_text(&error))),
            Err(_) => return Err(RuleError::Label("no answer from the API server".to_owned())),
        };
        let label = format!("{}/profile", self.pool.driver);
        let labels = node.and_then(|node| node.metadata.labels);
        Ok(labels.and_then(|mut labels| labels.remove(&label)).filter(|name| !name.is_empty()))
    }

    /// Makes it known. The first time virtual functions are made, and providers asked, before anything
    /// is published.
    async fn post(&self, rules: NodeRules, sieve: Sieve) {
        let publish = Arc::new(rules.publish.clone());
        self.board.publish.send_replace(Arc::clone(&publish));
        self.inventory.follow(&publish).await;
        let before = self.board.rules.borrow().clone();
        let rules = match before {
            None => {
                self.provision(&rules).await;
                let devices = self.inventory.devices();
                self.providers.employ(&rules.providers, &devices).await;
                rules
            }
            Some(before) => {
                if rules.sriov != before.sriov || rules.providers != before.providers {
                    tracing::warn!("sriov and providers are read at the start: restart the driver");
                }
                NodeRules { publish: rules.publish, ..(*before).clone() }
            }
        };
        tracing::info!(?publish, "what is offered");
        self.show(&publish);
        // Last, so that nothing is published by names that are not offered.
        self.board.sieve.send_replace(sieve);
        self.board.rules.send_replace(Some(Arc::new(rules)));
    }

    /// Has virtual functions made, and waits until they are, but not for ever.
    async fn provision(&self, rules: &NodeRules) {
        if rules.sriov.is_empty() {
            return;
        }
        // Each outcome is logged. The kernel tells the inventory what is new.
        let mut outcomes = self.worker.provision(rules.sriov.clone());
        let metrics = Arc::clone(&self.metrics);
        let counting = tokio::spawn(async move {
            while let Some(outcome) = outcomes.recv().await {
                metrics.provisioned(&outcome);
            }
        });
        if timeout(PROVISIONING, counting).await.is_err() {
            tracing::error!("publishing begins while virtual functions are still being made");
        }
    }

    /// Without it `weir devices` shows what would hold without a file.
    fn show(&self, publish: &PublishRules) {
        let path = self.state_dir.join(IN_FORCE);
        let next = path.with_extension("new");
        let written = serde_json::to_vec(publish)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&next, text))
            .and_then(|()| fs::rename(&next, &path));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "what is offered is not shown");
        }
    }
}

/// What a driver that keeps its state in this directory offers, or would without a file if none has
/// ever run there.
///
/// # Errors
///
/// Whatever reading the file fails with.
pub fn in_force(state_dir: &std::path::Path) -> io::Result<PublishRules> {
    match fs::read(state_dir.join(IN_FORCE)) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PublishRules::default()),
        Err(error) => Err(error),
    }
}
