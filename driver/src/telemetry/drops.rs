//! Logs packets that filters drop, where that is asked for.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::chain;
use crate::attach::Worker;
use crate::datapath::Drops;
use crate::model::{AttachmentId, Ends, Flow, Phase, Record};

/// How often the rings are emptied. Nobody waits for the programs to wake him.
const LOOK: Duration = Duration::from_millis(250);

/// Empties the rings of all attachments into the log.
pub struct DropLog {
    readers: Readers,
    records: watch::Receiver<Arc<Vec<Record>>>,
}

struct Readers {
    bpffs: PathBuf,
    open: BTreeMap<AttachmentId, (Drops, Record)>,
}

impl DropLog {
    pub fn new(bpffs: &Path, worker: &Worker) -> Self {
        let readers = Readers { bpffs: bpffs.to_owned(), open: BTreeMap::new() };
        let mut records = worker.watch();
        records.mark_changed();
        Self { readers, records }
    }

    /// Logs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let is_news = self.records.has_changed().unwrap_or(false);
            let news = is_news.then(|| Arc::clone(&self.records.borrow_and_update()));
            let mut readers = self.readers;
            let reading = tokio::task::spawn_blocking(move || {
                if let Some(records) = news {
                    readers.follow(&records);
                }
                readers.log();
                readers
            });
            // An error means that the runtime is ending, or a bug that has been printed.
            let Ok(readers) = reading.await else { return };
            self.readers = readers;
        }
    }
}

impl Readers {
    /// Reads of those that have programs now, and of the rest no more.
    fn follow(&mut self, records: &[Record]) {
        let bpffs = &self.bpffs;
        self.open.retain(|id, (drops, record)| {
            let is_over = drops.is_over(bpffs, id);
            if is_over {
                log_all(drops, record);
            }
            !is_over
        });
        let is_made = |record: &&Record| !matches!(record.phase, Phase::Preparing);
        for record in records.iter().filter(is_made).filter(|it| it.datapath.is_some()) {
            let id = record.id();
            if let Some((_, known)) = self.open.get_mut(&id) {
                known.clone_from(record);
                continue;
            }
            match Drops::open(bpffs, &id) {
                Ok(Some(drops)) => {
                    self.open.insert(id, (drops, record.clone()));
                }
                Ok(None) => {}
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(attachment = %id, error, "cannot log what is dropped");
                }
            }
        }
    }

    fn log(&mut self) {
        for (drops, record) in self.open.values_mut() {
            log_all(drops, record);
        }
    }
}

fn log_all(drops: &mut Drops, record: &Record) {
    for packet in drops.take() {
        log(&packet, record);
    }
}

fn log(packet: &Flow, record: &Record) {
    let (from, to) = match packet.ends {
        Ends::Ports { source_port, destination_port } => (source_port, destination_port),
        Ends::Icmp { .. } | Ends::None {} => (0, 0),
    };
    let flags = Some(packet.tcp_flags.as_str()).filter(|flags| !flags.is_empty());
    tracing::info!(
        target: "weir::datapath",
        claim = %record.claim,
        device = %record.device.name,
        pod = %record.pod,
        direction = packet.direction,
        verdict = packet.verdict,
        protocol = packet.protocol,
        source = end(packet.source, from),
        destination = end(packet.destination, to),
        flags,
        packets = packet.seen.packets,
        bytes = packet.seen.bytes,
        "dropped"
    );
}

/// `None` where it could not be read, or there is none.
fn end(address: IpAddr, port: u16) -> Option<String> {
    match (address.is_unspecified(), port) {
        (true, _) => None,
        (false, 0) => Some(address.to_string()),
        (false, port) => Some(SocketAddr::new(address, port).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_far_as_it_is_known() {
        let end = |address: &str, port| end(address.parse().unwrap(), port);
        assert_eq!(end("0.0.0.0", 0), None);
        assert_eq!(end("10.0.0.1", 0).as_deref(), Some("10.0.0.1"));
        assert_eq!(end("10.0.0.1", 80).as_deref(), Some("10.0.0.1:80"));
        assert_eq!(end("fd00::1", 80).as_deref(), Some("[fd00::1]:80"));
    }
}
