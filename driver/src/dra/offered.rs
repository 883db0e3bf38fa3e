//! What the driver of this node offers and why not the rest, for `weir devices` to say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::attributes::{Names, Vocabulary};
use super::filter::Undecided;
use super::sharing::Shares;
use super::sieve::Memory;
use crate::model::{Device, DeviceName, ProvidedValue, Record};
use crate::sys::disk::{self, Survival, on_disk};

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
    fn write(&self, state_dir: &Path) -> io::Result<()> {
        disk::replace(&state_dir.join(OFFERED), &serde_json::to_vec(self)?, Survival::Any)
    }
}

/// Where it is shown, and what is there by now.
#[derive(Debug)]
pub(super) struct Shown {
    /// `None` where nobody asks.
    state_dir: Option<PathBuf>,
    last: Option<Offered>,
}

impl Shown {
    pub(super) fn new(state_dir: Option<PathBuf>) -> Self {
        Self { state_dir, last: None }
    }

    /// Without it `weir devices` would have to guess. What could not be written is written the next time.
    pub(super) async fn show(&mut self, offered: Offered) {
        let Some(state_dir) =
            self.state_dir.clone().filter(|_| self.last.as_ref() != Some(&offered))
        else {
            return;
        };
        let write = move || offered.write(&state_dir).map(|()| offered);
        match on_disk(write).await {
            Ok(offered) => self.last = Some(offered),
            Err(error) => tracing::warn!(%error, "what is offered is not shown"),
        }
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

    #[tokio::test]
    async fn what_could_not_be_shown_is_shown_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("later");
        let mut shown = Shown::new(Some(place.clone()));
        shown.show(Offered::default()).await;
        fs::create_dir(&place).unwrap();
        shown.show(Offered::default()).await;
        assert_eq!(super::offered(&place).unwrap(), Some(Offered::default()));
    }

    /// A pipe that nobody reads keeps whoever opens it waiting, as a disk may.
    #[tokio::test]
    async fn nothing_else_waits_for_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join(OFFERED).with_extension("new");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let went_on = told.recv_timeout(std::time::Duration::from_mins(1));
            (went_on, fs::read(&pipe).unwrap())
        });
        let mut shown = Shown::new(Some(directory.path().to_owned()));
        tokio::join!(shown.show(Offered::default()), async { tell.send(()).unwrap() });
        let (went_on, written) = reader.join().unwrap();
        assert_eq!(went_on, Ok(()));
        assert_eq!(serde_json::from_slice::<Offered>(&written).unwrap(), Offered::default());
    }
}
