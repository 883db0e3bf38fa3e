//! What there is to know about the compiler in use.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;

/// The compiler that cargo uses in this workspace.
pub(crate) struct Rustc {
    /// Such as `1.95.0`.
    pub(crate) version: String,
    /// The target triple of this machine.
    pub(crate) host: String,
    /// Major version of the LLVM that it carries.
    pub(crate) llvm_major: String,
    pub(crate) sysroot: PathBuf,
}

impl Rustc {
    pub(crate) fn ask(root: &Path) -> Result<Self> {
        let rustc =
            |argument: &[&str]| shell::read(Command::new("rustc").args(argument).current_dir(root));
        let text = rustc(&["--version", "--verbose"])?;
        let (version, host, llvm_major) = parse(&text).with_context(|| {
            format!("rustc's answer about its version is not as usual:\n{text}")
        })?;
        Ok(Self { version, host, llvm_major, sysroot: rustc(&["--print", "sysroot"])?.into() })
    }
}

/// Version, host and LLVM's major version from the output of `rustc -vV`.
fn parse(text: &str) -> Option<(String, String, String)> {
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let llvm = value("LLVM version:")?;
    let major = llvm.split_once('.').map_or(llvm, |(major, _)| major);
    Some((value("release:")?.to_owned(), value("host:")?.to_owned(), major.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_version_answer_gives_release_host_and_llvm() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
                    host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2";
        let expected = ("1.95.0", "x86_64-unknown-linux-gnu", "22");
        let expected = (expected.0.into(), expected.1.into(), expected.2.into());
        assert_eq!(parse(text), Some(expected));
    }

    #[test]
    fn an_answer_without_llvm_is_refused() {
        assert_eq!(parse("host: x86_64-unknown-linux-gnu\nrelease: 1.95.0"), None);
    }
}
