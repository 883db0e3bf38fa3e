//! `bench`: what the datapath costs, measured.

use std::process::ExitCode;

use clap::Parser;
use tests::bench::{self, Options};
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
        bench::inside(&arguments.options).map(|()| ExitCode::SUCCESS)
    } else {
        sandbox::outside().map_err(anyhow::Error::from)
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}
