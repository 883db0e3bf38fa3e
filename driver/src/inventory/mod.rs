//! Stands in for the room that sees which devices the node has.

use crate::model::{Device, IfName};
use crate::sys::sysfs::Sysfs;

/// Why the devices could not be seen.
#[derive(Debug, thiserror::Error)]
#[error("no inventory yet")]
pub struct InventoryError;

/// Sees devices.
#[derive(Debug)]
pub struct Scanner;

/// What was seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scan {
    /// Sorted by name.
    pub devices: Vec<Device>,
    pub left_out: Vec<LeftOut>,
}

/// An interface that is not offered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeftOut {
    pub interface: IfName,
    pub reason: &'static str,
}

impl Scanner {
    pub fn new(_sysfs: Sysfs) -> Result<Self, InventoryError> {
        Ok(Self)
    }

    pub fn scan(&mut self) -> Result<Scan, InventoryError> {
        Err(InventoryError)
    }
}
