//! Watches what may change without anybody telling us: whether programs of others run before ours,
//! and how links and datapaths in pods are.
//!
//! A scrape must not enter namespaces, so this looks on its own, now and then and when something is
//! attached, and everybody else reads what it saw last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Metrics, chain};
use crate::attach::Worker;
use crate::datapath::AheadError;
use crate::model::{Ahead, AttachmentId, DatapathSpec, Phase, Record, Vitals};

/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(30);

/// What is recorded changes several times in a row; the look comes after that.
const PAUSE: Duration = Duration::from_secs(1);

/// What was seen last, of each attachment that could be looked at.
pub type Sightings = Arc<BTreeMap<AttachmentId, Sighting>>;

/// What was seen of one attachment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sighting {
    pub ahead: Ahead,
    /// When it was first seen like that.
    pub since: SystemTime,
}

/// The vitals of each attachment that is prepared or attached, as seen last.
pub type AllVitals = Arc<BTreeMap<AttachmentId, Vitals>>;

/// The answer to a look at one attachment: what runs before its programs, and how it is.
pub type Looked = (Result<Ahead, AheadError>, Vitals);

/// Looks at an attachment. Blocks.
type Look = Arc<dyn Fn(&Record) -> Looked + Send + Sync>;

/// Who is shown what was seen last.
pub struct Shown {
    pub sightings: watch::Sender<Sightings>,
    pub vitals: watch::Sender<AllVitals>,
}

/// The look-out.
pub struct Watch {
    worker: Worker,
    look: Look,
    metrics: Arc<Metrics>,
    shown: Shown,
    changed: mpsc::UnboundedSender<Vec<Record>>,
    /// What the claims' statuses say already: what is ahead, and which state of the filter.
    told: BTreeMap<AttachmentId, (Ahead, u32)>,
    is_first: bool,
}

impl Watch {
    /// `shown` is given all that was seen last; `changed` the attached records of each claim of which
    /// something is not as it was said before, and once those of every claim, because nobody knows
    /// what the driver before this one said.
    pub fn new(
        worker: Worker,
        look: Look,
        metrics: Arc<Metrics>,
        shown: Shown,
        changed: mpsc::UnboundedSender<Vec<Record>>,
    ) -> Self {
        Self { worker, look, metrics, shown, changed, told: BTreeMap::new(), is_first: true }
    }

