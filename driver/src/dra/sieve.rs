//! Which devices pass: what the filter says of each, held against what it must not decide.

use std::collections::BTreeMap;

use super::Pool;
use super::attributes::{Names, Vocabulary};
use super::filter::{Filter, Verdict};
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

/// What did not pass because the filter could not tell, and why.
pub(super) type Complaints = BTreeMap<DeviceName, String>;

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
    ) -> (Vec<Device>, Complaints) {
        let Self::Only(filter) = self else { return (devices, Complaints::new()) };
        let is_held = |device: &Device| records.iter().any(|it| it.device.name == device.name);
        let open: Vec<_> = devices.iter().filter(|device| !is_held(device)).cloned().collect();
        let (filter, driver) = (filter.clone(), terms.pool.driver.clone());
        let rendered = seen(&open, terms);
        let judging = tokio::task::spawn_blocking(move || filter.judge(&driver, rendered));
        let verdicts = match judging.await {
            Ok(verdicts) => verdicts,
            Err(ended) => vec![Err(ended.to_string()); open.len()],
        };
        let mut complaints = Complaints::new();
        let mut stopped: Vec<DeviceName> = Vec::new();
        for (device, verdict) in open.into_iter().zip(verdicts) {
            match verdict {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => drop(complaints.insert(device.name.clone(), error)),
            }
            stopped.push(device.name);
        }
        let passed = devices.into_iter().filter(|it| !stopped.contains(&it.name)).collect();
        (passed, complaints)
    }
}

/// Devices as selectors see them.
fn seen(devices: &[Device], terms: &Terms<'_>) -> Vec<k8s_openapi::api::resource::v1::Device> {
    let slices = render(devices, terms, 0);
    slices.into_iter().filter_map(|slice| slice.spec.devices).flatten().collect()
}

/// What a filter says of each device where `driver` is the driver's name and `kernel` what
/// `uname -r` prints, for those who only look. Blocks.
pub fn verdicts(filter: &Filter, devices: &[Device], driver: &str, kernel: &str) -> Vec<Verdict> {
    let pool = Pool { driver: driver.to_owned(), node: String::new() };
    let vocabulary = Vocabulary { names: Names::Ours, domain: driver.to_owned() };
    let vocabulary = &vocabulary;
    let terms = Terms { pool: &pool, owner: None, vocabulary, kernel, shares: None, taints: None };
    filter.judge(driver, seen(devices, &terms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, pool, record};

    async fn passed(filter: &str, held: &[Record]) -> (Vec<String>, Complaints) {
        let sieve = Sieve::Only(Filter::compile(filter).unwrap());
        let pool = pool();
        let devices = ["eth1", "eth2", "eth3"].map(device).to_vec();
        let (passed, complaints) = sieve.sift(devices, held, &Terms::of(&pool)).await;
        (passed.into_iter().map(|device| device.name.to_string()).collect(), complaints)
    }

    #[tokio::test]
    async fn only_what_the_filter_is_true_of_passes() {
        let filter = "device.attributes['weir.dev'].ifName != 'eth2'";
        assert_eq!(
            passed(filter, &[]).await,
            (vec!["eth1".into(), "eth3".into()], BTreeMap::new())
        );
    }

    #[tokio::test]
    async fn what_is_held_passes_whatever_the_filter_says() {
        let held = [record(device("eth2"))];
        assert_eq!(passed("false", &held).await, (vec!["eth2".into()], BTreeMap::new()));
        let (names, complaints) = passed("device.attributes['weir.dev'].nothing", &held).await;
        assert_eq!(names, ["eth2"]);
        let complaining: Vec<_> = complaints.keys().map(DeviceName::as_str).collect();
        assert_eq!(complaining, ["eth1", "eth3"]);
    }
}
