//! Keeps the node's `ResourceSlice`s in the API server as the devices are.
//!
//! Objects are created, and replaced under the resource version that was last seen. A conflict is
//! never forced: it means that somebody else wrote, so everything is listed anew and decided anew.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::error::api_text;
use super::mirror::Mirror;
use super::offered::{Manner, Offered, Shown};
use super::sieve::{Memory, Sieve};
use super::slices::{Change, Terms, changes, published, render};
use super::taints::{Defects, Taints, taints};
use super::{API_TIMEOUT, HealthSources, Pool, Shares, Vocabulary};
use crate::attach::Worker;
use crate::inventory::Inventory;
use crate::model::{DeviceName, Record};
use crate::provider::Providers;
use crate::telemetry::Metrics;

/// How long to wait for more after something changed. A claim's end shows first in the records and
/// then in the inventory; a driver that loads brings its interfaces one by one.
const SETTLE: Duration = Duration::from_millis(500);

/// How many slices may be written at once, and how long it takes until one more may be. Whoever watches
/// slices, every scheduler among them, gets each one whole; a node whose hardware comes and goes
/// writes about 8 in any ten seconds, and the last state soon after.
///
/// The slices of a pool are written together: one generation has to be whole (`ResourceSlice`'s
/// `spec.pool`, Kubernetes 1.34). So whoever needs more slices than may be written at once waits until
/// everything is paid for, and then writes them all.
const BURST: u32 = 4;
const PER_WRITE: Duration = Duration::from_millis(2500);

/// The longest that writes are put off, where a node has so many slices that paying for them all takes
/// longer. Up to ten slices that is no more than ten writes in this time.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause, and the pause after the API server found our slices invalid.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

fn is_known(sieve: &watch::Receiver<Sieve>) -> bool {
    sieve.borrow().is_known()
}

/// What an earlier process published of devices that no claim holds: the filter let them through.
fn remembered(mirror: &Mirror, records: &[Record]) -> Memory {
    let slices = mirror.slices();
    let published = slices.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
    let names = published.filter_map(|device| device.name.parse::<DeviceName>().ok());
    let is_held = |name: &DeviceName| records.iter().any(|it| it.device.name == *name);
    let mut memory = Memory::default();
    memory.recall(names.filter(|name| !is_held(name)));
    memory
}

/// Publishes the devices of one node.
pub struct Publisher {
    pool: Pool,
    offer: Offer,
    client: Client,
    inventory: Inventory,
    worker: Worker,
    metrics: Arc<Metrics>,
    defects: Defects,
    /// What the filter said; `None` before the first round.
    memory: Option<Memory>,
    shown: Shown,
    /// Whether the API server has what the inventory found at least once.
    published: watch::Sender<bool>,
    owner: Option<OwnerReference>,
    /// The highest generation that was ever written from here.
    generation: i64,
    /// How many writes there were that `Pace` does not know of yet.
    writes: u32,
}

/// How the devices are offered.
pub struct Offer {
    pub vocabulary: Vocabulary,
    /// What `uname -r` prints.
    pub kernel_release: String,
    pub shares: Shares,
    /// Where it can be seen how the devices are; `None` where they are not to be tainted.
    pub health: Option<HealthSources>,
    pub sieve: watch::Receiver<Sieve>,
    pub providers: Providers,
    /// Where it is shown what is offered, and why not the rest; `None` where nobody asks.
    pub state_dir: Option<PathBuf>,
}

type Watch = Pin<Box<dyn Stream<Item = watcher::Result<Event<ResourceSlice>>> + Send>>;

impl Publisher {
    /// The worker must have read its checkpoint: what is in a pod is known from there only, and
    /// would else be withdrawn for a moment.
    pub fn new(
        pool: Pool,
        offer: Offer,
        client: Client,
        inventory: Inventory,
        worker: Worker,
        metrics: Arc<Metrics>,
        published: watch::Sender<bool>,
    ) -> Self {
        let shown = Shown::new(offer.state_dir.clone());
        Self {
            pool,
            offer,
            client,
            inventory,
            worker,
            metrics,
            defects: Defects::default(),
            memory: None,
            shown,
            published,
            owner: None,
            generation: 0,
            writes: 0,
        }
    }

