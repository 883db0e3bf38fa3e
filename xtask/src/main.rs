//! Every command that is ever run on this repository.
//!
//! Each command is one file. What a command needs and does not find, it makes or installs, and
//! prints one line about it first; where that needs rights which it does not have, it stops and
//! names the command to run. Nothing here needs more than Rust itself, a C linker and, for what is
//! missing, the network.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command line program")]

mod apt;
mod ebpf;
mod linker;
mod rust_src;
mod rustc;
mod shell;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use self::workspace::Workspace;

/// Builds, tests and shows Weir, and sets up whatever that needs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Build the eBPF object and put it where the driver's build embeds it.
    Ebpf,
}

fn main() -> ExitCode {
    let outcome = Workspace::find().and_then(|workspace| match Command::parse() {
        Command::Ebpf => ebpf::build(&workspace).map(|_| ExitCode::SUCCESS),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
