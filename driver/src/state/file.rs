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
/// What is written while a record is of a device without an interface. Readers of the first version
/// take such a record for damage, and the whole file with it, so that they have to be told to leave the
/// file alone: they refuse to start at a version that is this far ahead.
const WITHOUT_INTERFACE: u32 = 4;
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
    decode(&bytes, path).map(Some)
}

/// What the bytes of the file at `path` say.
fn decode(bytes: &[u8], path: &Path) -> Result<Content, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged { path: path.to_owned(), reason };
    let read: Read<'_> = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    let checksum = checksum(read.version, &read.boot_id, read.records, read.kept);
    if read.checksum != checksum {
        return Err(damaged(format!("checksum {} where {checksum} is due", read.checksum)));
    }
    content(read, path)
}

/// What a file says that is whole.
fn content(read: Read<'_>, path: &Path) -> Result<Content, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged { path: path.to_owned(), reason };
    let records = match read.version {
        VERSION | NEXT_VERSION | WITHOUT_INTERFACE => serde_json::from_str(read.records.get()),
        FORMER_VERSION => former::read(read.records.get()),
        version => {
            let path = path.to_owned();
            return Err(CheckpointError::Version { path, version, known: VERSION });
        }
    };
    let records = records.map_err(|e| damaged(e.to_string()))?;
    let kept = read.kept.map_or(Ok(Vec::new()), |kept| serde_json::from_str(kept.get()));
    let kept = kept.map_err(|e| damaged(e.to_string()))?;
    Ok(Content { boot_id: read.boot_id, records, kept })
}

/// Reads any bytes as the file, also as if their checksum were right. Whatever is read out of them is
/// read again out of what is written of it.
///
/// # Panics
///
/// Where it is not.
#[cfg(any(test, feature = "testing"))]
pub fn read_any(bytes: &[u8]) {
    let path = Path::new(NAME);
    let Ok(read) = serde_json::from_slice::<Read<'_>>(bytes) else {
        assert!(decode(bytes, path).is_err(), "what is no checkpoint was read");
        return;
    };
    let as_it_is = decode(bytes, path).is_ok();
    let Ok(content) = content(read, path) else {
        assert!(!as_it_is, "its checksum made it readable");
        return;
    };
    let Content { boot_id, records, kept } = &content;
    let written = encode(VERSION, boot_id, records.iter(), kept);
    let again = written.ok().and_then(|text| decode(text.as_bytes(), path).ok());
    let is_same =
        |other: &Content| (&other.boot_id, &other.records, &other.kept) == (boot_id, records, kept);
    assert!(again.as_ref().is_some_and(is_same), "{records:?} does not come back as it was");
}

/// What a power cut may do to a file that has just been replaced. Whatever else happens to the driver
/// leaves what was written last: that is in the kernel's hands when the call returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Durability {
    /// Leave half of it: a power cut ends the boot, and with it all that the file speaks of.
    ThisBoot,
    /// Bring back the former file: it says the same of what outlasts the boot.
    OneOfBoth,
    /// Nothing. A rename that the disk has not seen would be undone, so the directory is flushed too.
    Lasting,
}

/// Replaces the file as a whole.
pub(super) fn write<'a>(
    durability: Durability,
    path: &Path,
    boot_id: &str,
    records: impl Iterator<Item = &'a Record>,
    kept: &[KeptPolicy],
) -> Result<(), CheckpointError> {
    let records: Vec<_> = records.collect();
    let is_new = records.iter().any(|record| !record.has_interface());
    let version = if is_new { WITHOUT_INTERFACE } else { VERSION };
    write_version(version, durability, path, boot_id, records.into_iter(), kept)
}

pub(super) fn write_version<'a>(
    version: u32,
    durability: Durability,
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
        if durability != Durability::ThisBoot {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        match path.parent().filter(|_| durability == Durability::Lasting) {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
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
