//! In the place of the client, where it is not built in.

use std::time::Duration;

use super::DhcpError;
use super::schedule::Duty;
use crate::model::{IfIndex, Lease, Record};

pub(super) fn attend(_: &Record, _: Duty, _: Duration) -> Result<Lease, DhcpError> {
    Err(DhcpError::NotBuilt)
}

pub(super) fn release(_: IfIndex, _: &Lease) -> Result<(), DhcpError> {
    Err(DhcpError::NotBuilt)
}
