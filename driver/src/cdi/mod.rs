//! What lets containers in: the files of the Container Device Interface that name our devices.
//!
//! The room owns one file for each claim in a directory that it shares with other drivers, and the
//! gate, a program on the host that those files have the runtime call. A file exists only while the
//! claim's devices are in their sandbox, so a container that names one without it is refused by the
//! runtime. It decides nothing: `node::linux` calls it for the steps that write and remove a file.

mod error;
mod gate;
mod spec;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

pub use self::error::CdiError;
pub use self::gate::Gate;
use crate::model::{CdiSpec, ClaimUid, cdi_kind};
use crate::plan::Was;

/// The end of a file that is being written. Runtimes read `.json` and `.yaml` only.
const UNFINISHED: &str = ".tmp";

/// The directory, as far as our files in it go.
#[derive(Debug)]
pub struct CdiDir {
    path: PathBuf,
    driver: String,
    gate: Gate,
}

impl CdiDir {
    /// Makes the directory if it is not there. `driver` is the driver's name in the API.
    ///
    /// # Errors
    ///
    /// [`CdiError::Io`].
    pub fn open(path: &Path, driver: &str, gate: Gate) -> Result<Self, CdiError> {
        let opened = Self { path: path.to_owned(), driver: driver.to_owned(), gate };
        opened.make()?;
        Ok(opened)
    }

    fn make(&self) -> Result<(), CdiError> {
        fs::create_dir_all(&self.path).map_err(|e| io_error("create", &self.path, e))
    }

    /// Writes the claim's file, in place of the one it has.
    ///
    /// The unfinished file lies in the same directory: runtimes watch it, and are not told of what is
    /// renamed into it from elsewhere (containerd 1.7.24 and 2.1.9 never see such a file).
    ///
    /// # Errors
    ///
    /// [`CdiError::NotOurs`], [`CdiError::Empty`] and [`CdiError::Io`]; then what was there is there
    /// as it was.
    pub fn write(&self, spec: &CdiSpec) -> Result<Was, CdiError> {
        let text = spec::render(spec, &self.driver, self.gate.path())?;
        let file = self.file(&spec.claim);
        if self.look(&file)?.is_some_and(|there| there == text) {
            return Ok(Was::Same);
        }
        self.make()?;
        let unfinished = self.unfinished(&spec.claim);
        let written = (|| {
            let mut new = File::create(&unfinished)?;
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            fs::rename(&unfinished, &file)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(|e| io_error("write", &file, e))?;
        Ok(Was::Otherwise)
    }

    /// Removes the claim's file, and what is left of an attempt to write it.
    ///
    /// # Errors
    ///
    /// [`CdiError::NotOurs`] and [`CdiError::Io`].
    pub fn remove(&self, claim: &ClaimUid) -> Result<Was, CdiError> {
        let file = self.file(claim);
        let mut was = Was::Same;
        if self.look(&file)?.is_some() {
            was = remove(&file)?;
        }
        // Of this name there is nobody's file but ours, and it may hold only half of a text.
        match (remove(&self.unfinished(claim))?, was) {
            (Was::Same, was) => Ok(was),
            (removed, _) => Ok(removed),
        }
    }

    /// The claims that have a file of ours, finished or not, in order.
    ///
    /// # Errors
    ///
    /// [`CdiError::Io`]; a directory that is gone is empty.
    pub fn all(&self) -> Result<Vec<ClaimUid>, CdiError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", &self.path, error)),
        };
        let mut claims = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| io_error("read", &self.path, e))?.file_name();
            let Some(name) = name.to_str() else { continue };
            let (finished, is_finished) = match name.strip_suffix(UNFINISHED) {
                Some(finished) => (finished, false),
                None => (name, true),
            };
            let Some(claim) = self.claim_of(finished) else { continue };
            match self.look(&self.path.join(name)) {
                Err(CdiError::NotOurs { .. }) if is_finished => {}
                Err(error @ CdiError::Io { .. }) => return Err(error),
                _ => claims.push(claim),
            }
        }
        claims.sort();
        claims.dedup();
        Ok(claims)
    }

    /// As the CDI's own library calls files that come and go (`GenerateTransientSpecName` in
    /// container-device-interface 0.8: vendor, class, and after `_` what it is for). No driver's
    /// name and no UID has a `_`.
    fn file(&self, claim: &ClaimUid) -> PathBuf {
        self.path.join(format!("{}{claim}.json", self.prefix()))
    }

    fn unfinished(&self, claim: &ClaimUid) -> PathBuf {
        self.path.join(format!("{}{claim}.json{UNFINISHED}", self.prefix()))
    }

    fn prefix(&self) -> String {
        format!("{}-nic_", self.driver)
    }

    fn claim_of(&self, name: &str) -> Option<ClaimUid> {
        name.strip_prefix(&self.prefix())?.strip_suffix(".json")?.parse().ok()
    }

    /// What a file holds, if it is there; an error where it is not about devices of ours.
    fn look(&self, file: &Path) -> Result<Option<String>, CdiError> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", file, error)),
        };
        let text = String::from_utf8(bytes).ok();
        let ours =
            text.filter(|text| spec::kind_of(text).as_deref() == Some(&cdi_kind(&self.driver)));
        ours.map(Some).ok_or_else(|| CdiError::NotOurs { path: file.to_owned() })
    }
}

fn remove(file: &Path) -> Result<Was, CdiError> {
    match fs::remove_file(file) {
        Ok(()) => Ok(Was::Otherwise),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Was::Same),
        Err(error) => Err(io_error("remove", file, error)),
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> CdiError {
    CdiError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
