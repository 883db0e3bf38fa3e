//! Stands in for telemetry until that is merged.

use std::sync::Arc;
use std::time::Duration;

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Success,
    Failed,
    NotOurs,
}

/// What is measured of the driver.
#[derive(Debug, Default)]
pub struct Metrics;

impl Metrics {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn dra_request(&self, _method: &'static str, _outcome: Outcome, _took: Duration) {}

    pub fn published(&self, _devices: usize, _slices: usize) {}
}

/// An error with its causes, `: ` between them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