    /// Looks until `shutdown`, or until the worker has ended.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut records = self.worker.watch();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                changed = records.changed() => match changed {
                    Ok(()) => sleep(PAUSE).await,
                    Err(_) => return,
                },
            }
            let present = Arc::clone(&records.borrow_and_update());
            self.look_at(present).await;
        }
    }

    async fn look_at(&mut self, records: Arc<Vec<Record>>) {
        let (look, looked_at) = (Arc::clone(&self.look), Arc::clone(&records));
        let looking = tokio::task::spawn_blocking(move || {
            let watched = looked_at.iter().filter(|record| is_watched(record));
            watched.map(|record| (record.id(), look(record))).collect::<Vec<_>>()
        });
        // An error means that the runtime is ending, or a bug that has been printed.
        let Ok(looks) = looking.await else { return };
        let vitals = looks.iter().map(|(id, (_, vitals))| (id.clone(), *vitals)).collect();
        self.shown.vitals.send_if_modified(|shown| {
            let is_news = **shown != vitals;
            if is_news {
                *shown = Arc::new(vitals);
            }
            is_news
        });
        let before = Arc::clone(&self.shown.sightings.borrow());
        let now = SystemTime::now();
        let mut sightings = BTreeMap::new();
        for (id, (ahead, _)) in looks {
            match ahead {
                Ok(ahead) => {
                    let same = before.get(&id).filter(|sighting| sighting.ahead == ahead);
                    let since = same.map_or(now, |sighting| sighting.since);
                    sightings.insert(id, Sighting { ahead, since });
                }
                Err(error) if error.is_passing() => {}
                Err(error) => {
                    self.metrics.watch_failed();
                    tracing::debug!(attachment = %id, error = chain(&error), "cannot look");
                }
            }
        }
        let changed = self.news(&records, &sightings);
        self.shown.sightings.send_replace(Arc::new(sightings));
        for records in changed {
            // Nobody writes statuses any more: the driver is stopping.
            let _ = self.changed.send(records);
        }
        self.is_first = false;
    }

    /// The attached records of each claim whose status says something else.
    fn news(
        &mut self,
        records: &[Record],
        sightings: &BTreeMap<AttachmentId, Sighting>,
    ) -> Vec<Vec<Record>> {
        let attached = || records.iter().filter(|it| matches!(it.phase, Phase::Attached { .. }));
        self.told.retain(|id, _| attached().any(|record| record.id() == *id));
        let mut claims = Vec::new();
        for record in attached() {
            let (id, Some(spec)) = (record.id(), &record.datapath) else { continue };
            let Some(Sighting { ahead, .. }) = sightings.get(&id) else { continue };
            let present = (ahead.clone(), spec.generation);
            let is_changed = spec.generation > DatapathSpec::FIRST_GENERATION;
            let is_news = match self.told.get(&id) {
                Some(told) => *told != present,
                // Whoever attached it has had said that nobody knows, and perhaps a first state.
                None => self.is_first || ahead.is_any() || ahead.is_watched() || is_changed,
            };
            if is_news && ahead.is_any() {
                tracing::warn!(attachment = %id, %ahead, "programs of others run before ours");
            }
            if is_news && !claims.contains(&record.claim) {
                claims.push(record.claim.clone());
            }
            self.told.insert(id, present);
        }
        let of_claim = |claim| attached().filter(|it| it.claim == claim).cloned().collect();
        claims.into_iter().map(of_claim).collect()
    }
}

