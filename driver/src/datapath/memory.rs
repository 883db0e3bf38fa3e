//! What a datapath takes of the kernel's memory.

use std::os::fd::AsFd as _;
use std::path::Path;

use super::counters::open;
use super::layout::BpffsLayout;
use super::{CounterError, DatapathError};
use crate::model::AttachmentId;
use crate::sys::bpf;

/// Bytes that all maps of `id` take; programs take a few thousand more.
pub(super) fn bytes(layout: &BpffsLayout, id: &AttachmentId) -> Result<u64, CounterError> {
    let pins = layout.pins(id).map_err(|error| match error {
        DatapathError::Directory { path, source } => CounterError::Pin { path, source },
        error => CounterError::Pin {
            path: layout.device(id),
            source: std::io::Error::other(error.to_string()),
        },
    })?;
    let Some(pins) = pins else {
        return Err(CounterError::Absent { path: layout.device(id) });
    };
    let mut sum = 0_u64;
    for pin in pins.iter().filter(|pin| pin.is_map()) {
        match map_bytes(pin.as_path()) {
            Ok(bytes) => sum = sum.saturating_add(bytes),
            // Replaced in this moment, by one of the same size or another filter's.
            Err(CounterError::Absent { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

fn map_bytes(path: &Path) -> Result<u64, CounterError> {
    let map = open(path)?;
    bpf::memory_bytes(map.fd().as_fd())
        .map_err(|source| CounterError::Read { path: path.to_owned(), source })
}
