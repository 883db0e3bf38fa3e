//! `cargo xtask ebpf`: the eBPF object, built and put where the driver's build embeds it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::rustc::Rustc;
use crate::workspace::{Workspace, write_if_different};
use crate::{linker, rust_src, shell};

const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "weir-datapath";
/// What the benchmark puts in front of the programs.
const FLOOD: &str = "weir-flood";

/// How the programs are compiled.
///
/// BPF's third instruction set (32-bit jumps and arithmetic) is in every kernel that we support.
/// Misaligned loads are what packet headers need, and are right on machines that do them
/// efficiently, which are x86-64 and arm64; it is the linker that generates code, so it is told, and
/// rustc does not warn. The map definitions of aya travel as BTF, which is made from debug
/// information.
const FLAGS: [&str; 4] = [
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
];

/// Builds the object, with the tools for it where they are missing, and answers where it is.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    shell::run(cargo(workspace, "build")?.arg("--bins"))?;
    keep(workspace, FLOOD)?;
    keep(workspace, OBJECT)
}

/// Where [`build`] puts the object that only the benchmark uses.
pub(crate) fn flood(workspace: &Workspace) -> PathBuf {
    kept(workspace, FLOOD)
}

/// Puts a built object where whoever uses it looks.
fn keep(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let built = folder(workspace).join(TARGET).join("release").join(name);
    let content = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let object = kept(workspace, name);
    if write_if_different(&object, &content)? {
        shell::say(&format!("wrote {} ({} bytes)", object.display(), content.len()));
    }
    Ok(object)
}

fn kept(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.target.join("ebpf-object").join(name)
}

/// Runs clippy on the programs, for the target that they are built for.
pub(crate) fn lint(workspace: &Workspace) -> Result<()> {
    shell::run(cargo(workspace, "clippy")?.args(["--bins", "--", "--deny", "warnings"]))
}

/// A nested cargo for the eBPF target. It takes the linker and the source of `core` from where the
/// set-up put them.
fn cargo(workspace: &Workspace, subcommand: &str) -> Result<Command> {
    let rustc = Rustc::ask(&workspace.root)?;
    let linker = linker::ensure(workspace, &rustc)?;
    let library = rust_src::ensure(workspace, &rustc)?;
    let mut cargo = workspace.isolated_cargo(subcommand);
    cargo
        .args(["--package", "ebpf", "--release", "--target", TARGET, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(folder(workspace))
        // The target has no precompiled core, and aya-ebpf itself uses unstable features: this
        // makes the pinned stable compiler accept both.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    if let rust_src::Library::At(path) = library {
        // Cargo's own tests set this; it is the only way to name a library outside the sysroot.
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", path);
    }
    Ok(cargo)
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("ebpf-build")
}
