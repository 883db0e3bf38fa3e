//! `cargo xtask ci`: what a change has to pass.

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{lint, test};

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    lint::run(workspace)?;
    test::run(workspace, &test::Arguments::default())
}
