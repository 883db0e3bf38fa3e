//! Which devices pass: what the filter says of each, held against what it must not decide.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Pool;
use super::filter::{Filter, NoAnswer, Undecided, Verdict};
use super::offered::Manner;
use super::slices::{Terms, render};
use crate::model::{Device, DeviceName, Record};

/// What is let through to claims.
#[derive(Clone, Debug, Default)]
pub enum Sieve {
    /// Nobody knows yet, so nothing is published.
    #[default]
    Unknown,
    All,
    Only(Filter),
}

/// What a filter said, for as long as the devices are there. A filter that does not answer changes
/// nothing: what passed goes on to pass, and nothing else does.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What it said last, whichever filter that was and whatever the device was like.
    verdicts: BTreeMap<DeviceName, bool>,
    /// Of which devices it could not tell when it was asked last, and why.
    complaints: BTreeMap<DeviceName, Undecided>,
    /// When it was told last that there was no answer.
    told: Option<Instant>,
}

/// From one line in the log that the filter does not answer to the next.
const TELL_EVERY: Duration = Duration::from_mins(1);

impl Sieve {
    pub(super) fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown)
    }

    /// Leaves those that pass. What a claim holds always does: an allocation must not lose its
    /// device.
    ///
    /// Evaluates on another thread, and leaves this one to others meanwhile.
    pub(super) async fn sift(
        &self,
        devices: Vec<Device>,
        records: &[Record],
        terms: &Terms<'_>,
        memory: &mut Memory,
    ) -> Vec<Device> {
        let Self::Only(filter) = self else {
            *memory = Memory::default();
            // The next filter has to say something of what passes now.
            memory.verdicts.extend(devices.iter().map(|device| (device.name.clone(), true)));
            return devices;
        };
        let is_held = |device: &Device| records.iter().any(|it| it.device.name == device.name);
        let open: Vec<_> = devices.iter().filter(|device| !is_held(device)).cloned().collect();
        let (filter, driver) = (filter.clone(), terms.pool.driver.clone());
        let rendered = seen(&open, terms);
        let judging = tokio::task::spawn_blocking(move || filter.judge(&driver, &rendered));
        let verdicts = judging.await.unwrap_or_else(|ended| {
            vec![Err(NoAnswer::NoThread(ended.to_string()).into()); open.len()]
        });
        let there: BTreeSet<_> = devices.iter().map(|device| &device.name).collect();
        memory.verdicts.retain(|name, _| there.contains(name));
        memory.note(open.into_iter().map(|device| device.name).zip(verdicts));
        let passes = |device: &Device| is_held(device) || memory.passes(&device.name);
        devices.into_iter().filter(passes).collect()
    }
}

impl Memory {
    /// Takes for passed what an earlier process has published, as long as nothing else is known.
    pub(super) fn recall(&mut self, published: impl IntoIterator<Item = DeviceName>) {
        for name in published {
            self.verdicts.entry(name).or_insert(true);
        }
    }

    /// Why the filter could not tell of a device when it was asked last.
    pub(super) fn complaints(&self) -> &BTreeMap<DeviceName, Undecided> {
        &self.complaints
    }

    /// How many devices the filter could not be asked about.
    pub(super) fn unanswered(&self) -> usize {
        self.complaints.values().filter(|why| matches!(why, Undecided::NoAnswer(_))).count()
    }

    /// When the filter has to be asked again though nothing has changed.
    pub(super) fn again(&self, now: Instant) -> Option<Instant> {
        (self.unanswered() > 0).then(|| now + TELL_EVERY)
    }

    /// What was never said is no.
    fn passes(&self, name: &DeviceName) -> bool {
        self.verdicts.get(name).copied().unwrap_or(false)
    }

    fn note(&mut self, verdicts: impl Iterator<Item = (DeviceName, Verdict)>) {
        let before = std::mem::take(&mut self.complaints);
        for (name, verdict) in verdicts {
            match verdict {
                Ok(verdict) => drop(self.verdicts.insert(name, verdict)),
                Err(why) => {
                    if let Undecided::Failed(error) = &why {
                        self.verdicts.insert(name.clone(), false);
                        if before.get(&name) != Some(&why) {
                            tracing::warn!(device = %name, error, "not published, the filter cannot tell");
                        }
                    }
                    self.complaints.insert(name, why);
                }
            }
        }
        self.tell(Instant::now());
    }

    fn tell(&mut self, now: Instant) {
        let devices = self.unanswered();
        if devices == 0 {
            if self.told.take().is_some() {
                tracing::info!("the filter answers again");
            }
        } else if self.told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY) {
            let first = self.complaints.iter().find_map(|(name, why)| match why {
                Undecided::NoAnswer(why) => Some((name, why)),
                Undecided::Failed(_) => None,
            });
            if let Some((device, why)) = first {
                tracing::error!(
                    devices,
                    %device,
                    %why,
                    "the filter does not answer: devices stay published or not as they were"
                );
            }
            self.told = Some(now);
        }
    }
}

