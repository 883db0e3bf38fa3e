//! `cargo xtask bench`: builds what is measured, and becomes the benchmark.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::workspace::Workspace;
use crate::{ebpf, setup, shell};

#[derive(clap::Subcommand)]
pub(crate) enum Arguments {
    /// What the datapath costs each packet, and what is left of a link's throughput.
    Datapath(Common),
    /// How long a pod waits for its devices, and what preparing them takes.
    Hook(Common),
    /// What it costs to know 256 interfaces, once and again.
    Inventory(Common),
}

#[derive(clap::Args)]
pub(crate) struct Common {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write the page of the documentation, such as `docs/performance.md`.
    #[arg(long, value_name = "PATH")]
    write: Option<PathBuf>,
    /// Further arguments for the benchmark itself, such as `--rounds 3`.
    #[arg(last = true)]
    further: Vec<String>,
}

/// What the programs of others are compiled from.
const PEERS: [&str; 2] = ["weir", "textbook"];

/// Does not return where the benchmark runs: this process becomes it.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark makes network namespaces and loads eBPF programs: run it as root"
    );
    setup::packages()?;
    let (mut bench, common) = match arguments {
        Arguments::Datapath(common) => (datapath(workspace)?, common),
        Arguments::Hook(common) => (with_driver(workspace, "hook")?, common),
        Arguments::Inventory(common) => (with_driver(workspace, "inventory")?, common),
    };
    if common.json {
        bench.arg("--json");
    }
    if let Some(path) = &common.write {
        bench.arg("--write").arg(path);
    }
    bench.args(&common.further);
    Err(anyhow::Error::new(bench.exec()).context("start the benchmark"))
}

fn datapath(workspace: &Workspace) -> Result<Command> {
    if let Err(error) = setup::peers() {
        shell::say(&format!("not everything to compare with can be installed: {error:#}"));
    }
    ebpf::build(workspace)?;
    let peers = compile(workspace);
    workspace.build_programs()?;
    let mut bench = Command::new(workspace.program("bench"));
    bench.arg("datapath").arg("--flood").arg(ebpf::flood(workspace));
    match peers {
        Ok(folder) => {
            bench.arg("--peers").arg(folder);
        }
        Err(error) => shell::say(&format!("measuring without the programs in C: {error:#}")),
    }
    Ok(bench)
}

/// Everything that is measured as it would be shipped.
fn with_driver(workspace: &Workspace, what: &str) -> Result<Command> {
    ebpf::build(workspace)?;
    let mut build = workspace.cargo("build");
    workspace.select(&mut build).args(["--release", "--bin", "weir", "--bin", "bench"]);
    shell::run(&mut build)?;
    let folder = workspace.target.join("release");
    let mut bench = Command::new(folder.join("bench"));
    bench.arg(what).arg("--weir").arg(folder.join("weir"));
    Ok(bench)
}

/// Compiles the peers in C, and answers where their objects are.
fn compile(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for name in PEERS {
        let source = workspace.root.join("tests/bench").join(name).with_extension("c");
        let object = folder.join(name).with_extension("o");
        shell::run_quietly(&mut clang(&source, &object))?;
    }
    Ok(folder)
}

/// For the same instruction set as our own programs.
fn clang(source: &Path, object: &Path) -> Command {
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-Wall", "-Werror", "--target=bpfel", "-mcpu=v3", "-c"]);
    clang.arg(source).arg("-o").arg(object);
    clang
}
