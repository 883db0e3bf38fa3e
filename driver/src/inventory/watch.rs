//! The thread that looks again whenever something has changed, at what has changed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{fmt, thread};

use tokio::runtime::{self, Runtime};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Held, IdleFunction, InventoryError, LeftOut, Rules, Scan, Scanner};
use crate::model::{Device, PublishRules};
use crate::sys::netlink::{Changes, Events, NetlinkError};
use crate::sys::sysfs::Sysfs;

/// How long to wait after a change: they come in bursts, one for each detail of a new interface.
const SETTLE: Duration = Duration::from_millis(100);
/// Shortest time from one look to the next, unless somebody asks.
const REST: Duration = Duration::from_secs(1);
/// From one question whether programs came or went to the next: nobody tells of that.
const POLL: Duration = Duration::from_secs(1);
/// From one look at everything to the next, for whatever nobody tells of.
const PERIOD: Duration = Duration::from_mins(1);

type Devices = Arc<Vec<Device>>;
type Idle = Arc<Vec<IdleFunction>>;
type Followed = Arc<PublishRules>;
type Receivers = (watch::Receiver<Devices>, watch::Receiver<Idle>, watch::Receiver<Followed>);

/// The devices of this node, as last seen.
#[derive(Clone)]
pub struct Inventory {
    devices: watch::Receiver<Devices>,
    idle: watch::Receiver<Idle>,
    /// By which rules the devices were picked.
    followed: watch::Receiver<Followed>,
    wish: Arc<Notify>,
    /// Where no thread holds it: a receiver must not see its sender go.
    _sender: Option<Arc<(watch::Sender<Devices>, watch::Sender<Idle>)>>,
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

    /// The same, offering what these rules say, and leaving their names to those that claims have.
    /// Whoever changes the rules calls [`Self::follow`].
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_following(
        sysfs: PathBuf,
        shutdown: CancellationToken,
        rules: Option<(Rules, Held)>,
    ) -> Result<Self, InventoryError> {
        let wish = Arc::new(Notify::new());
        let (first, seen) = mpsc::sync_channel(1);
        let wished = Arc::clone(&wish);
        thread::Builder::new()
            .name("inventory".to_owned())
            .spawn(move || match Watcher::new(&sysfs, wished, shutdown, rules) {
                Ok((watcher, receivers)) => {
                    let _ = first.send(Ok(receivers));
                    watcher.run();
                }
                Err(error) => drop(first.send(Err(error))),
            })
            .map_err(InventoryError::Start)?;
        let ended = |_| InventoryError::Start(std::io::Error::other("the thread has ended"));
        let (devices, idle, followed) = seen.recv().map_err(ended)??;
        Ok(Self { devices, idle, followed, wish, _sender: None })
    }

    /// An inventory that never changes.
    pub fn fixed(devices: Vec<Device>) -> Self {
        let (sender, devices) = watch::channel(Arc::new(devices));
        let (idle_sender, idle) = watch::channel(Idle::default());
        let followed = watch::channel(Followed::default()).1;
        let senders = Arc::new((sender, idle_sender));
        Self { devices, idle, followed, wish: Arc::default(), _sender: Some(senders) }
    }

    /// The devices as last seen, sorted by name.
    pub fn devices(&self) -> Arc<Vec<Device>> {
        Arc::clone(&self.devices.borrow())
    }

    /// Tells of every change of the devices.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Device>>> {
        self.devices.clone()
    }

    /// Tells which network controllers are on PCI from which nothing can be had.
    pub fn idle(&self) -> watch::Receiver<Arc<Vec<IdleFunction>>> {
        self.idle.clone()
    }

    /// Returns when the thread that looks has ended, and not before.
    pub async fn ended(&self) {
        let mut devices = self.devices.clone();
        while devices.changed().await.is_ok() {}
    }

    /// Has the thread look at once at what has changed, as after a device came back from a pod. What
    /// the kernel tells of is there already when whoever made the change asks for this.
    pub fn rescan(&self) {
        self.wish.notify_one();
    }

    /// Returns when the devices are those that `rules`, which have just been sent, let through; or when
    /// nobody looks any more.
    pub async fn follow(&self, rules: &Arc<PublishRules>) {
        self.wish.notify_one();
        let _ = self.followed.clone().wait_for(|followed| Arc::ptr_eq(followed, rules)).await;
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
    /// `None` after the sockets failed, until the next attempt.
    events: Option<Events>,
    devices: watch::Sender<Devices>,
    idle: watch::Sender<Idle>,
    followed: watch::Sender<Followed>,
    left_out: Vec<LeftOut>,
    wish: Arc<Notify>,
    shutdown: CancellationToken,
    pending: Pending,
    times: Times,
    /// Whether the kernel let us list programs at the last attempt; told where it did not.
    can_poll: bool,
}

