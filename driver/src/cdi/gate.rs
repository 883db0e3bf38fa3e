//! The gate's program on the host, where the runtime finds it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{CdiError, io_error};

/// The program, which this build brings along. What it does is in `sys::gate`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weir-gate"));
const NAME: &str = "weir-gate";
const MODE: u32 = 0o755;

/// The program's place. It stays when the driver ends: specifications name it for as long as they
/// exist.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gate {
    path: PathBuf,
}

impl Gate {
    /// Puts the program into `directory`, unless it is there as it is. Containers that start
    /// meanwhile find the old one or the new one, and whole.
    ///
    /// # Errors
    ///
    /// [`CdiError::Io`]; then the old one is there, if there was one.
    pub fn install(directory: &Path) -> Result<Self, CdiError> {
        let path = directory.join(NAME);
        if !is_installed(&path) {
            put(directory, &path).map_err(|e| io_error("write", &path, e))?;
        }
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn is_installed(path: &Path) -> bool {
    let is_executable =
        |facts: fs::Metadata| facts.is_file() && facts.permissions().mode() & 0o7777 == MODE;
    fs::symlink_metadata(path).is_ok_and(is_executable)
        && fs::read(path).is_ok_and(|there| there == PROGRAM)
}

fn put(directory: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&unfinished)?;
    file.write_all(PROGRAM)?;
    // Whatever the umask is, and whatever was left here.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.sync_all()?;
    drop(file);
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}
