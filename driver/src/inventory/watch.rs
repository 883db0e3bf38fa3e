//! The thread that looks again whenever the network has changed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{fmt, thread};

use tokio::runtime::{self, Runtime};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{InventoryError, LeftOut, Rules, Scan, Scanner};
use crate::model::Device;
use crate::sys::netlink::{LinkEvents, NetlinkError};
use crate::sys::sysfs::Sysfs;

/// How long to wait after a change: they come in bursts, one for each detail of a new interface.
const SETTLE: Duration = Duration::from_millis(100);
/// Shortest time from one scan to the next, unless somebody asks.
const REST: Duration = Duration::from_secs(1);
/// Longest time from one scan to the next: programs come and go without an event.
const PERIOD: Duration = Duration::from_mins(1);

type Devices = Arc<Vec<Device>>;

/// The devices of this node, as last seen.
#[derive(Clone)]
pub struct Inventory {
    devices: watch::Receiver<Devices>,
    wish: Arc<Notify>,
    /// Where no thread holds it: a receiver must not see its sender go.
    _sender: Option<Arc<watch::Sender<Devices>>>,
}

impl Inventory {
    /// Looks at the interfaces of the calling thread's namespace, which `sysfs` must show, and keeps
    /// looking on a thread of its own until `shutdown`.
    ///
    /// Blocks for the first scan, a matter of milliseconds, so that nobody ever takes "not looked
    /// yet" for "no devices".
    ///
    /// # Errors
    ///
    /// [`InventoryError::Start`], or why the first scan failed. A later scan that fails is logged
    /// and repeated; the devices stay as they were.
    pub fn start(sysfs: PathBuf, shutdown: CancellationToken) -> Result<Self, InventoryError> {
        Self::start_following(sysfs, shutdown, None)
    }

    /// The same, offering what these rules say. Whoever changes them calls [`Self::rescan`].
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_following(
        sysfs: PathBuf,
        shutdown: CancellationToken,
        rules: Option<Rules>,
    ) -> Result<Self, InventoryError> {
        let wish = Arc::new(Notify::new());
        let (first, seen) = mpsc::sync_channel(1);
        let wished = Arc::clone(&wish);
        thread::Builder::new()
            .name("inventory".to_owned())
            .spawn(move || match Watcher::new(&sysfs, wished, shutdown, rules) {
                Ok((watcher, devices)) => {
                    let _ = first.send(Ok(devices));
                    watcher.run();
                }
                Err(error) => drop(first.send(Err(error))),
            })
            .map_err(InventoryError::Start)?;
        let ended = |_| InventoryError::Start(std::io::Error::other("the thread has ended"));
        let devices = seen.recv().map_err(ended)??;
        Ok(Self { devices, wish, _sender: None })
    }

    /// An inventory that never changes.
    pub fn fixed(devices: Vec<Device>) -> Self {
        let (sender, devices) = watch::channel(Arc::new(devices));
        Self { devices, wish: Arc::default(), _sender: Some(Arc::new(sender)) }
    }

    /// The devices as last seen, sorted by name.
    pub fn devices(&self) -> Arc<Vec<Device>> {
        Arc::clone(&self.devices.borrow())
    }

    /// Tells of every change of the devices.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Device>>> {
        self.devices.clone()
    }

    /// Returns when the thread that looks has ended, and not before.
    pub async fn ended(&self) {
        let mut devices = self.devices.clone();
        while devices.changed().await.is_ok() {}
    }

    /// Has the thread look again at once, as after a device came back from a pod.
    pub fn rescan(&self) {
        self.wish.notify_one();
    }
}

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inventory").field("devices", &self.devices().len()).finish()
    }
}

/// What lives on the thread.
struct Watcher {
    scanner: Scanner,
    runtime: Runtime,
    /// `None` after the socket failed, until the next attempt.
    events: Option<LinkEvents>,
    devices: watch::Sender<Devices>,
    left_out: Vec<LeftOut>,
    wish: Arc<Notify>,
    shutdown: CancellationToken,
}

/// What there is to do after waiting.
enum Next {
    Scan,
    Stop,
}