/// What there is to do after waiting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    /// At what is pending.
    Look,
    /// At programs, and at what is pending.
    LookNow,
    /// At programs alone.
    Poll,
    LookAtEverything,
    Stop,
}

/// What was told and has not been looked at.
#[derive(Debug, Default)]
struct Pending {
    changes: Changes,
    /// When the first of it was told.
    since: Option<Instant>,
}

/// When something was done, or has to be.
#[derive(Clone, Copy, Debug)]
struct Times {
    last_look: Instant,
    next_poll: Instant,
    next_scan: Instant,
}

impl Pending {
    fn add(&mut self, changes: Changes, now: Instant) {
        if !changes.is_empty() {
            self.changes.add(changes);
            self.since.get_or_insert(now);
        }
    }

    /// A change may be the first of many, and the last look not long ago.
    fn due(&self, times: &Times) -> Option<Instant> {
        self.since.map(|since| (since + SETTLE).max(times.last_look + REST))
    }

    fn take(&mut self) -> Changes {
        std::mem::take(self).changes
    }
}

impl Times {
    fn from(now: Instant) -> Self {
        Self { last_look: now, next_poll: now + POLL, next_scan: now + PERIOD }
    }
}

impl Watcher {
    fn new(
        sysfs: &Path,
        wish: Arc<Notify>,
        shutdown: CancellationToken,
        rules: Option<(Rules, Held)>,
    ) -> Result<(Self, Receivers), InventoryError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(InventoryError::Start)?;
        // Listening begins before the first look, so that no change falls between them.
        let events = runtime.block_on(async { Events::open() })?;
        let mut scanner = Scanner::new(Sysfs::new(sysfs)?)?;
        if let Some((rules, held)) = rules {
            scanner = scanner.following(rules).knowing(held);
        }
        let Scan { devices, left_out, idle } = scanner.scan()?;
        tell_left_out(&left_out);
        let (sender, devices) = watch::channel(Arc::new(devices));
        let (idle_sender, idle) = watch::channel(Arc::new(idle));
        let (follows, followed) = watch::channel(scanner.followed());
        let watcher = Self {
            scanner,
            runtime,
            events: Some(events),
            devices: sender,
            idle: idle_sender,
            followed: follows,
            left_out,
            wish,
            shutdown,
            pending: Pending::default(),
            times: Times::from(Instant::now()),
            can_poll: true,
        };
        Ok((watcher, (devices, idle, followed)))
    }

    fn run(mut self) {
        loop {
            let events = self.events.as_ref();
            let waiting = wait(events, &self.wish, &self.shutdown, &mut self.pending, &self.times);
            // Looking blocks, so it happens outside the runtime.
            match self.runtime.block_on(waiting) {
                Ok(Next::Stop) => return,
                Ok(Next::LookAtEverything) => self.look(&Changes::everything()),
                Ok(Next::Look) => self.look_at_pending(),
                Ok(Next::LookNow) => {
                    let changes = self.poll();
                    self.pending.add(changes, Instant::now());
                    self.look_at_pending();
                }
                Ok(Next::Poll) => {
                    let changes = self.poll();
                    if !changes.is_empty() {
                        self.look(&changes);
                    }
                }
                Err(error) => self.lost(&error),
            }
        }
    }

    /// Where programs came or went.
    fn poll(&mut self) -> Changes {
        self.times.next_poll = Instant::now() + POLL;
        if !self.can_poll {
            return Changes::default();
        }
        self.scanner.attached().unwrap_or_else(|error| {
            let error = &error as &dyn Error;
            tracing::warn!(error, "programs of others are seen late");
            self.can_poll = false;
            Changes::default()
        })
    }

    /// What was told until now is looked at together.
    fn look_at_pending(&mut self) {
        match self.events.as_ref().map(Events::drain) {
            Some(Ok(changes)) => self.pending.add(changes, Instant::now()),
            Some(Err(error)) => return self.lost(&error),
            None => {}
        }
        let changes = self.pending.take();
        // Rules are wishes, of which the kernel tells nothing.
        if !changes.is_empty() || self.scanner.has_new_rules() {
            self.look(&changes);
        }
    }

    fn lost(&mut self, error: &NetlinkError) {
        tracing::error!(error = error as &dyn Error, "lost the kernel's news about the network");
        self.events = None;
        self.times.next_scan = Instant::now() + REST;
    }

    /// Looks, and publishes what is different.
    fn look(&mut self, changes: &Changes) {
        if changes.everything {
            self.listen();
            // Whatever was in the way may be gone.
            self.can_poll = true;
        }
        let seen = self.scanner.rescan(changes);
        let is_well = seen.is_ok() && self.events.is_some();
        match seen {
            Ok(scan) => self.publish(scan),
            Err(error) => {
                tracing::error!(error = &error as &dyn Error, "cannot tell this node's devices");
            }
        }
        let now = Instant::now();
        self.times.last_look = now;
        if !is_well {
            self.times.next_scan = now + REST;
        } else if changes.everything {
            self.times.next_scan = now + PERIOD;
        }
    }

    /// Listens again where that failed, and to what may be there only now. What went wrong was logged
    /// when it first did.
    fn listen(&mut self) {
        let _entered = self.runtime.enter();
        match &mut self.events {
            Some(events) => events.complete(),
            None => self.events = Events::open().ok(),
        }
    }

    fn publish(&mut self, scan: Scan) {
        if self.left_out != scan.left_out {
            let is_news = |it: &&LeftOut| !self.left_out.contains(it);
            tell_left_out(scan.left_out.iter().filter(is_news));
            self.left_out = scan.left_out;
        }
        self.idle.send_if_modified(|idle| {
            let has_changed = **idle != scan.idle;
            if has_changed {
                for IdleFunction { address, reason } in &scan.idle {
                    tracing::info!(%address, reason, "left out of this node's devices");
                }
                *idle = Arc::new(scan.idle);
            }
            has_changed
        });
        self.devices.send_if_modified(|devices| {
            let has_changed = **devices != scan.devices;
            if has_changed {
                *devices = Arc::new(scan.devices);
            }
            has_changed
        });
        // After the devices, for whoever waits for both.
        self.followed.send_replace(self.scanner.followed());
    }
}

