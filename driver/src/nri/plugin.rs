//! Finds the runtime, and finds it again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::sandboxes::Sandboxes;
use super::session::{Session, SessionError};
use crate::attach::Worker;
use crate::model::Record;
use crate::telemetry::Metrics;

/// What the plugin is told from outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NriConfig {
    pub socket: PathBuf,
    /// The plugin's name among the runtime's plugins: letters, digits, and `_.+-`.
    pub name: String,
    /// Two digits: the order among the runtime's plugins.
    pub index: String,
    /// How long an event may hold up the runtime at most; less where the runtime gives less.
    pub attach_budget: Duration,
}

/// Whether the runtime tells us of sandboxes: registered, and told of all there are. While this is
/// false, pods start without their devices.
pub type Connection = watch::Receiver<bool>;

/// The plugin of the runtime.
#[derive(Debug)]
pub struct Plugin {
    events: Arc<Events>,
    config: NriConfig,
    connection: watch::Sender<bool>,
}

impl Plugin {
    /// A plugin that has `worker` carry out what the runtime's events ask for, and puts what was
    /// attached into `attached` once the runtime has its answer.
    pub fn new(
        worker: Worker,
        config: NriConfig,
        attached: mpsc::UnboundedSender<Vec<Record>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let sandboxes = Sandboxes::default();
        let events = Arc::new(Events { worker, sandboxes, attached, metrics });
        Self { events, config, connection: watch::Sender::new(false) }
    }

    pub fn connection(&self) -> Connection {
        self.connection.subscribe()
    }

    /// Connects, serves, and connects again, until `shutdown`. Calls that are under way then are
    /// answered first, within the budget.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut pauses = Pauses::default();
        for number in 1.. {
            let started = Instant::now();
            let error = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                connected = self.connect() => match connected {
                    Ok(stream) => self.session(stream, number, &shutdown).await.err(),
                    Err(error) => Some(error),
                },
            };
            let Some(error) = error else { return };
            let pause = pauses.after(started.elapsed());
            if pause == Pauses::SHORTEST {
                tracing::warn!(%error, ?pause, "not connected to the runtime");
            } else {
                tracing::debug!(%error, ?pause, "still not connected to the runtime");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn connect(&self) -> Result<UnixStream, SessionError> {
        let socket = &self.config.socket;
        UnixStream::connect(socket)
            .await
            .map_err(|source| SessionError::Connect { socket: socket.clone(), source })
    }

    async fn session(
        &self,
        stream: UnixStream,
        number: u64,
        shutdown: &CancellationToken,
    ) -> Result<(), SessionError> {
        let session = Session::new(Arc::clone(&self.events), self.config.clone(), number);
        let ended = session.serve(stream, shutdown, || self.tell(true)).await;
        self.tell(false);
        ended
    }

    fn tell(&self, connected: bool) {
        self.connection.send_replace(connected);
        self.events.metrics.nri_connected(connected);
    }
}

/// How long to wait before the next attempt: each time twice as long, until a session has lasted.
#[derive(Debug)]
struct Pauses {
    next: Duration,
}

impl Pauses {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= Self::LONGEST {
            self.next = Self::SHORTEST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(Self::LONGEST);
        pause
    }
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: Self::SHORTEST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_start_over_after_a_session_that_lasted() {
        let mut pauses = Pauses::default();
        let short = Duration::from_millis(3);
        let grown: Vec<_> = (0..8).map(|_| pauses.after(short).as_millis()).collect();
        assert_eq!(grown, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pauses.after(Duration::from_secs(5)), Pauses::SHORTEST);
    }
}
