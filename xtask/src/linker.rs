//! `bpf-linker`, built against the LLVM that rustc itself carries.
//!
//! The linker reads the bitcode that rustc writes, so the two must agree on LLVM. Rust's toolchain
//! ships its LLVM as a shared library, with the BPF target in it: linked to that one the linker
//! needs no LLVM of its own and is built in about a minute.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, Result};

use crate::rustc::Rustc;
use crate::shell;
use crate::workspace::Workspace;

const VERSION: &str = "0.13.0";

/// The linker's file; builds it where it is not there yet.
pub(crate) fn ensure(workspace: &Workspace, rustc: &Rustc) -> Result<PathBuf> {
    let llvm = link_llvm(workspace, rustc)?;
    let prefix = workspace.cache.join(format!("bpf-linker-{VERSION}-rust-{}", rustc.version));
    let program = prefix.join("bin").join("bpf-linker");
    if !program.exists() {
        shell::say(&format!(
            "building bpf-linker {VERSION} from crates.io (once, about a minute) into {}",
            prefix.display()
        ));
        let mut install = workspace.isolated_cargo("install");
        install
            .args(["bpf-linker", "--version", VERSION, "--locked", "--no-default-features"])
            .args(["--features", &format!("llvm-{}", rustc.llvm_major)])
            .arg("--root")
            .arg(&prefix)
            .env("LLVM_PREFIX", &llvm);
        shell::run(&mut install)?;
    }
    Ok(program)
}

/// A folder that looks like an LLVM installation, made of links to rustc's library. It has to stay:
/// the linker finds its library there at run time.
fn link_llvm(workspace: &Workspace, rustc: &Rustc) -> Result<PathBuf> {
    let prefix = workspace.cache.join(format!("llvm-{}", rustc.version));
    let library = llvm_library(&rustc.sysroot)?;
    let folder = prefix.join("lib64");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let soname = library.file_name().context("rustc's LLVM library has no file name")?;
    // The build looks for the plain name, the program for the one that the library says it has.
    for name in ["libLLVM.so".as_ref(), soname] {
        let link = folder.join(name);
        if fs::read_link(&link).is_ok_and(|there| there == library) {
            continue;
        }
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", link.display()));
            }
            _ => {}
        }
        symlink(&library, &link).with_context(|| format!("link {}", link.display()))?;
    }
    Ok(prefix)
}

fn llvm_library(sysroot: &Path) -> Result<PathBuf> {
    let folder = sysroot.join("lib");
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("libLLVM.so.") || name.starts_with("libLLVM-") {
            return Ok(path);
        }
    }
    anyhow::bail!(
        "{} has no libLLVM: this Rust was built with LLVM inside; use the toolchain that rustup \
         installs",
        folder.display()
    )
}
