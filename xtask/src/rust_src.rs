//! The source of Rust's `core`, which the eBPF target has to be built from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, process};

use anyhow::{Context as _, Result, ensure};

use crate::apt::{self, Archive};
use crate::rustc::Rustc;
use crate::shell;
use crate::workspace::Workspace;

/// Where the source of the standard library is.
pub(crate) enum Library {
    /// Where cargo looks by itself.
    InSysroot,
    /// In this folder.
    At(PathBuf),
}

/// Finds the source that belongs to `rustc`: in the toolchain, in our cache, by rustup, and at last
/// from the distribution's own package of the same version, which is unpacked and not installed.
pub(crate) fn ensure(workspace: &Workspace, rustc: &Rustc) -> Result<Library> {
    let in_sysroot = rustc.sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
    if in_sysroot.exists() {
        return Ok(Library::InSysroot);
    }
    let unpacked = workspace.cache.join(format!("rust-src-{}", rustc.version));
    let library = unpacked.join(format!("usr/src/rustc-{}/library", rustc.version));
    if library.join("Cargo.lock").exists() {
        return Ok(Library::At(library));
    }
    if shell::which("rustup").is_some() {
        shell::say("adding the component rust-src by rustup");
        let mut add = Command::new("rustup");
        add.args(["component", "add", "rust-src"]).current_dir(&workspace.root);
        if shell::succeeds_within(&mut add, Duration::from_mins(2))? && in_sysroot.exists() {
            return Ok(Library::InSysroot);
        }
        shell::say("rustup could not add it");
    }
    fetch(workspace, rustc, &unpacked).with_context(|| {
        format!(
            "the source of Rust {} is missing; `rustup component add rust-src` would add it",
            rustc.version
        )
    })?;
    ensure!(
        library.join("Cargo.lock").exists(),
        "the package rust-src has no {}",
        library.display()
    );
    Ok(Library::At(library))
}

/// Unpacks the distribution's package into `folder`.
fn fetch(workspace: &Workspace, rustc: &Rustc, folder: &Path) -> Result<()> {
    let archive = Archive::of_this_machine()?;
    // Beside its final place, so that it can be renamed as a whole: half a package is no package.
    let scratch = workspace.cache.join(format!("rust-src.{}", process::id()));
    let outcome = fetch_into(&scratch, &archive, rustc).and_then(|unpacked| {
        fs::rename(&unpacked, folder)
            .with_context(|| format!("move {} to {}", unpacked.display(), folder.display()))
    });
    // What is left of it is of no use to anyone, and its absence no failure.
    let _ = fs::remove_dir_all(&scratch);
    outcome
}

fn fetch_into(scratch: &Path, archive: &Archive, rustc: &Rustc) -> Result<PathBuf> {
    let state = apt::State::make(scratch, archive)?;
    state.update(archive)?;
    let mut offered = String::new();
    for package in archive.source_packages(&rustc.version) {
        let listing = shell::read(state.tool("apt-cache").args(["madison", &package]))?;
        if let Some(version) = apt::version_of(&listing, &rustc.version) {
            shell::say(&format!("fetching {package} {version}"));
            let wanted = format!("{package}={version}");
            let unpacked = scratch.join("unpacked");
            apt::unpack(&state.download(&[wanted])?, &unpacked)?;
            return Ok(unpacked);
        }
        offered.push_str(&listing);
    }
    anyhow::bail!(
        "{} has no rust-src for Rust {}; it offers:\n{offered}",
        archive.uri,
        rustc.version
    )
}
