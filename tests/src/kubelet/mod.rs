//! Kubelet, as far as a DRA driver meets it.
//!
//! It owns `plugins` and `plugins_registry` below a root directory, finds sockets in the latter,
//! registers what answers there, and calls a driver's service the way the real one does: one unix
//! socket, one call with all claims, a deadline that is told the other side. It knows no pods; when
//! to prepare and unprepare is the test's business.

mod driver;
mod health;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

pub use self::driver::{Answers, Driver, DriverError, PreparedDevice, Service};
pub use self::health::{Believed, DeviceState, HealthVersion, HealthWatch};

/// How often the registration directory is read. The real kubelet is told by inotify.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The pause after a registration that failed. The real one's grows to two minutes.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// A running kubelet. It ends when it is dropped; sockets and directories stay.
#[derive(Debug)]
pub struct Kubelet {
    drivers: watch::Receiver<BTreeMap<String, Driver>>,
    task: JoinHandle<()>,
}

impl Kubelet {
    /// Starts a kubelet of today, which prefers the newest service.
    ///
    /// # Errors
    ///
    /// When its directories cannot be made.
    pub fn start(root: &Path) -> io::Result<Self> {
        Self::start_knowing(root, &[Service::V1, Service::V1Beta1])
    }

    /// Starts a kubelet that knows only these services, the preferred first.
    ///
    /// # Errors
    ///
    /// When its directories cannot be made.
    pub fn start_knowing(root: &Path, services: &[Service]) -> io::Result<Self> {
        let registry = root.join("plugins_registry");
        for directory in [&registry, &root.join("plugins")] {
            DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
        }
        let (sender, drivers) = watch::channel(BTreeMap::new());
        let task = tokio::spawn(look_after(registry, services.to_vec(), sender));
        Ok(Self { drivers, task })
    }

    /// The registered driver of that name.
    pub fn driver(&self, name: &str) -> Option<Driver> {
        self.drivers.borrow().get(name).cloned()
    }

    /// Waits for a driver to be registered.
    ///
    /// # Errors
    ///
    /// When it is not within `limit`; the message names those that are.
    pub async fn wait_for_driver(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<Driver, DriverError> {
        let mut drivers = self.drivers.clone();
        let found = timeout(limit, drivers.wait_for(|drivers| drivers.contains_key(name))).await;
        match found {
            Ok(Ok(drivers)) => Ok(drivers[name].clone()),
            _ => Err(DriverError::NotRegistered {
                name: name.to_owned(),
                registered: self.drivers.borrow().keys().cloned().collect(),
            }),
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A socket file: its path and which file it is. One that was removed and made again under the same
/// path is another one.
type Found = (PathBuf, (u64, u64, i64, i64));

/// Registers what appears and forgets what goes.
async fn look_after(
    registry: PathBuf,
    services: Vec<Service>,
    drivers: watch::Sender<BTreeMap<String, Driver>>,
) {
    let mut names: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut known: HashSet<Found> = HashSet::new();
    loop {
        let there = sockets(&registry);
        for gone in known.difference(&there) {
            if let Some(name) = names.remove(&gone.0) {
                tracing::info!(name, "driver gone");
                drivers.send_modify(|drivers| drop(drivers.remove(&name)));
            }
        }
        known.retain(|found| there.contains(found));
        for found in there {
            if known.contains(&found) {
                continue;
            }
            match driver::register(&found.0, &services).await {
                Ok(driver) => {
                    tracing::info!(name = driver.name(), service = ?driver.service(), "registered");
                    names.insert(found.0.clone(), driver.name().to_owned());
                    drivers.send_modify(|drivers| {
                        drivers.insert(driver.name().to_owned(), driver);
                    });
                    known.insert(found);
                }
                Err(error) => {
                    tracing::warn!(%error, path = %found.0.display(), "not registered");
                    sleep(TRY_AGAIN).await;
                }
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// The sockets in a directory. Names with a dot in front are nobody's yet.
fn sockets(directory: &Path) -> HashSet<Found> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| {
            let file = fs::symlink_metadata(entry.path()).ok()?;
            let which = (file.dev(), file.ino(), file.ctime(), file.ctime_nsec());
            file.file_type().is_socket().then(|| (entry.path(), which))
        })
        .collect()
}
