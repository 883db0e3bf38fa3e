//! Addresses from DHCP servers: asked for in prepare, prolonged for as long as they are held, given
//! back in unprepare.
//!
//! The room owns the conversations with servers, and when they are due. What comes of one it tells
//! the [`Worker`], which records it and puts it on the interface; it changes nothing itself. `dra`
//! calls [`Leases::acquire`], `node::linux` [`release`], and [`Keeper`] runs as long as the driver.

#[cfg(not(feature = "dhcp"))]
#[path = "absent.rs"]
mod client;
#[cfg(feature = "dhcp")]
mod client;
mod error;
#[cfg(feature = "dhcp")]
mod exchange;
mod keeper;
mod schedule;
#[cfg(feature = "dhcp")]
mod wire;

use std::time::Duration;

use futures::future::join_all;
use tokio::task::{JoinHandle, spawn_blocking};

pub use self::error::{DhcpError, LeaseError};
pub use self::keeper::Keeper;
use self::schedule::Duty;
use crate::attach::{Tenancy, Worker};
use crate::model::{IfIndex, Lease, Phase, Record};

/// How long a server may take in prepare. Kubelet gives up after 45 s and has other claims.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(15);

/// Gets addresses for devices that are being prepared.
#[derive(Clone, Debug)]
pub struct Leases {
    worker: Worker,
}

impl Leases {
    pub fn new(worker: Worker) -> Self {
        Self { worker }
    }

    /// Gets an address for each of those that wish one and have none, all at once, and answers all of
    /// them as they are recorded then.
    ///
    /// A caller that goes away stops nothing: what a server gives is recorded.
    ///
    /// # Errors
    ///
    /// What went wrong, device by device. The others have their addresses, which a repeated call
    /// finds.
    pub async fn acquire(&self, records: Vec<Record>) -> Result<Vec<Record>, Vec<LeaseError>> {
        let each = records.into_iter().map(|record| async {
            if !is_wanting(&record) {
                return Ok(record);
            }
            let device = record.device.name.clone();
            let running: JoinHandle<_> = tokio::spawn(acquire(self.worker.clone(), record));
            let ended = LeaseError::Dhcp { device, source: DhcpError::Ended };
            running.await.unwrap_or(Err(ended))
        });
        let (mut held, mut errors) = (Vec::new(), Vec::new());
        for outcome in join_all(each).await {
            match outcome {
                Ok(record) => held.push(record),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(held) } else { Err(errors) }
    }
}

fn is_wanting(record: &Record) -> bool {
    record.wishes.interface.dhcp && record.lease.is_none() && record.phase == Phase::Prepared
}

async fn acquire(worker: Worker, record: Record) -> Result<Record, LeaseError> {
    let device = record.device.name.clone();
    let lease = talk(record.clone(), Duty::Acquire, ACQUIRE_LIMIT)
        .await
        .map_err(|source| LeaseError::Dhcp { device: device.clone(), source })?;
    tracing::info!(%device, address = %lease.address, server = %lease.server, "lease");
    let recorded = worker.set_lease(record.id(), Tenancy::Held(lease.clone())).await;
    if recorded.is_err() {
        // It was unprepared meanwhile, and nobody knows of the address but us.
        let index = record.before.index;
        if let Ok(Err(error)) = spawn_blocking(move || release(index, &lease)).await {
            tracing::warn!(%device, %error, "lease not released");
        }
    }
    recorded.map_err(LeaseError::Record)
}

/// Has a conversation on a thread that may wait.
async fn talk(record: Record, duty: Duty, limit: Duration) -> Result<Lease, DhcpError> {
    let talking = spawn_blocking(move || client::attend(&record, duty, limit));
    talking.await.unwrap_or(Err(DhcpError::Ended))
}

/// Tells the server that an address is free again, from an interface of the calling thread's
/// namespace, which has to be up. It does not answer.
///
/// # Errors
///
/// [`DhcpError::Socket`]; the lease then ends by itself.
pub fn release(index: IfIndex, lease: &Lease) -> Result<(), DhcpError> {
    client::release(index, lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LeaseTimes, MacAddr};

    /// A lease of this address from 192.0.2.1, of an hour from the start of the node.
    pub(super) fn lease(address: &str) -> Lease {
        Lease {
            address: address.parse().unwrap(),
            client: MacAddr([2, 0, 0, 0, 0, 7]),
            server: [192, 0, 2, 1].into(),
            server_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            routes: Vec::new(),
            times: Some(LeaseTimes { renew: 1800, rebind: 3150, end: 3600 }),
        }
    }

    #[test]
    fn only_what_waits_for_its_pod_without_an_address_is_asked_for() {
        let mut record = crate::testing::record("eth1", None, Phase::Prepared);
        assert!(!is_wanting(&record));
        record.wishes.interface.dhcp = true;
        assert!(is_wanting(&record));
        let held = Record { lease: Some(lease("192.0.2.9/24")), ..record.clone() };
        assert!(!is_wanting(&held));
        assert!(!is_wanting(&Record { phase: Phase::Unpreparing, ..record }));
    }
}
