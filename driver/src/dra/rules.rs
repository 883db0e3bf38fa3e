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
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::error::api_text;
use super::filter::{CompileError, Filter};
use super::sieve::Sieve;
use super::{API_TIMEOUT, Pool};
use crate::attach::Worker;
use crate::config::{NodeFiles, NodeSettings, UnknownProfile};
use crate::inventory::Inventory;
use crate::model::{NodeRules, Problems, PublishRules};
use crate::provider::Providers;
use crate::sys::disk::{self, Survival, on_disk};
use crate::telemetry::Metrics;

/// How often the files and the node's label are looked at. A changed `ConfigMap` takes about a minute to
/// get here anyway.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub files: Duration,
    /// Also the longest time in which a label that could not be read is asked for again.
    pub label: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { files: Duration::from_secs(5), label: Duration::from_mins(1) }
    }
}

/// What the files and the label say.
#[derive(Debug, Default)]
struct Known {
    contents: Option<[Option<Vec<u8>>; 2]>,
    /// Of the last files that were valid.
    settings: Option<NodeSettings>,
    label: Label,
    /// When it is to be asked for again; at once where that is not said.
    label_at: Option<Instant>,
    /// Whether any of it is still to be made known.
    is_news: bool,
}

/// What the node's label says of its profile.
#[derive(Debug, Default, Eq, PartialEq)]
enum Label {
    /// The API server has not answered yet.
    #[default]
    Unknown,
    Absent,
    Profile(String),
}

impl Known {
    /// The settings, once for each time that something has changed, and all that they depend on is known.
    fn news(&mut self) -> Option<NodeSettings> {
        let settings = self.settings.as_ref().filter(|_| self.is_news);
        let complete =
            settings.filter(|it| !it.has_profiles() || self.label != Label::Unknown).cloned();
        self.is_news &= complete.is_none();
        complete
    }

    /// What holds, where that is news. What could not be found out now is news again.
    async fn resolved(&mut self, compile: Compiler) -> Option<(NodeRules, Sieve)> {
        let settings = self.news()?;
        let profile = self.profile().map(str::to_owned);
        match on_disk(move || resolve(settings, profile.as_deref(), compile)).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::error!(%error, "the configuration stays as it was");
                self.is_news = matches!(error, RuleError::Filter(error) if error.may_pass());
                None
            }
        }
    }

    fn profile(&self) -> Option<&str> {
        let has_profiles = self.settings.as_ref().is_some_and(NodeSettings::has_profiles);
        match &self.label {
            Label::Profile(name) if has_profiles => Some(name),
            _ => None,
        }
    }
}

