//! `cargo xtask ebpf`: the eBPF object, built and put where the driver's build embeds it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::rustc::Rustc;
use crate::workspace::{Workspace, write_if_different};
use crate::{linker, rust_src, shell};

const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "weir-datapath";

/// How the programs are compiled.
///
/// BPF's third instruction set (32-bit jumps and arithmetic) is in every kernel that we support.
/// Misaligned loads are what packet headers need, and are right on machines that do them
/// efficiently, which are x86-64 and arm64. The map definitions of aya travel as BTF, and BTF is
/// made from debug information.
const FLAGS: [&str; 4] = [
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Ctarget-feature=+allows-misaligned-mem-access",
];

/// Builds the object, with the tools for it where they are missing, and answers where it is.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let rustc = Rustc::ask(&workspace.root)?;
    let linker = linker::ensure(workspace, &rustc)?;
    let library = rust_src::ensure(workspace, &rustc)?;
    let folder = workspace.target.join("ebpf-build");

    let mut cargo = workspace.isolated_cargo("build");
    cargo
        .args(["--package", "ebpf", "--bins", "--release", "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&folder)
        // The target has no precompiled core, and aya-ebpf itself uses unstable features: this
        // makes the pinned stable compiler accept both.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    if let rust_src::Library::At(path) = library {
        // Cargo's own tests set this; it is the only way to name a library outside the sysroot.
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", path);
    }
    shell::run(&mut cargo)?;

    let built = folder.join(TARGET).join("release").join(OBJECT);
    let content = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let object = workspace.target.join("ebpf-object").join(OBJECT);
    if write_if_different(&object, &content)? {
        shell::say(&format!("wrote {} ({} bytes)", object.display(), content.len()));
    }
    Ok(object)
}
