//! What shall be near the device.

use super::reader::{Leaf, Spot};
use crate::model::{CpuAlignment, Problems};

pub(super) const FIELDS: [&str; 1] = ["cpus"];
pub(super) const CPUS: [(&str, CpuAlignment); 2] =
    [("numa-local", CpuAlignment::NumaLocal), ("off", CpuAlignment::Off)];

/// What one source says of it.
#[derive(Debug, Default)]
pub(super) struct AlignmentLayer {
    pub(super) cpus: Leaf<CpuAlignment>,
}

impl AlignmentLayer {
    pub(super) fn read(spot: &Spot<'_>, problems: &mut Problems) -> Self {
        let Some(fields) = spot.object(&FIELDS, problems) else {
            return Self::default();
        };
        Self { cpus: Leaf::read(fields.field("cpus"), |spot| cpus(spot, problems)) }
    }
}

/// Unquoted, `off` is a boolean to YAML 1.1.
fn cpus(spot: &Spot<'_>, problems: &mut Problems) -> Option<CpuAlignment> {
    if *spot.value == serde_json::Value::Bool(false) {
        return Some(CpuAlignment::Off);
    }
    spot.word(&CPUS, problems)
}
