//! Stub: the shape of the metrics that other rooms call.

use std::sync::Arc;
use std::time::Duration;

/// How a request of kubelet or of the runtime ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Success,
    Failed,
    NotOurs,
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Metrics;

impl Metrics {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn nri_request(&self, _event: &'static str, _outcome: Outcome, _took: Duration) {}

    pub fn nri_connected(&self, _connected: bool) {}

    pub fn attach_error(&self, _reason: &'static str) {}
}
