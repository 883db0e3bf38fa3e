//! `bench`: what the datapath, the hook and the inventory cost, measured.

use std::process::ExitCode;

use clap::Parser;
use tests::bench::{self, hook, inventory};
use tests::sandbox;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Set by this program itself, when it starts again inside the box.
    #[arg(long, hide = true)]
    inside: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// What programs cost each packet.
    Datapath(bench::Options),
    /// What the hook costs each pod.
    Hook(hook::Options),
    /// What it costs to know many interfaces.
    Inventory(inventory::Options),
}

#[expect(clippy::print_stderr, reason = "the edge of the program")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.inside {
        let measured = match &arguments.what {
            What::Datapath(options) => bench::inside(options),
            What::Hook(options) => hook::inside(options),
            What::Inventory(options) => inventory::inside(options),
        };
        measured.map(|()| ExitCode::SUCCESS)
    } else {
        sandbox::outside().map_err(anyhow::Error::from)
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}
