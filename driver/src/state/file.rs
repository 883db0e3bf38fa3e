//! The file itself: its format, and how it is replaced without ever being half.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{CheckpointError, former, io_error, private_file};
use crate::model::{KeptPolicy, Record};

pub(super) const NAME: &str = "checkpoint.json";
/// The same once more, for when the first is damaged.
pub(super) const MIRROR: &str = "checkpoint.mirror.json";

/// Raised when a reader of the former version could misread the records; one that is a single version
/// behind reads what it knows of them, so that an upgrade can be taken back. The fields around them
/// stay as they are, so that a whole file of another version can be told from a damaged one.
const VERSION: u32 = 2;
/// The one after: what it adds is not known here, and left out.
const NEXT_VERSION: u32 = VERSION + 1;
/// The one before, which is still read. Its rules had fewer fields.
const FORMER_VERSION: u32 = 1;

pub(super) struct Content {
    pub(super) boot_id: String,
    pub(super) records: Vec<Record>,
    pub(super) kept: Vec<KeptPolicy>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    version: u32,
    boot_id: &'a str,
    checksum: String,
    records: &'a RawValue,
    /// Not there where nothing is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read<'a> {
    version: u32,
    boot_id: String,
    checksum: String,
    #[serde(borrow)]
    records: &'a RawValue,
    #[serde(borrow, default)]
    kept: Option<&'a RawValue>,
}

/// `None` where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Content>, CheckpointError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path, error)),
    };
    let damaged = |reason: String| CheckpointError::Damaged { path: path.to_owned(), reason };
    let read: Read<'_> = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    let checksum = checksum(read.version, &read.boot_id, read.records, read.kept);
    if read.checksum != checksum {
        return Err(damaged(format!("checksum {} where {checksum} is due", read.checksum)));
    }
    let records = match read.version {
        VERSION | NEXT_VERSION => serde_json::from_str(read.records.get()),
        FORMER_VERSION => former::read(read.records.get()),
        version => {
            let path = path.to_owned();
            return Err(CheckpointError::Version { path, version, known: VERSION });
        }
    };
    let records = records.map_err(|e| damaged(e.to_string()))?;
    let kept = read.kept.map_or(Ok(Vec::new()), |kept| serde_json::from_str(kept.get()));
    let kept = kept.map_err(|e| damaged(e.to_string()))?;
    Ok(Some(Content { boot_id: read.boot_id, records, kept }))
}

/// Replaces the file as a whole. The directory is flushed too: a rename that the disk has not seen
/// is undone by a power cut.
pub(super) fn write<'a>(
    path: &Path,
    boot_id: &str,
    records: impl Iterator<Item = &'a Record>,
    kept: &[KeptPolicy],
) -> Result<(), CheckpointError> {
    write_version(VERSION, path, boot_id, records, kept)
}

pub(super) fn write_version<'a>(
    version: u32,
    path: &Path,
    boot_id: &str,
    records: impl Iterator<Item = &'a Record>,
    kept: &[KeptPolicy],
) -> Result<(), CheckpointError> {
    let text =
        encode(version, boot_id, records, kept).map_err(|e| io_error("encode", path, e.into()))?;
    let temporary = path.with_extension("json.new");
    let result = (|| {
        let mut file = private_file(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    })();
    result.map_err(|e| io_error("write", path, e))?;
    mirror(&path.with_file_name(MIRROR), &text);
    Ok(())
}

/// Nobody waits for the disk here: the file that counts is written. Without a mirror the driver does
/// as well as with one, until that is damaged.
fn mirror(path: &Path, text: &str) {
    let temporary = path.with_extension("json.new");
    let written = private_file(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot write the checkpoint a second time");
    }
}

fn encode<'a>(
    version: u32,
    boot_id: &str,
    records: impl Iterator<Item = &'a Record>,
    kept: &[KeptPolicy],
) -> serde_json::Result<String> {
    let records = serde_json::value::to_raw_value(&records.collect::<Vec<_>>())?;
    let kept = (!kept.is_empty()).then(|| serde_json::value::to_raw_value(kept)).transpose()?;
    let kept = kept.as_deref();
    let checksum = checksum(version, boot_id, &records, kept);
    serde_json::to_string(&Written { version, boot_id, checksum, records: &records, kept })
}

fn checksum(version: u32, boot_id: &str, records: &RawValue, kept: Option<&RawValue>) -> String {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&version.to_be_bytes());
    hasher.update(boot_id.as_bytes());
    hasher.update(records.get().as_bytes());
    hasher.update(kept.map_or("", RawValue::get).as_bytes());
    format!("crc32:{:08x}", hasher.finalize())
}
