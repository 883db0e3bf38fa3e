//! Every command that is ever run on this repository.
//!
//! Each command is one file. What a command needs and does not find, it makes or installs, and
//! prints one line about it first; where that needs rights which it does not have, it stops and
//! names the command to run. Nothing here needs more than Rust itself, a C linker and, for what is
//! missing, the network.
#![expect(clippy::print_stderr, reason = "this is a command line program")]

mod apt;
mod bench;
mod ci;
mod demo;
mod ebpf;
mod enter;
mod fuzz;
mod linker;
mod lint;
mod runtime;
mod rust_src;
mod rustc;
mod setup;
mod shell;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use self::workspace::Workspace;

/// Builds, tests and shows Weir, and sets up whatever that needs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Show Weir at work on a simulated node: real kernel, real traffic, no cluster.
    Demo(demo::Arguments),
    /// Measure what Weir costs.
    #[command(subcommand)]
    Bench(bench::Arguments),
    /// Give what reads foreign bytes bytes that it has never seen.
    Fuzz(fuzz::Arguments),
    /// Run the tests: all rings, or the ones picked.
    Test(test::Arguments),
    /// Check formatting, clippy's lints and the rules of the house.
    Lint,
    /// Check the rules of the house only.
    Tidy(tidy::Arguments),
    /// Do everything that continuous integration does: lint, then test.
    Ci,
    /// Build the eBPF object and put it where the driver's build embeds it.
    Ebpf,
    /// Install whatever the other commands need. They do so by themselves.
    Setup,
    /// Prepare fresh namespaces and run a program in them: the test runner of the kernel ring.
    #[command(hide = true)]
    Enter(enter::Arguments),
    /// Run a program in guests with other kernels: the test runner of the vm ring.
    #[command(hide = true)]
    Guests(vm::Arguments),
}

fn main() -> ExitCode {
    run(Command::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    if let Command::Enter(arguments) = command {
        return enter::run(&arguments);
    }
    let workspace = Workspace::find()?;
    match command {
        Command::Demo(arguments) => demo::run(&workspace, &arguments)?,
        Command::Bench(arguments) => bench::run(&workspace, &arguments)?,
        Command::Fuzz(arguments) => fuzz::run(&workspace, &arguments)?,
        Command::Test(arguments) => test::run(&workspace, &arguments)?,
        Command::Lint => lint::run(&workspace)?,
        Command::Tidy(arguments) => tidy::run(&workspace, &arguments)?,
        Command::Ci => ci::run(&workspace)?,
        Command::Ebpf => {
            ebpf::build(&workspace)?;
        }
        Command::Guests(arguments) => vm::run(&workspace, &arguments)?,
        Command::Setup => setup::run(&workspace)?,
        Command::Enter(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}