/// Makes a filter of its text. It may take seconds.
type Compiler = fn(&str) -> Result<Filter, CompileError>;

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
    pace: Pace,
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
    #[error("publish.filter: {0}")]
    Filter(CompileError),
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
            pace: Pace::default(),
            hangups,
        }
    }

    /// Has it look at another pace.
    #[must_use]
    pub fn at(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Follows until `shutdown`. What is wrong is logged, and what held before goes on to hold; at
    /// the start nothing is published until it is right.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) -> Infallible {
        let mut known = Known::default();
        loop {
            self.look_at_files(&mut known).await;
            self.look_at_label(&mut known).await;
            if let Some((rules, sieve)) = known.resolved(Filter::compile).await {
                self.post(rules, sieve).await;
            }
            if self.pause().await {
                (known.contents, known.label_at) = (None, None);
            }
        }
    }

    /// Waits for a while; whether a signal asked to look at everything anew.
    async fn pause(&mut self) -> bool {
        let period = self.pace.files;
        let Some(hangups) = &mut self.hangups else {
            sleep(period).await;
            return false;
        };
        tokio::select! {
            _ = hangups.recv() => true,
            () = sleep(period) => false,
        }
    }

    async fn look_at_files(&self, known: &mut Known) {
        let (files, before) = (self.files.clone(), known.contents.clone());
        let read = on_disk(move || {
            let contents = Some(files.contents());
            (contents != before).then(|| (contents, files.read()))
        });
        match read.await {
            None => {}
            Some((contents, Ok(settings))) => {
                (known.contents, known.settings, known.is_news) = (contents, Some(settings), true);
            }
            Some((contents, Err(problems))) => {
                let error = RuleError::NotValid(problems);
                tracing::error!(%error, "the configuration stays as it was");
                known.contents = contents;
            }
        }
    }

    /// Asks for the label where it matters and its time has come. What was known stays while nobody
    /// answers.
    async fn look_at_label(&self, known: &mut Known) {
        let now = Instant::now();
        let matters = known.settings.as_ref().is_some_and(NodeSettings::has_profiles);
        if !matters || known.label_at.is_some_and(|at| now < at) {
            return;
        }
        let label = self.label().await;
        let is_lacking = label.is_err() && known.label == Label::Unknown;
        known.label_at = Some(now + if is_lacking { self.pace.files } else { self.pace.label });
        match label {
            Ok(label) if known.label != label => {
                tracing::info!(?label, "this node's profile");
                (known.label, known.is_news) = (label, true);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error, "this node's label cannot be read now"),
        }
    }

    /// The profile that the node's label names.
    async fn label(&self) -> Result<Label, String> {
        let api = Api::<Node>::all(self.client.clone());
        let node = match timeout(API_TIMEOUT, api.get_opt(&self.pool.node)).await {
            Ok(Ok(node)) => node,
            Ok(Err(error)) => return Err(api_text(&error)),
            Err(_) => return Err("no answer from the API server".to_owned()),
        };
        let label = format!("{}/profile", self.pool.driver);
        let labels = node.and_then(|node| node.metadata.labels);
        let name = labels.and_then(|mut labels| labels.remove(&label));
        Ok(name.filter(|name| !name.is_empty()).map_or(Label::Absent, Label::Profile))
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
        self.show(&publish).await;
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
    async fn show(&self, publish: &Arc<PublishRules>) {
        let (path, publish) = (self.state_dir.join(IN_FORCE), Arc::clone(publish));
        let write = move || disk::replace(&path, &serde_json::to_vec(&*publish)?, Survival::Any);
        if let Err(error) = on_disk(write).await {
            tracing::warn!(%error, to = IN_FORCE, "what is offered is not shown");
        }
    }
}

fn resolve(
    settings: NodeSettings,
    profile: Option<&str>,
    compile: Compiler,
) -> Result<(NodeRules, Sieve), RuleError> {
    let rules = settings.rules(profile)?;
    let sieve = match &rules.publish.filter {
        None => Sieve::All,
        Some(filter) => Sieve::Only(compile(filter).map_err(RuleError::Filter)?),
    };
    Ok((rules, sieve))
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::dra::filter::NoAnswer;

    const FILE: &str =
        "apiVersion: weir.dev/v1alpha1\nkind: NodeConfig\npublish: {filter: 'true'}\n";

    fn known() -> Known {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.yaml");
        fs::write(&file, FILE).unwrap();
        let settings = NodeFiles { shared: Some(file), own: None }.read().unwrap();
        Known { settings: Some(settings), is_news: true, ..Known::default() }
    }

    #[tokio::test]
    async fn a_filter_that_could_not_be_compiled_now_is_compiled_later() {
        let late: [Compiler; 2] = [
            |_| Err(NoAnswer::TooLong.into()),
            |_| Err(NoAnswer::NoThread("no room".to_owned()).into()),
        ];
        for late in late {
            let mut known = known();
            assert!(known.resolved(late).await.is_none());
            assert!(known.resolved(late).await.is_none());
            let (rules, sieve) = known.resolved(Filter::compile).await.unwrap();
            assert_eq!(rules.publish.filter.as_deref(), Some("true"));
            assert!(matches!(sieve, Sieve::Only(_)));
            assert!(known.resolved(Filter::compile).await.is_none(), "it is no news any more");
        }
    }

    #[tokio::test]
    async fn a_filter_that_is_wrong_waits_for_another_one() {
        let wrong: [Compiler; 2] =
            [|_| Err(CompileError::Text("no CEL".to_owned())), |_| Err(NoAnswer::Ended.into())];
        for wrong in wrong {
            let mut known = known();
            assert!(known.resolved(wrong).await.is_none());
            assert!(known.resolved(Filter::compile).await.is_none());
        }
    }

    #[tokio::test]
    async fn no_thread_of_the_runtime_waits_for_a_filter_to_be_compiled() {
        // The runtime of a test has one thread for all that is asynchronous: this one.
        thread_local!(static IS_ASYNC: Cell<bool> = const { Cell::new(false) });
        IS_ASYNC.set(true);
        let compile: Compiler = |text| {
            assert!(!IS_ASYNC.get(), "it has other work");
            Filter::compile(text)
        };
        assert!(known().resolved(compile).await.is_some());
    }
}
