//! What the driver of this node offers and why not the rest, for `weir devices` to say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::attributes::{Names, Vocabulary};
use super::filter::Undecided;
use super::sharing::Shares;
use super::sieve::Memory;
use crate::model::{Device, DeviceName, ProvidedValue, Record};

/// Below the state directory.
const OFFERED: &str = "offered.json";

/// How devices are described, on which a filter depends.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manner {
    /// The driver's name.
    pub driver: String,
    pub vocabulary: Vocabulary,
    pub shares: Shares,
}

impl Default for Manner {
    fn default() -> Self {
        let driver = "weir.dev".to_owned();
        let vocabulary = Vocabulary { names: Names::Ours, domain: driver.clone() };
        Self { driver, vocabulary, shares: Shares::new() }
    }
}

/// What a driver offered when it last published.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offered {
    pub manner: Manner,
    pub devices: BTreeMap<DeviceName, OfferedDevice>,
}

/// One device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferedDevice {
    /// As [`Device::called`] calls it.
    pub called: String,
    pub standing: Standing,
    /// What providers said of it.
    #[serde(default)]
    pub provided: BTreeMap<String, ProvidedValue>,
}

/// Whether a device is published, and why.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    Published,
    /// Nobody has judged it.
    Unknown,
    /// Published as it was, because a claim has it.
    Held,
    /// The names that are published have none for it.
    Unnamed,
    Filtered,
    Failed(String),
    /// The filter did not answer, so it is as it was.
    Unanswered {
        published: bool,
        why: String,
    },
}

impl Standing {
    pub fn is_published(&self) -> bool {
        match self {
            Self::Published | Self::Held => true,
            Self::Unknown | Self::Unnamed | Self::Filtered | Self::Failed(_) => false,
            Self::Unanswered { published, .. } => *published,
        }
    }
}

impl Offered {
    /// `all` that could be published or is held, of which `passed` are.
    pub(super) fn of(
        manner: Manner,
        all: &[Device],
        passed: &[Device],
        records: &[Record],
        memory: &Memory,
    ) -> Self {
        let passed: BTreeSet<_> = passed.iter().map(|device| &device.name).collect();
        let held: BTreeSet<_> = records.iter().map(|record| &record.device.name).collect();
        let standing = |device: &Device| {
            let published = passed.contains(&device.name);
            if published && held.contains(&device.name) {
                return Standing::Held;
            }
            match memory.complaints().get(&device.name) {
                Some(Undecided::NoAnswer(why)) => {
                    Standing::Unanswered { published, why: why.to_string() }
                }
                Some(Undecided::Failed(error)) => Standing::Failed(error.clone()),
                None if published => Standing::Published,
                None if !manner.vocabulary.names.has(device) => Standing::Unnamed,
                None => Standing::Filtered,
            }
        };
        let one = |device: &Device| {
            let called = device.called().to_owned();
            let (standing, provided) = (standing(device), device.provided.clone());
            (device.name.clone(), OfferedDevice { called, standing, provided })
        };
        Self { devices: all.iter().map(one).collect(), manner }
    }

    /// Shows it to whoever asks on this node.
    pub(super) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let path = state_dir.join(OFFERED);
        let next = path.with_extension("new");
        fs::write(&next, serde_json::to_vec(self)?)?;
        fs::rename(&next, &path)
    }
}

/// What the driver that keeps its state in this directory offered last; `None` where none ever did.
///
/// # Errors
///
/// Whatever reading the file fails with.
pub fn offered(state_dir: &Path) -> io::Result<Option<Offered>> {
    match fs::read(state_dir.join(OFFERED)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::filter::Filter;
    use crate::dra::fixtures::{device, everything, pool, record};
    use crate::dra::sieve::Sieve;
    use crate::dra::slices::Terms;
    use crate::model::VFIO_DRIVER;

    #[tokio::test]
    async fn each_device_has_its_reason_and_it_reads_as_it_was_written() {
        let names = Names::Dranet;
        let vocabulary = Vocabulary { names, domain: "dra.net".to_owned() };
        let manner = Manner { driver: "weir.dev".to_owned(), vocabulary, shares: Shares::new() };
        let bare = Device {
            driver: Some(VFIO_DRIVER.to_owned()),
            interface: None,
            ..everything("function")
        };
        let provided = [("a.b/rail".to_owned(), ProvidedValue::Int(3))].into();
        let mut all = ["eth1", "eth2", "eth3"].map(device).to_vec();
        all[0].provided = provided;
        let filter = "device.attributes['weir.dev'].ifName == 'eth1'";
        let sieve = Sieve::Only(Filter::compile(filter).unwrap());
        let (mut memory, pool) = (Memory::default(), pool());
        let held = [record(device("eth3"))];
        let terms = Terms::of(&pool);
        let passed = sieve.sift(all.clone(), &held, &terms, &mut memory).await;
        all.push(bare.clone());
        let offered = Offered::of(manner, &all, &passed, &held, &memory);
        let standing = |of: &str| &offered.devices[&of.parse::<DeviceName>().unwrap()].standing;
        let all = ["eth1", "eth2", "eth3", bare.name.as_str()].map(standing);
        let (published, held) = (&Standing::Published, &Standing::Held);
        assert_eq!(all, [published, &Standing::Filtered, held, &Standing::Unnamed]);

        let directory = tempfile::tempdir().unwrap();
        assert_eq!(super::offered(directory.path()).unwrap(), None);
        offered.write(directory.path()).unwrap();
        assert_eq!(super::offered(directory.path()).unwrap(), Some(offered));
    }
}
