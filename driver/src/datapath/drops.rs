//! Reads what the programs of an attachment tell of packets that they drop.

use std::fmt;
use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aya_log::EbpfLogger;
use common::Addresses;

use super::flows::told_at_once;
use super::{DatapathError, programs};
use crate::model::{AttachmentId, Ends, Flow};
use crate::sys::bpf;

/// Why nothing is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DropError {
    #[error("look for the programs")]
    Programs(#[from] DatapathError),

    #[error("open the log of program {program}")]
    Open { program: u32, source: aya_log::Error },
}

/// The reader of what the programs of one attachment tell. Packets wait in a ring buffer until it
/// comes; what finds no room there is not told. It has one reader: two would each get a part.
///
/// The ring is found by one of the programs, as aya-log does it, and all of them share it. So it
/// is found also where another driver loaded them.
pub struct Drops {
    program: u32,
    logger: EbpfLogger<Kept>,
    kept: Kept,
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drops").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Drops {
    /// What the programs of `id` tell; `None` where none are attached.
    pub fn open(bpffs: &Path, id: &AttachmentId) -> Result<Option<Self>, DropError> {
        let Some(program) = first_program(bpffs, id)? else { return Ok(None) };
        let kept = Kept::default();
        let logger = EbpfLogger::init_from_id_with_logger(program, kept.clone())
            .map_err(|source| DropError::Open { program, source })?;
        Ok(Some(Self { program, logger, kept }))
    }

    /// Whether other programs are attached to `id` by now, or none. What these have told can still
    /// be taken.
    pub fn is_over(&self, bpffs: &Path, id: &AttachmentId) -> bool {
        first_program(bpffs, id).is_ok_and(|program| program != Some(self.program))
    }

    /// Takes the packets that were dropped since the last call, oldest first, each as a flow of its
    /// own. One that has no addresses, or whose addresses could not be read, has unspecified ones.
    pub fn take(&mut self) -> Vec<Flow> {
        self.logger.flush();
        mem::take(&mut *self.kept.flows())
    }
}

fn first_program(bpffs: &Path, id: &AttachmentId) -> Result<Option<u32>, DatapathError> {
    Ok(programs(bpffs, id)?.first().map(|hook| hook.program_id))
}

/// Where aya-log puts what it has read.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Flow>>>);

impl Kept {
    fn flows(&self) -> std::sync::MutexGuard<'_, Vec<Flow>> {
        // A list of flows is whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.flows().extend(flow(&record.args().to_string()));
    }

    fn flush(&self) {}
}

/// The packet that a record tells of: the bytes of a [`common::Flow`] in hexadecimal digits.
fn flow(digits: &str) -> Option<Flow> {
    let bytes: Option<Vec<u8>> = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let flow: common::Flow = bpf::value_of(&bytes?)?;
    let mut told = told_at_once(&flow);
    if flow.addresses == Addresses::NONE {
        told.ends = Ends::None {};
    }
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_in_words() {
        let digits = concat!(
            "0200000a0100000a",
            "0000000000000000",
            "0000000000000000",
            "0000000000000000",
            "50003412",
            "0000",
            "00",
            "02",
            "0100000000000000",
            "2e00000000000000",
            "0700000007000000",
        );
        let flow = flow(digits).unwrap();
        assert_eq!((flow.direction, flow.verdict), ("ingress", "denied_default"));
        assert_eq!((flow.seen.packets, flow.seen.bytes), (1, 46));
        assert!(flow.last_seen.is_zero() && flow.first_seen.is_zero());
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        for text in ["", "00", "zz", "0", "\u{e9}\u{e9}"] {
            assert!(flow(text).is_none(), "{text:?}");
        }
    }
}
