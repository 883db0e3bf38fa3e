//! Prolongs leases for as long as they are held.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{self, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::schedule::{Duty, next};
use super::{DhcpError, talk};
use crate::attach::{AttachError, Tenancy, Worker};
use crate::model::{AttachmentId, Lease, Phase, Record};
use crate::sys::clock;
use crate::telemetry::chain;

/// Conversations at once, each with two threads at most.
const AT_ONCE: usize = 4;

/// How long a server may take when it is asked for more time. There is more than one try.
const LIMIT: Duration = Duration::from_secs(5);

/// Longest sleep, in seconds: the clock of leases goes on while the node sleeps, that of timers does
/// not.
const LONGEST_SLEEP: u64 = 60;

/// Watches over the leases of everything that is prepared or attached. What it needs to know is in
/// the checkpoint, so a new driver goes on where the last one was.
#[derive(Debug)]
pub struct Keeper {
    worker: Worker,
    /// Who has to hear of attachments that have another address.
    changed: mpsc::UnboundedSender<Vec<Record>>,
    tried: BTreeMap<AttachmentId, u64>,
    /// What is under way.
    busy: BTreeMap<AttachmentId, task::Id>,
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
}

impl Keeper {
    pub fn new(worker: Worker, changed: mpsc::UnboundedSender<Vec<Record>>) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let (tried, busy, tasks) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        Self { worker, changed, tried, busy, tasks, places }
    }

    /// Keeps leases until `stop`, or until the worker has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut records = self.worker.watch();
        loop {
            let all = Arc::clone(&records.borrow_and_update());
            let pause = match self.attend(&all) {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "no clock for leases");
                    LONGEST_SLEEP
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(Duration::from_secs(pause)) => {}
                changed = records.changed() => if changed.is_err() { return },
                Some(done) = self.tasks.join_next_with_id() => {
                    let ended = done.map_or_else(|error| error.id(), |(id, ())| id);
                    self.busy.retain(|_, task| *task != ended);
                }
            }
        }
    }

    /// Starts whatever is due, and answers how many seconds there are until the next thing is.
    fn attend(&mut self, records: &[Record]) -> io::Result<u64> {
        let now = clock::since_start()?;
        self.tried.retain(|id, _| records.iter().any(|record| record.id() == *id));
        let mut pause = LONGEST_SLEEP;
        for record in records.iter().filter(|record| is_kept(record)) {
            let id = record.id();
            if self.busy.contains_key(&id) {
                continue;
            }
            if record.lease.is_none() {
                self.tried.entry(id.clone()).or_insert(now);
            }
            let tried = self.tried.get(&id).copied();
            let Some((at, duty)) = next(record.lease.as_ref(), tried, now) else { continue };
            if at > now {
                pause = pause.min(at - now);
                continue;
            }
            self.tried.insert(id.clone(), now);
            let errand = Errand {
                record: record.clone(),
                worker: self.worker.clone(),
                changed: self.changed.clone(),
            };
            let places = Arc::clone(&self.places);
            let task = self.tasks.spawn(async move {
                // It is never closed.
                let _place = places.acquire().await;
                errand.run(duty).await;
            });
            self.busy.insert(id, task.id());
        }
        Ok(pause)
    }
}

fn is_kept(record: &Record) -> bool {
    let is_settled = matches!(record.phase, Phase::Prepared | Phase::Attached { .. });
    record.wishes.interface.dhcp && is_settled
}

/// One thing to do for one attachment.
struct Errand {
    record: Record,
    worker: Worker,
    changed: mpsc::UnboundedSender<Vec<Record>>,
}

impl Errand {
    async fn run(self, duty: Duty) {
        let device = &self.record.device.name;
        let tenancy = match duty {
            Duty::GiveUp => Tenancy::Lost(self.ended()),
            _ => match talk(self.record.clone(), duty, LIMIT).await {
                Ok(lease) => Tenancy::Held(lease),
                Err(error) if error.is_refusal() && self.record.lease.is_some() => {
                    Tenancy::Lost(self.refused(&error))
                }
                Err(error) => {
                    tracing::warn!(%device, ?duty, error = chain(&error), "lease not prolonged");
                    return;
                }
            },
        };
        let is_other = is_other(self.record.lease.as_ref(), &tenancy);
        match (&tenancy, is_other) {
            (Tenancy::Held(lease), false) => {
                tracing::debug!(%device, address = %lease.address, "lease prolonged");
            }
            (Tenancy::Held(lease), true) => {
                tracing::warn!(%device, ?lease, "the lease is another one now");
            }
            (Tenancy::Lost(why), _) => tracing::error!(%device, why, "lease lost"),
        }
        match self.worker.set_lease(self.record.id(), tenancy).await {
            Ok(_) | Err(AttachError::NoSuchDevice { .. } | AttachError::Stopping) => {}
            Err(error) => {
                tracing::error!(%device, error = chain(&error), "lease not put into force");
            }
        }
        if is_other {
            // Whoever writes statuses may be gone already.
            let _ = self.changed.send(vec![self.record]);
        }
    }

    fn lent(&self) -> String {
        let lent = self.record.lease.as_ref().map(|lease| lease.address.addr().to_string());
        lent.unwrap_or_default()
    }

    fn ended(&self) -> String {
        format!("the lease of {} has ended and no DHCP server has prolonged it", self.lent())
    }

    fn refused(&self, error: &DhcpError) -> String {
        format!("the lease of {} is not prolonged: {}", self.lent(), chain(error))
    }
}

/// Whether the pod has another address or other routes than before.
fn is_other(before: Option<&Lease>, tenancy: &Tenancy) -> bool {
    match (before, tenancy) {
        (Some(before), Tenancy::Held(lease)) => {
            (before.address, &before.routes) != (lease.address, &lease.routes)
        }
        _ => true,
    }
}