/// Waits until there is reason to look: a wish, what is pending (once it has settled, and not too soon
/// after the last look), or that it is time to.
async fn wait(
    events: Option<&Events>,
    wish: &Notify,
    shutdown: &CancellationToken,
    pending: &mut Pending,
    times: &Times,
) -> Result<Next, NetlinkError> {
    loop {
        let due = pending.due(times);
        let news = async {
            match events {
                Some(events) => events.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(Next::Stop),
            () = wish.notified() => return Ok(Next::LookNow),
            () = sleep_until(times.next_scan) => return Ok(Next::LookAtEverything),
            () = sleep_until(due.unwrap_or(times.next_scan)), if due.is_some() => {
                return Ok(Next::Look);
            }
            () = sleep_until(times.next_poll) => return Ok(Next::Poll),
            changes = news => pending.add(changes?, Instant::now()),
        }
    }
}

fn tell_left_out<'a>(left_out: impl IntoIterator<Item = &'a LeftOut>) {
    for LeftOut { called, reason, detail } in left_out {
        tracing::info!(interface = called, reason, detail, "left out of this node's devices");
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
        let idle = watch::channel(Idle::default()).1;
        let followed = watch::channel(Followed::default()).1;
        let inventory = Inventory { devices, idle, followed, wish: Arc::default(), _sender: None };
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

    async fn next(pending: &mut Pending, wish: &Notify, times: &Times) -> Next {
        wait(None, wish, &CancellationToken::new(), pending, times).await.unwrap()
    }

    #[tokio::test]
    async fn somebody_who_asks_does_not_wait() {
        let wish = Notify::new();
        wish.notify_one();
        let times = Times::from(Instant::now());
        assert_eq!(next(&mut Pending::default(), &wish, &times).await, Next::LookNow);
    }

    #[tokio::test]
    async fn without_any_news_there_are_polls_and_scans_when_it_is_time() {
        let (wish, mut pending) = (Notify::new(), Pending::default());
        let now = Instant::now();
        let soon = now + Duration::from_millis(20);
        let times = Times { next_poll: soon, ..Times::from(now) };
        assert_eq!(next(&mut pending, &wish, &times).await, Next::Poll);
        assert!(Instant::now() >= soon);
        let times = Times { next_scan: soon, ..Times::from(now) };
        assert_eq!(next(&mut pending, &wish, &times).await, Next::LookAtEverything);

        let stopped = CancellationToken::new();
        stopped.cancel();
        let next = wait(None, &wish, &stopped, &mut pending, &times).await.unwrap();
        assert_eq!(next, Next::Stop);
    }

    #[test]
    fn what_changes_settles_and_is_not_looked_at_too_often() {
        let now = Instant::now();
        let mut times = Times::from(now);
        let mut pending = Pending::default();
        assert_eq!(pending.due(&times), None);
        let change = || Changes { default_routes: true, ..Changes::default() };
        pending.add(Changes::default(), now);
        assert_eq!(pending.due(&times), None, "that was nothing");
        pending.add(change(), now);
        assert_eq!(pending.due(&times), Some(now + REST), "after the last look");
        // Long after it only until it has settled, however much follows.
        times.last_look = now.checked_sub(PERIOD).unwrap_or(now);
        pending.add(change(), now + SETTLE / 2);
        assert!(times.last_look == now || pending.due(&times) == Some(now + SETTLE));
        assert_eq!((pending.take(), pending.due(&times)), (change(), None));
    }
}
