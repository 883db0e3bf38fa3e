//! Stands in for the composition root.

use crate::config::Config;

/// Why the driver stopped.
#[derive(Debug, thiserror::Error)]
#[error("there is no driver yet")]
pub struct AppError;

/// Runs the driver until it is told to stop.
pub fn run(_config: Config) -> Result<(), AppError> {
    Err(AppError)
}