/// Whether it is somewhere to be looked at.
fn is_watched(record: &Record) -> bool {
    record.has_interface() && matches!(record.phase, Phase::Prepared | Phase::Attached { .. })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::datapath::DatapathError;
    use crate::model::LinkSight;
    use crate::telemetry::samples::record;

    /// What is ahead of `eth1`; `None` where looking fails.
    type Scene = Arc<Mutex<Option<Vec<String>>>>;

    fn bench() -> (Watch, Scene, watch::Receiver<Sightings>, mpsc::UnboundedReceiver<Vec<Record>>) {
        let scene = Scene::new(Mutex::new(Some(Vec::new())));
        let shown = Arc::clone(&scene);
        let look = move |record: &Record| {
            let is_first = record.device.name.as_str() == "eth1";
            let ahead = match (is_first, shown.lock().unwrap().clone()) {
                (true, Some(egress)) => Ok(Ahead { egress: Some(egress), ..Ahead::NOTHING }),
                (true, None) => Err(DatapathError::NoObject.into()),
                (false, _) => Ok(Ahead::NOTHING),
            };
            let link = ahead.is_ok().then_some(LinkSight::Up);
            (ahead, Vitals { link, is_whole: Some(true) })
        };
        let (seen, sightings) = watch::channel(Sightings::default());
        let shown = Shown { sightings: seen, vitals: watch::channel(AllVitals::default()).0 };
        let (changed, news) = mpsc::unbounded_channel();
        let worker = Worker::pair().0;
        (Watch::new(worker, Arc::new(look), Metrics::new(), shown, changed), scene, sightings, news)
    }

    fn records() -> Arc<Vec<Record>> {
        Arc::new(vec![record("eth1"), record("eth2")])
    }

    fn told(news: &mut mpsc::UnboundedReceiver<Vec<Record>>) -> Vec<usize> {
        std::iter::from_fn(|| news.try_recv().ok()).map(|records| records.len()).collect()
    }

    #[tokio::test]
    async fn every_claim_is_told_once_and_then_only_what_is_new() {
        let (mut watch, scene, sightings, mut news) = bench();
        watch.look_at(records()).await;
        assert_eq!(told(&mut news), [2], "both devices are of one claim");
        watch.look_at(records()).await;
        assert_eq!(told(&mut news), [0; 0]);

        *scene.lock().unwrap() = Some(vec!["spy".to_owned()]);
        watch.look_at(records()).await;

        assert_eq!(told(&mut news), [2]);
        let seen = sightings.borrow()[&record("eth1").id()].clone();
        assert_eq!(seen.ahead.to_string(), "egress: spy");
        watch.look_at(records()).await;
        assert_eq!(told(&mut news), [0; 0]);
        assert_eq!(sightings.borrow()[&record("eth1").id()], seen, "since then");

        *scene.lock().unwrap() = Some(Vec::new());
        watch.look_at(records()).await;
        assert_eq!(told(&mut news), [2], "that it is gone is news, too");
    }

    #[tokio::test]
    async fn what_cannot_be_looked_at_is_not_shown_and_changes_no_status() {
        let (mut watch, scene, sightings, mut news) = bench();
        *scene.lock().unwrap() = Some(vec!["spy".to_owned()]);
        watch.look_at(records()).await;
        told(&mut news);

        *scene.lock().unwrap() = None;
        watch.look_at(records()).await;
        assert_eq!(sightings.borrow().len(), 1);
        assert_eq!(told(&mut news), [0; 0]);

        *scene.lock().unwrap() = Some(Vec::new());
        watch.look_at(records()).await;
        assert_eq!(told(&mut news), [2], "the status still says that it is there");
    }

    #[tokio::test]
    async fn vitals_are_shown_whatever_is_ahead_and_are_news_only_when_they_change() {
        let (mut watch, scene, _, _news) = bench();
        let mut vitals = watch.shown.vitals.subscribe();
        watch.look_at(records()).await;
        assert!(vitals.has_changed().unwrap());
        assert_eq!(vitals.borrow_and_update()[&record("eth1").id()].link, Some(LinkSight::Up));
        watch.look_at(records()).await;
        assert!(!vitals.has_changed().unwrap());

        *scene.lock().unwrap() = None;
        watch.look_at(records()).await;
        assert_eq!(vitals.borrow_and_update()[&record("eth1").id()].link, None);
    }

    #[tokio::test]
    async fn a_new_state_of_the_filter_is_news() {
        let (mut watch, _, _, mut news) = bench();
        watch.look_at(records()).await;
        told(&mut news);
        let mut changed = record("eth2");
        changed.datapath.as_mut().unwrap().generation = 2;
        watch.look_at(Arc::new(vec![record("eth1"), changed])).await;
        assert_eq!(told(&mut news), [2]);
    }

    /// Nobody looks before a second has passed; the policy may be quicker.
    #[tokio::test]
    async fn a_policy_that_comes_before_the_first_look_is_news() {
        let (mut watch, _, _, mut news) = bench();
        watch.look_at(Arc::default()).await;
        let mut changed = record("eth2");
        changed.datapath.as_mut().unwrap().generation = 2;
        let records = Arc::new(vec![changed]);
        watch.look_at(Arc::clone(&records)).await;
        assert_eq!(told(&mut news), [1]);
        watch.look_at(records).await;
        assert_eq!(told(&mut news), [0; 0]);
    }

    #[tokio::test]
    async fn what_is_attached_later_is_told_once_somebody_has_looked() {
        let (mut watch, _, sightings, mut news) = bench();
        watch.look_at(Arc::default()).await;
        let mut prepared = record("eth2");
        prepared.phase = Phase::Prepared;
        let records = Arc::new(vec![record("eth1"), prepared]);
        watch.look_at(Arc::clone(&records)).await;
        assert_eq!(told(&mut news), [1], "what is prepared has no status");
        assert_eq!(sightings.borrow().len(), 2);
        watch.look_at(records).await;
        assert_eq!(told(&mut news), [0; 0]);
    }
}
