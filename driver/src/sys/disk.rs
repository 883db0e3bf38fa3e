//! Files of ours, and who waits for them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// What a power cut may do to a file that has just been replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Survival {
    /// Leave half of it.
    Any,
    /// Nothing. A rename that the disk has not seen would be undone, so the directory is flushed too.
    Lasting,
}

/// Replaces a file as a whole: whoever reads it meanwhile sees the former one. What is not done yet is
/// in a file beside it that ends with `.new`.
///
/// # Errors
///
/// Whatever writing fails with; the former file is still there.
pub fn replace(path: &Path, content: &[u8], survival: Survival) -> io::Result<()> {
    let next = path.with_extension("new");
    let mut file = File::create(&next)?;
    file.write_all(content)?;
    if survival == Survival::Lasting {
        file.sync_all()?;
    }
    fs::rename(&next, path)?;
    match path.parent().filter(|_| survival == Survival::Lasting) {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Waiting for the disk is for another thread.
pub async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process is about to end, and nothing comes of whatever was going to follow.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        for (content, survival) in [("first", Survival::Any), ("second", Survival::Lasting)] {
            replace(&path, content.as_bytes(), survival).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(replace(&path, b"third", Survival::Any).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
    }
}
