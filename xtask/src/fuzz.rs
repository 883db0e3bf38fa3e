//! `cargo xtask fuzz`: gives what reads foreign bytes bytes that it has never seen.
//!
//! The targets are `driver/src/testing/fuzz.rs`, their programs and corpora are below `tests/fuzz`, in the
//! layout of cargo-fuzz. It is not needed here: what it tells the compiler is told below, so that the
//! compiler of the workspace does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::rustc::Rustc;
use crate::workspace::Workspace;
use crate::{setup, shell};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which targets to run; all of them where none is named.
    targets: Vec<String>,
    /// How long each of them runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only keep of the corpus what it takes to reach what all of it reaches.
    #[arg(long, conflicts_with = "seconds")]
    minimize: bool,
    /// Further arguments for the fuzzer, such as the file of a finding.
    #[arg(last = true)]
    further: Vec<String>,
}

/// Coverage as libFuzzer reads it: counters for each edge, where they are, and what is compared. All of
/// our code that reads bytes is safe, so there is no sanitizer.
const FLAGS: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::packages()?;
    let home = workspace.root.join("tests/fuzz");
    let known = known(&home)?;
    let targets = if arguments.targets.is_empty() { &known } else { &arguments.targets };
    for target in targets {
        ensure!(known.contains(target), "{target} is no target; there are {}", known.join(", "));
    }
    let programs = build(workspace, &home, targets)?;
    for target in targets {
        let corpus = home.join("corpus").join(target);
        let program = programs.join(target);
        if arguments.minimize {
            minimize(&program, &corpus)?;
        } else {
            fuzz(workspace, arguments, target, &program, &corpus)?;
        }
    }
    Ok(())
}

/// The targets' names, which are those of their files.
fn known(home: &Path) -> Result<Vec<String>> {
    let folder = home.join("targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let name = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let mut known: Vec<_> = entries.flatten().filter_map(|entry| name(entry.path())).collect();
    known.sort();
    Ok(known)
}

/// Builds the targets, and answers where they are.
fn build(workspace: &Workspace, home: &Path, targets: &[String]) -> Result<PathBuf> {
    let host = Rustc::ask(&workspace.root)?.host;
    let folder = workspace.target.join("fuzz");
    let mut cargo = workspace.isolated_cargo("build");
    // With a target given, flags are not for build scripts.
    cargo.args(["--release", "--locked", "--target", &host]);
    cargo.arg("--manifest-path").arg(home.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&folder);
    for target in targets {
        cargo.args(["--bin", target]);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    shell::run(&mut cargo)?;
    Ok(folder.join(host).join("release"))
}

/// What it finds new is kept beside what is built; the corpus is only read.
fn fuzz(
    workspace: &Workspace,
    arguments: &Arguments,
    target: &str,
    program: &Path,
    corpus: &Path,
) -> Result<()> {
    let found = workspace.target.join("fuzz/found").join(target);
    fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
    shell::say(&format!("fuzzing {target} for {} s", arguments.seconds));
    let mut fuzzer = Command::new(program);
    fuzzer.arg(format!("-max_total_time={}", arguments.seconds));
    fuzzer.args(["-print_final_stats=1", "-timeout=10", "-max_len=16384", "-verbosity=1"]);
    fuzzer.arg(format!("-artifact_prefix={}/{target}-", workspace.target.join("fuzz").display()));
    if arguments.further.is_empty() {
        fuzzer.arg(&found).arg(corpus);
    }
    fuzzer.args(&arguments.further);
    shell::run(&mut fuzzer)
}

fn minimize(program: &Path, corpus: &Path) -> Result<()> {
    let all = corpus.with_extension("all");
    fs::rename(corpus, &all).with_context(|| format!("set {} aside", corpus.display()))?;
    fs::create_dir_all(corpus).with_context(|| format!("create {}", corpus.display()))?;
    shell::run(Command::new(program).arg("-merge=1").arg(corpus).arg(&all))?;
    fs::remove_dir_all(&all).with_context(|| format!("remove {}", all.display()))
}
