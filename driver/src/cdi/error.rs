use std::io;
use std::path::PathBuf;

/// Why a specification could not be written, removed or looked for, or the gate not be put up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CdiError {
    #[error("{what} {}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },

    /// It has the name of a file of ours, and is about devices of somebody else. It stays.
    #[error("{} is there and not ours", .path.display())]
    NotOurs { path: PathBuf },

    /// Runtimes refuse a whole file with such a device (`Device.validate` in
    /// container-device-interface).
    #[error("device {name} adds nothing to a container: neither a variable nor a device node")]
    Empty { name: String },

    /// The file names the gate and its devices in JSON, which is text.
    #[error("{} is no text", .path.display())]
    Path { path: PathBuf },
}
