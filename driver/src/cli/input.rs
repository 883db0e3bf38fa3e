//! Files that a command is given.

use std::fs::File;
use std::io::{self, Read};

use super::CliError;

/// Largest file that is read, in bytes. The driver takes no larger policy.
pub(super) const LARGEST: u64 = 4 << 20;

/// The text of a file or, by `-`, of standard input.
pub(super) fn read(file: &str) -> Result<String, CliError> {
    let unread = |source| CliError::Read { file: file.to_owned(), source };
    let mut text = String::new();
    let read = match file {
        "-" => io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text),
        path => File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text)),
    };
    let length = read.map_err(unread)?;
    if u64::try_from(length).is_ok_and(|length| length > LARGEST) {
        return Err(unread(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}
