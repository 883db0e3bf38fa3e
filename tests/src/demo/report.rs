//! What the demo claims, and whether it is so.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// The object that `--json` prints.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// How many devices the node offers, and in how many slices.
    pub devices: usize,
    pub slices: usize,
    /// The device that each request got.
    pub allocated: BTreeMap<String, String>,
    /// The CEL expression of each request of the claim.
    pub claim_selector: BTreeMap<String, String>,
    /// The hook that receives, by request.
    pub hooks: BTreeMap<String, String>,
    /// What `/metrics` shows, over all devices of the pod.
    pub rx_packets: u64,
    pub rx_denied: u64,
    pub tx_packets: u64,
    /// What the wire counted, and what was sent there that must not pass.
    pub expected_rx_packets: u64,
    pub expected_rx_denied: u64,
    pub expected_tx_packets: u64,
    /// Datagrams without an answer while the driver was killed and started again.
    pub lost_during_restart: u64,
    pub sent_during_restart: u64,
    /// How long the driver kept the runtime and kubelet waiting.
    pub hook_ms: f64,
    pub prepare_ms: f64,
    /// From the start of the driver's process until it was ready.
    pub ready_ms: f64,
    /// Whether each NIC is again as it was before the claim was prepared.
    pub restored: bool,
    /// What is left of the pod.
    pub residue: Vec<String>,
    /// Claims that turned out wrong.
    pub failed: Vec<String>,
}

impl Report {
    /// Notes that a claim does not hold.
    pub(super) fn check(&mut self, holds: bool, claim: impl fmt::Display) {
        if !holds {
            self.failed.push(claim.to_string());
        }
    }

    /// Notes that two numbers which should be the same are not.
    pub(super) fn equal(&mut self, what: impl fmt::Display, found: u64, expected: u64) {
        self.check(found == expected, format_args!("{what}: {found}, expected {expected}"));
    }
}
