//! Tells in the claims' status what became of their devices.
//!
//! Our entries of a claim are applied under the driver's name as field manager, so other drivers'
//! entries for the same claim stay untouched. An apply that names all our entries of a claim replaces
//! what we said before; the API server drops entries itself when a claim is deallocated.
//!
//! What is to be said follows from what is recorded, whenever that is. So a claim of which much is
//! new at once is written once, and one that cannot be written holds up no other.

mod desk;
mod entry;
mod write;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::desk::Desk;
use self::write::{Written, write};
use crate::attach::Notice;
use crate::model::{ClaimUid, Record};
use crate::telemetry::Sightings;

/// Claims that are written at the same time at most.
const AT_ONCE: usize = 8;

/// How long what is still queued may take when the driver stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Writes the status of claims whose devices were attached, or are not as they were.
pub struct StatusWriter {
    driver: String,
    client: Client,
    news: News,
    sightings: watch::Receiver<Sightings>,
    present: watch::Receiver<Arc<Vec<Record>>>,
    desk: Desk,
    running: JoinSet<(ClaimUid, Result<Written, String>)>,
}

/// Where the writer hears of claims, beside what is recorded.
pub struct News {
    /// All attached records of one pod, or of one claim, at a time: they are as nobody has said yet.
    pub attached: UnboundedReceiver<Vec<Record>>,
    /// What went wrong with one claim.
    pub notices: UnboundedReceiver<Notice>,
}

impl StatusWriter {
    /// `present` is all that is recorded.
    pub fn new(
        driver: &str,
        client: Client,
        news: News,
        sightings: watch::Receiver<Sightings>,
        present: watch::Receiver<Arc<Vec<Record>>>,
    ) -> Self {
        let (driver, desk) = (driver.to_owned(), Desk::default());
        Self { driver, client, news, sightings, present, desk, running: JoinSet::new() }
    }

    /// Writes until the other ends of the queues are gone or `shutdown`; then it writes what is
    /// queued, as far as that goes within seconds.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let late = async {
            shutdown.cancelled().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = self.work(&shutdown) => {}
            () = late => tracing::warn!("claim statuses were left unwritten at the end"),
        }
    }

    async fn work(&mut self, shutdown: &CancellationToken) {
        self.look();
        let mut is_open = true;
        while is_open || !self.desk.is_done() || !self.running.is_empty() {
            self.start();
            tokio::select! {
                Some(outcome) = self.running.join_next() => self.end(outcome),
                records = self.news.attached.recv(), if is_open => match records {
                    Some(records) => self.desk.attached(&records, &self.present.borrow()),
                    None => is_open = false,
                },
                Some(notice) = self.news.notices.recv(), if is_open => self.desk.notice(&notice, &self.present.borrow()),
                Ok(()) = self.present.changed(), if is_open => self.look(),
                () = shutdown.cancelled(), if is_open => {
                    is_open = false;
                    self.look();
                    while let Ok(records) = self.news.attached.try_recv() {
                        self.desk.attached(&records, &self.present.borrow());
                    }
                    while let Ok(notice) = self.news.notices.try_recv() {
                        self.desk.notice(&notice, &self.present.borrow());
                    }
                }
            }
        }
    }

    fn look(&mut self) {
        let present = Arc::clone(&self.present.borrow_and_update());
        self.desk.look(&present);
    }

    /// Starts as many writes as may run.
    fn start(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some((uid, known)) = self.desk.take()
        {
            let (client, driver) = (self.client.clone(), self.driver.clone());
            let sightings = Arc::clone(&self.sightings.borrow());
            self.running.spawn(async move {
                let outcome = write(&client, &driver, known, &sightings).await;
                (uid, outcome)
            });
        }
    }

    fn end(&mut self, outcome: Result<(ClaimUid, Result<Written, String>), JoinError>) {
        // An error is a panic that has been printed; its claim is not written any more.
        let Ok((uid, outcome)) = outcome else { return };
        let claim = self.desk.claim(&uid);
        let claim = claim.map_or_else(|| uid.to_string(), ToString::to_string);
        match &outcome {
            Ok(Written::Said(_)) => tracing::debug!(claim, "claim status written"),
            Ok(Written::Same(_) | Written::Nothing) => {}
            Err(error) => tracing::warn!(claim, error, "claim status not written"),
        }
        let said = outcome.ok().and_then(Written::entries);
        self.desk.wrote(&uid, said);
    }
}