impl Watcher {
    fn new(
        sysfs: &Path,
        wish: Arc<Notify>,
        shutdown: CancellationToken,
        rules: Option<Rules>,
    ) -> Result<(Self, watch::Receiver<Devices>), InventoryError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(InventoryError::Start)?;
        // Listening begins before the first look, so that no change falls between them.
        let events = runtime.block_on(async { LinkEvents::open() })?;
        let mut scanner = Scanner::new(Sysfs::new(sysfs)?)?;
        if let Some(rules) = rules {
            scanner = scanner.following(rules);
        }
        let Scan { devices, left_out } = scanner.scan()?;
        tell_left_out(&left_out);
        let (sender, receiver) = watch::channel(Arc::new(devices));
        let watcher = Self {
            scanner,
            runtime,
            events: Some(events),
            devices: sender,
            left_out,
            wish,
            shutdown,
        };
        Ok((watcher, receiver))
    }

    fn run(mut self) {
        let mut period = PERIOD;
        loop {
            let last_scan = Instant::now();
            let waiting = wait(
                self.events.as_ref(),
                &self.wish,
                &self.shutdown,
                last_scan + REST,
                last_scan + period,
            );
            // Scanning blocks, so it happens outside the runtime.
            match self.runtime.block_on(waiting) {
                Ok(Next::Scan) => {}
                Ok(Next::Stop) => return,
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::error!(error, "lost the kernel's news about the network");
                    self.events = None;
                }
            }
            period = if self.look() { PERIOD } else { REST };
        }
    }

    /// Scans, and publishes what has changed. Whether everything went well.
    fn look(&mut self) -> bool {
        if self.events.is_none() {
            // What went wrong was logged when it first did.
            self.events = self.runtime.block_on(async { LinkEvents::open() }).ok();
        }
        match self.scanner.scan() {
            Ok(scan) => {
                self.publish(scan);
                self.events.is_some()
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn Error, "cannot tell this node's devices");
                false
            }
        }
    }

    fn publish(&mut self, scan: Scan) {
        if self.left_out != scan.left_out {
            tell_left_out(&scan.left_out);
            self.left_out = scan.left_out;
        }
        self.devices.send_if_modified(|devices| {
            let has_changed = **devices != scan.devices;
            if has_changed {
                *devices = Arc::new(scan.devices);
            }
            has_changed
        });
    }
}

/// Waits until there is reason to scan: a wish, a change (once it has settled, and not before
/// `earliest`), or that it is `latest`.
async fn wait(
    events: Option<&LinkEvents>,
    wish: &Notify,
    shutdown: &CancellationToken,
    earliest: Instant,
    latest: Instant,
) -> Result<Next, NetlinkError> {
    let changed = async {
        match events {
            Some(events) => events.changed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(Next::Stop),
        () = wish.notified() => return Ok(Next::Scan),
        changed = changed => changed?,
        () = sleep_until(latest) => return Ok(Next::Scan),
    }
    let rest = earliest.saturating_duration_since(Instant::now());
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(Next::Stop),
        () = wish.notified() => Ok(Next::Scan),
        () = sleep(SETTLE.max(rest)) => Ok(Next::Scan),
    }
}

fn tell_left_out(left_out: &[LeftOut]) {
    for LeftOut { interface, reason, detail } in left_out {
        tracing::info!(%interface, reason, detail, "left out of this node's devices");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_inventory_stays() {
        let inventory = Inventory::fixed(Vec::new());
        let watch = inventory.watch();
        inventory.rescan();
        assert_eq!(inventory.devices().len(), 0);
        assert!(watch.has_changed().is_ok(), "its sender lives as long as it does");
    }

    #[tokio::test]
    async fn the_end_of_the_thread_is_noticed() {
        let (sender, devices) = watch::channel(Devices::default());
        let inventory = Inventory { devices, wish: Arc::default(), _sender: None };
        // A change is not the end.
        sender.send_replace(Devices::default());
        let ended = tokio::spawn(async move { inventory.ended().await });
        tokio::task::yield_now().await;
        assert!(!ended.is_finished());
        drop(sender);
        ended.await.unwrap();
    }

    #[test]
    fn a_sysfs_that_is_not_there_is_told_at_start() {
        let error = Inventory::start("/nowhere".into(), CancellationToken::new()).unwrap_err();
        assert_eq!(error.reason(), "sysfs");
    }

    #[tokio::test]
    async fn somebody_who_asks_does_not_wait_for_the_rest_of_a_second() {
        let (wish, shutdown) = (Notify::new(), CancellationToken::new());
        let now = Instant::now();
        wish.notify_one();
        let next = wait(None, &wish, &shutdown, now + PERIOD, now + PERIOD).await.unwrap();
        assert!(matches!(next, Next::Scan));
        assert!(now.elapsed() < PERIOD / 2);
    }

    #[tokio::test]
    async fn without_any_news_there_is_a_scan_when_the_period_ends() {
        let (wish, shutdown) = (Notify::new(), CancellationToken::new());
        let soon = Instant::now() + Duration::from_millis(20);
        let next = wait(None, &wish, &shutdown, soon, soon).await.unwrap();
        assert!(matches!(next, Next::Scan));
        assert!(Instant::now() >= soon);

        shutdown.cancel();
        let next = wait(None, &wish, &shutdown, soon, soon).await.unwrap();
        assert!(matches!(next, Next::Stop));
    }
}
