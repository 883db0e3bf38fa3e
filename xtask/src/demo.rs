//! `cargo xtask demo`: builds the driver and the node in a box, and becomes the demo.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::workspace::Workspace;
use crate::{ebpf, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON object with what was measured, instead of the story.
    #[arg(long)]
    json: bool,
    /// Show the API objects as YAML.
    #[arg(long)]
    yaml: bool,
    /// Further arguments for the demo itself.
    #[arg(last = true)]
    further: Vec<String>,
}

/// Does not return where the demo runs: this process becomes it, so that its exit status is ours and
/// a signal that is meant for it reaches it.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the demo makes network namespaces and loads eBPF programs: run it as root"
    );
    setup::packages()?;
    ebpf::build(workspace)?;
    workspace.build_programs()?;
    let mut demo = Command::new(workspace.program("demo"));
    demo.arg("--weir").arg(workspace.program("weir"));
    demo.arg("--examples").arg(workspace.examples());
    for (is_set, flag) in [(arguments.json, "--json"), (arguments.yaml, "--yaml")] {
        if is_set {
            demo.arg(flag);
        }
    }
    demo.args(&arguments.further);
    Err(anyhow::Error::new(demo.exec()).context("start the demo"))
}
