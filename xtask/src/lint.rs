//! `cargo xtask lint`: formatting, clippy, and the rules that only this house has.

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{ebpf, setup, shell, tidy};

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    shell::run(workspace.cargo("fmt").args(["--all", "--check"]))?;
    tidy::run(workspace, &tidy::Arguments::default())?;
    setup::packages()?;
    let mut clippy = workspace.cargo("clippy");
    workspace.select(&mut clippy).args(["--all-targets", "--", "--deny", "warnings"]);
    shell::run(&mut clippy)?;
    ebpf::lint(workspace)
}
