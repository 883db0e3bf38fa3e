//! Stands in for the room that owns eBPF.

use std::path::Path;

use crate::model::{AttachmentId, BuildId, Traffic};

/// Where counters come from.
pub trait CounterSource: Send + Sync {
    /// What the programs of `id` counted so far. Blocks.
    fn read(&self, id: &AttachmentId) -> Result<Traffic, CounterError>;
}

/// Why counters could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read the counters of {id}")]
pub struct CounterError {
    id: AttachmentId,
}

/// The pinned maps below a bpffs.
#[derive(Clone, Debug)]
pub struct MapCounters;

impl MapCounters {
    pub fn new(_bpffs: &Path) -> Self {
        Self
    }
}

impl CounterSource for MapCounters {
    fn read(&self, id: &AttachmentId) -> Result<Traffic, CounterError> {
        Err(CounterError { id: id.clone() })
    }
}

/// The loaded programs.
#[derive(Debug)]
pub struct Datapath;

impl Datapath {
    pub fn build() -> BuildId {
        BuildId("none".to_owned())
    }
}

/// One program of an attachment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProgramFacts {
    /// Where it sits: `xdp`, `tcx ingress`, `tcx egress`.
    pub hook: String,
    /// The kernel's number for the program.
    pub id: u32,
    pub name: String,
    /// Its link is still attached to an interface.
    pub is_attached: bool,
}

/// The programs that are pinned for `id` below `bpffs`.
pub fn programs(_bpffs: &Path, _id: &AttachmentId) -> Result<Vec<ProgramFacts>, DatapathError> {
    Err(DatapathError)
}

/// Why the datapath could not be seen.
#[derive(Debug, thiserror::Error)]
#[error("no datapath yet")]
pub struct DatapathError;
