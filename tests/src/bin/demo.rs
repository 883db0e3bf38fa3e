//! `demo`: the main job of Weir on a node in a box, told in about twenty lines.

use std::process::ExitCode;

use clap::Parser;
use tests::demo::{self, Options};
use tests::sandbox;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Set by this program itself, when it starts again inside the box.
    #[arg(long, hide = true)]
    inside: bool,
}

#[expect(clippy::print_stderr, reason = "the edge of the program")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.inside {
        demo::inside(&arguments.options)
    } else {
        sandbox::outside().map_err(anyhow::Error::from)
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("demo: {error:#}");
        ExitCode::FAILURE
    })
}
