//! Generates the protocol types, and puts what the driver embeds where it finds it: the eBPF object
//! and the gate.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, error, fs};

fn main() -> Result<(), Box<dyn error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    compile_protocols()?;
    build_gate(&out)?;
    copy_ebpf_object(&out)
}

/// Compiles our transcriptions in `proto/` without a `protoc` on the machine.
fn compile_protocols() -> Result<(), Box<dyn error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut files = fs::read_dir("proto")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

/// Builds the program that the driver puts on the host: one that needs nothing there, also no C
/// library.
fn build_gate(out: &Path) -> Result<(), Box<dyn error::Error>> {
    for file in ["gate/main.rs", "src/sys/gate.rs", "src/sys/cookie.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut rustc = Command::new(env::var("RUSTC")?);
    rustc.args(["--crate-name", "weir_gate", "--edition", "2024", "--cap-lints", "allow"]);
    rustc.args(["--target", &env::var("TARGET")?, "-C", "target-feature=+crt-static"]);
    for option in ["panic=abort", "opt-level=s", "lto=fat", "codegen-units=1", "strip=symbols"] {
        rustc.args(["-C", option]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let status = rustc.arg("-o").arg(out.join("weir-gate")).arg("gate/main.rs").status()?;
    if status.success() { Ok(()) } else { Err(format!("{rustc:?} ended with {status}").into()) }
}

/// Copies what `cargo xtask ebpf` left in the target directory. Where it has not run, the copy is
/// empty: the driver builds all the same and says at start what is missing.
fn copy_ebpf_object(out: &Path) -> Result<(), Box<dyn error::Error>> {
    // OUT_DIR is TARGET/PROFILE/build/driver-HASH/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not inside a target directory")?;
    let object = target.join("ebpf-object").join("weir-datapath");
    if !object.exists() {
        // Cargo would run this script at every build if the file that it watches were missing.
        fs::create_dir_all(target.join("ebpf-object"))?;
        fs::write(&object, [])?;
    }
    println!("cargo::rerun-if-changed={}", object.display());
    fs::copy(&object, out.join("weir-datapath"))?;
    Ok(())
}