/// Devices as selectors see them.
fn seen(devices: &[Device], terms: &Terms<'_>) -> Vec<k8s_openapi::api::resource::v1::Device> {
    let slices = render(devices, terms, 0);
    slices.into_iter().filter_map(|slice| slice.spec.devices).flatten().collect()
}

/// What a filter says of each device that is offered in this manner, where `kernel` is what `uname -r`
/// prints, for those who only look. Blocks.
pub fn verdicts(
    filter: &Filter,
    devices: &[Device],
    manner: &Manner,
    kernel: &str,
) -> Vec<Verdict> {
    let Manner { driver, vocabulary, shares } = manner;
    let pool = Pool { driver: driver.clone(), node: String::new() };
    let shares = Some(shares);
    let terms = Terms { pool: &pool, owner: None, vocabulary, kernel, shares, taints: None };
    filter.judge(driver, &seen(devices, &terms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, pool, record};

    async fn sifted(filter: &str, held: &[Record], memory: &mut Memory) -> Vec<String> {
        let sieve = Sieve::Only(Filter::compile(filter).unwrap());
        let pool = pool();
        let devices = ["eth1", "eth2", "eth3"].map(device).to_vec();
        let passed = sieve.sift(devices, held, &Terms::of(&pool), memory).await;
        passed.into_iter().map(|device| device.name.to_string()).collect()
    }

    /// Every one of these takes longer than a filter may.
    fn endless() -> String {
        let list = format!("[{}]", vec!["0"; 1000].join(","));
        format!("{list}.all(a, {list}.all(b, {list}.size() + a + b > 0))")
    }

    #[tokio::test]
    async fn only_what_the_filter_is_true_of_passes() {
        let filter = "device.attributes['weir.dev'].ifName != 'eth2'";
        let mut memory = Memory::default();
        assert_eq!(sifted(filter, &[], &mut memory).await, ["eth1", "eth3"]);
        assert!(memory.complaints().is_empty());
    }

    #[tokio::test]
    async fn what_is_held_passes_whatever_the_filter_says() {
        let held = [record(device("eth2"))];
        let mut memory = Memory::default();
        assert_eq!(sifted("false", &held, &mut memory).await, ["eth2"]);
        let names = sifted("device.attributes['weir.dev'].nothing", &held, &mut memory).await;
        assert_eq!(names, ["eth2"]);
        let complaining: Vec<_> = memory.complaints().keys().map(DeviceName::as_str).collect();
        assert_eq!((complaining, memory.unanswered()), (vec!["eth1", "eth3"], 0));
    }

    #[tokio::test]
    async fn a_filter_that_does_not_answer_changes_nothing() {
        let mut memory = Memory::default();
        let filter = "device.attributes['weir.dev'].ifName != 'eth2'";
        assert_eq!(sifted(filter, &[], &mut memory).await, ["eth1", "eth3"]);
        assert_eq!(sifted(&endless(), &[], &mut memory).await, ["eth1", "eth3"]);
        assert_eq!((memory.unanswered(), memory.again(Instant::now()).is_some()), (3, true));
        // It says no the next time that it says anything.
        assert_eq!(sifted("false", &[], &mut memory).await, [""; 0]);
        assert_eq!((memory.unanswered(), memory.again(Instant::now())), (0, None));
    }

    #[tokio::test]
    async fn what_was_published_before_the_start_passes_until_the_filter_answers() {
        let mut memory = Memory::default();
        memory.recall(["eth2".parse().unwrap()]);
        assert_eq!(sifted(&endless(), &[], &mut memory).await, ["eth2"]);
    }

    #[tokio::test]
    async fn without_a_filter_everything_passes_and_goes_on_to() {
        let (mut memory, pool) = (Memory::default(), pool());
        let devices = ["eth1", "eth3"].map(device).to_vec();
        let all = Sieve::All.sift(devices.clone(), &[], &Terms::of(&pool), &mut memory).await;
        assert_eq!(all, devices);
        assert_eq!(sifted(&endless(), &[], &mut memory).await, ["eth1", "eth3"]);
    }

    #[test]
    fn silence_is_told_of_once_a_minute() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let silent = || (("eth1").parse().unwrap(), Err(NoAnswer::Busy.into()));
        memory.note([silent()].into_iter());
        let told = memory.told.unwrap();
        assert!(told >= now);
        memory.tell(told + TELL_EVERY / 2);
        assert_eq!(memory.told, Some(told));
        memory.tell(told + TELL_EVERY);
        assert_eq!(memory.told, Some(told + TELL_EVERY));
    }
}