    /// Publishes until `shutdown`, and leaves the slices there: kubelet withdraws them if the driver
    /// does not come back.
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.publish()).await;
    }

    async fn publish(&mut self) {
        let mut devices = self.inventory.watch();
        let mut records = self.worker.watch();
        let mut health = self.offer.health.clone();
        let mut sieve = self.offer.sieve.clone();
        let mut told = self.offer.providers.listen();
        let mut mirror = Mirror::default();
        let mut watch = self.watch();
        let mut pace = Pace::default();
        loop {
            tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(event)) => {
                        if mirror.observe(event) {
                            pace.news_from_outside(Instant::now());
                        }
                    }
                    Some(Err(error)) => {
                        tracing::warn!(error = watch_text(&error), "watch of our slices broke");
                    }
                    None => watch = self.watch(),
                },
                Ok(()) = devices.changed() => pace.news_from_here(Instant::now()),
                Ok(()) = records.changed() => pace.news_from_here(Instant::now()),
                () = changed(&mut health) => pace.news_from_here(Instant::now()),
                () = &mut told => {
                    told = self.offer.providers.listen();
                    pace.news_from_here(Instant::now());
                }
                Ok(()) = sieve.changed() => pace.news_from_here(Instant::now()),
                () = pace.due(), if mirror.is_complete() && is_known(&sieve) => {
                    let outcome = self.round(&mut mirror).await;
                    pace.wrote(std::mem::take(&mut self.writes), Instant::now());
                    match outcome {
                        Ok(again) => {
                            self.published.send_replace(true);
                            pace.succeeded(again);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "devices not published");
                            if matches!(error, PublishError::Outdated { .. }) {
                                (watch, mirror) = (self.watch(), Mirror::default());
                            }
                            pace.failed(&error, Instant::now());
                        }
                    }
                }
            }
        }
    }

    fn slices(&self) -> Api<ResourceSlice> {
        Api::all(self.client.clone())
    }

    fn watch(&self) -> Watch {
        let Pool { driver, node } = &self.pool;
        let ours = format!("spec.nodeName={node},spec.driver={driver}");
        let config = watcher::Config::default().fields(&ours);
        watcher(self.slices(), config).default_backoff().boxed()
    }

    /// Compares once and writes what differs. Answers when there will be more, where that is known.
    async fn round(&mut self, mirror: &mut Mirror) -> Result<Option<Instant>, PublishError> {
        if self.owner.is_none() {
            self.owner = self.node().await?;
        }
        let records = self.worker.records();
        let mut devices = self.inventory.devices().to_vec();
        self.offer.providers.fill(&mut devices);
        let everything = published(&devices, &records);
        devices.retain(|device| self.offer.vocabulary.names.has(device));
        let devices = published(&devices, &records);
        let (taints, again) = self.taints(mirror);
        let sieve = self.offer.sieve.borrow().clone();
        let terms = Terms {
            pool: &self.pool,
            owner: self.owner.as_ref(),
            vocabulary: &self.offer.vocabulary,
            kernel: &self.offer.kernel_release,
            shares: Some(&self.offer.shares),
            taints: taints.as_ref(),
        };
        let manner = self.manner();
        let memory = self.memory.get_or_insert_with(|| remembered(mirror, &records));
        let devices = sieve.sift(devices, &records, &terms, memory).await;
        let again = again.into_iter().chain(memory.again(Instant::now())).min();
        self.metrics.filtered(memory.complaints().len() - memory.unanswered(), memory.unanswered());
        let offered = Offered::of(manner, &everything, &devices, &records, memory);
        let wanted = render(&devices, &terms, 0);
        self.shown.show(offered).await;
        let count = wanted.len();
        let changes = changes(wanted, &mirror.slices(), self.generation);
        let writes = changes.len();
        for change in changes {
            self.write(change, mirror).await?;
        }
        if writes > 0 {
            let generation = self.generation;
            tracing::info!(
                devices = devices.len(),
                slices = count,
                generation,
                writes,
                "published"
            );
        }
        self.metrics.published(devices.len(), count);
        Ok(again)
    }

    fn manner(&self) -> Manner {
        Manner {
            driver: self.pool.driver.clone(),
            vocabulary: self.offer.vocabulary.clone(),
            shares: self.offer.shares.clone(),
        }
    }

    /// What to keep schedulers away from, and when there may be more of that.
    fn taints(&mut self, mirror: &Mirror) -> (Option<Taints>, Option<Instant>) {
        let Some(health) = &mut self.offer.health else { return (None, None) };
        let (defects, again) = self.defects.observe(&health.judge(), Instant::now());
        let now = Timestamp::now();
        (Some(taints(defects, &self.pool.driver, &mirror.slices(), now)), again)
    }

    async fn write(&mut self, change: Change, mirror: &mut Mirror) -> Result<(), PublishError> {
        self.writes += 1;
        let api = self.slices();
        let (Change::Create(sent) | Change::Replace(sent)) = &change else {
            let Change::Delete(name) = change else { return Ok(()) };
            let deleted = call(&name, api.delete(&name, &DeleteParams::default())).await;
            return match deleted {
                Ok(_) | Err(PublishError::Gone { .. }) => {
                    mirror.deleted(&name);
                    Ok(())
                }
                Err(error) => Err(error),
            };
        };
        let name = sent.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        let answer = match &change {
            Change::Create(_) => call(&name, api.create(&params, sent)).await?,
            _ => call(&name, api.replace(&name, &params, sent)).await?,
        };
        self.generation = self.generation.max(sent.spec.pool.generation);
        let is_kept = answer.spec == sent.spec;
        mirror.wrote(answer);
        if is_kept { Ok(()) } else { Err(PublishError::Altered { name }) }
    }

    /// The Node object as the owner of our slices: they go when the node does. `None` where there is
    /// no such object, or we may not read it.
    async fn node(&self) -> Result<Option<OwnerReference>, PublishError> {
        let nodes = Api::<Node>::all(self.client.clone());
        match call(&self.pool.node, nodes.get(&self.pool.node)).await {
            Ok(node) => Ok(node.metadata.uid.map(|uid| OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: self.pool.node.clone(),
                uid,
                controller: Some(true),
                ..OwnerReference::default()
            })),
            Err(error @ (PublishError::Gone { .. } | PublishError::Refused { .. })) => {
                tracing::warn!(%error, "slices get no owner");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns when a device may be otherwise than it was; never, where nobody asks for that.
async fn changed(health: &mut Option<HealthSources>) {
    match health {
        Some(health) => health.changed().await,
        None => std::future::pending().await,
    }
}

/// Why a round of publishing ended early.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    /// Somebody else wrote at the same time, or made an object of our name.
    #[error("{name}: {message}")]
    Outdated { name: String, message: String },

    #[error("{name}: {message}")]
    Gone { name: String, message: String },

    /// The API server will say the same until the devices or its configuration change.
    #[error("{name}: {message}")]
    Refused { name: String, message: String },

    /// An older API server that drops fields, or an admission policy that writes.
    #[error("{name}: the API server changed what was published")]
    Altered { name: String },

    #[error("{name}: {message}")]
    Unreachable { name: String, message: String },
}

async fn call<T>(
    name: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, PublishError> {
    let name = name.to_owned();
    let Ok(answer) = timeout(API_TIMEOUT, request).await else {
        let message = format!("no answer from the API server within {} s", API_TIMEOUT.as_secs());
        return Err(PublishError::Unreachable { name, message });
    };
    answer.map_err(|error| {
        let message = api_text(&error);
        match error {
            kube::Error::Api(status) => match status.code {
                404 => PublishError::Gone { name, message },
                409 => PublishError::Outdated { name, message },
                400 | 401 | 403 | 422 => PublishError::Refused { name, message },
                _ => PublishError::Unreachable { name, message },
            },
            _ => PublishError::Unreachable { name, message },
        }
    })
}

fn watch_text(error: &watcher::Error) -> String {
    use watcher::Error::{
        InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed,
    };
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => api_text(error),
        WatchError(status) => format!("{} ({} {})", status.message, status.code, status.reason),
        NoResourceVersion => error.to_string(),
    }
}

/// When the next round is due.
#[derive(Debug, Default)]
struct Pace {
    next: Option<Instant>,
    failures: u32,
    /// When everything that was written will be paid for.
    paid: Option<Instant>,
    /// How many slices were written together last; the next round may be as many.
    round: u32,
}

impl Pace {
    async fn due(&self) {
        match self.next {
            Some(next) => sleep_until(self.earliest().map_or(next, |it| it.max(next))).await,
            None => std::future::pending().await,
        }
    }

    /// When as many slices may be written as last; `None` where nothing was yet.
    fn earliest(&self) -> Option<Instant> {
        self.paid.and_then(|paid| paid.checked_sub(self.credit()))
    }

    /// How much of it need not be paid for when the next round begins.
    fn credit(&self) -> Duration {
        PER_WRITE * BURST.saturating_sub(self.round)
    }

    fn wrote(&mut self, writes: u32, now: Instant) {
        if writes > 0 {
            let from = self.paid.map_or(now, |paid| paid.max(now));
            self.round = writes;
            let latest = now + LONGEST_WAIT + self.credit();
            self.paid = Some((from + PER_WRITE.saturating_mul(writes)).min(latest));
        }
    }

    /// The devices changed. That may be the cure of an earlier failure, so no pause is kept.
    fn news_from_here(&mut self, now: Instant) {
        let soon = now + SETTLE;
        if self.failures > 0 || self.next.is_none_or(|next| soon < next) {
            self.next = Some(soon);
        }
    }

    /// Somebody changed our slices. Kept within the pause, so that a quarrel stays slow.
    fn news_from_outside(&mut self, now: Instant) {
        self.next = self.next.or_else(|| Some(now + SETTLE));
    }

    /// `again` is when there will be more to publish, where that is known.
    fn succeeded(&mut self, again: Option<Instant>) {
        (self.next, self.failures) = (again, 0);
    }

    fn failed(&mut self, error: &PublishError, now: Instant) {
        let pause = match error {
            PublishError::Refused { .. } | PublishError::Altered { .. } => LONGEST_PAUSE,
            _ => FIRST_PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE),
        };
        self.failures += 1;
        self.next = Some(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> PublishError {
        PublishError::Unreachable { name: "a".to_owned(), message: "b".to_owned() }
    }

    fn pause(pace: &Pace, now: Instant) -> Option<Duration> {
        pace.next.map(|next| next - now)
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            pace.failed(&unreachable(), now);
            assert_eq!(pause(&pace, now), Some(Duration::from_secs(seconds)));
        }
        pace.succeeded(None);
        assert_eq!(pause(&pace, now), None);
    }

    #[test]
    fn what_was_refused_waits_unless_the_devices_change() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.failed(&PublishError::Altered { name: "a".to_owned() }, now);
        pace.news_from_outside(now);
        assert_eq!(pause(&pace, now), Some(LONGEST_PAUSE));
        pace.news_from_here(now);
        assert_eq!(pause(&pace, now), Some(SETTLE));
    }

    #[test]
    fn some_writes_are_free_and_then_each_has_to_be_waited_for() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let wait = |pace: &Pace| pace.earliest().map(|it| it.saturating_duration_since(now));
        assert_eq!(wait(&pace), None);
        for expected in [0, 0, 0, 2500, 5000] {
            pace.wrote(1, now);
            assert_eq!(wait(&pace), Some(Duration::from_millis(expected)));
        }
        pace.wrote(0, now);
        assert_eq!(wait(&pace), Some(Duration::from_secs(5)), "nothing was written");
        pace.succeeded(None);
        pace.wrote(100, now);
        assert_eq!(wait(&pace), Some(LONGEST_WAIT));
        // Everything is paid for in time.
        pace.wrote(1, now + Duration::from_mins(1));
        assert!(pace.earliest().is_some_and(|it| it < now + Duration::from_mins(1)));
    }

    /// When there are rounds of so many slices, in milliseconds, while something changes all the time.
    fn storm(slices: u32, lasts: Duration) -> Vec<u128> {
        const TICK: Duration = Duration::from_millis(100);
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut rounds = Vec::new();
        let mut now = start;
        while now - start < lasts {
            pace.news_from_here(now);
            let is_due = pace.next.is_some_and(|next| next <= now);
            if is_due && pace.earliest().is_none_or(|it| it <= now) {
                pace.wrote(slices, now);
                pace.succeeded(None);
                rounds.push((now - start).as_millis());
            }
            now += TICK;
        }
        rounds
    }

    #[test]
    fn any_ten_seconds_of_a_storm_are_ten_writes_at_most_or_one_round() {
        for slices in 1..=20 {
            let rounds = storm(slices, Duration::from_mins(2));
            let most = rounds
                .iter()
                .map(|from| rounds.iter().filter(|at| (*from..from + 10_000).contains(at)).count());
            let most = u32::try_from(most.max().unwrap()).unwrap();
            assert!(most == 1 || most * slices <= 10, "{slices} slices: {rounds:?}");
            assert!(rounds.len() >= 12, "{slices} slices are not published: {rounds:?}");
        }
        assert!(storm(1, Duration::from_secs(10)).len() >= 4, "a few are not put off");
    }

    #[test]
    fn news_do_not_put_a_round_off() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.news_from_outside(now);
        let later = now + SETTLE / 2;
        pace.news_from_here(later);
        pace.news_from_outside(later);
        assert_eq!(pause(&pace, now), Some(SETTLE));
    }
}
