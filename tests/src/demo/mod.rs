//! The demo: a pod gets two NICs with a datapath on each, on a node in a box.
//!
//! Everything the demo says is checked: against the wire, which counts for itself, or against what
//! was there before. What does not hold is listed at the end and makes it fail.

mod flows;
mod manifests;
mod report;
mod scene;
mod story;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

pub use self::report::Report;
use self::story::Story;
use crate::sandbox::{self, Network};

/// What the demo is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The driver's binary.
    #[arg(long, value_name = "PATH", default_value = "target/debug/weir")]
    pub weir: PathBuf,
    /// The directory of the manifests to apply.
    #[arg(long, value_name = "DIR", default_value = "deploy/examples")]
    pub examples: PathBuf,
    /// Print one JSON object with what was measured, instead of the story.
    #[arg(long)]
    pub json: bool,
    /// Show the API objects as YAML.
    #[arg(long, conflicts_with = "json")]
    pub yaml: bool,
    /// Only make the box with its NICs, and wait to be killed.
    #[arg(long, hide = true)]
    pub hold: bool,
}

/// Furnishes the box and tells the story in it.
pub fn inside(options: &Options) -> Result<ExitCode> {
    sandbox::inside()?;
    if options.hold {
        return hold();
    }
    let report = Story::new(options).tell()?;
    if options.json {
        line(&serde_json::to_string_pretty(&report).context("write the report")?)?;
    }
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn hold() -> Result<ExitCode> {
    let network = Network::new(scene::NICS)?;
    line(&format!("a box with {} NICs", network.nics().len()))?;
    loop {
        std::thread::park();
    }
}

/// Prints a line; a reader that has gone away is an error like any other.
fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("print")
}
