//! Entry point: parse, validate, run, and turn the outcome into an exit code.

use std::process::ExitCode;

use driver::cli::{self, Command, NodeArgs};
use driver::config::Config;
use driver::{app, telemetry};

fn main() -> ExitCode {
    match cli::parse() {
        Ok(Command::Node(args)) => node(&args),
        Ok(Command::Policy(command)) => cli::policy(&command),
        Ok(Command::Look(command)) => cli::look(command),
        Err(code) => code,
    }
}

/// Runs the driver. Nothing is opened before the configuration is valid.
#[expect(clippy::print_stderr, reason = "logs cannot start before the configuration is valid")]
fn node(args: &NodeArgs) -> ExitCode {
    let config = match Config::try_from(args) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("weir node: the configuration is not valid");
            for problem in &problems {
                eprintln!("  {problem}");
            }
            return ExitCode::from(cli::EX_USAGE);
        }
    };
    telemetry::start_logs(config.log_format);
    match app::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = telemetry::chain(&error), "driver stopped");
            ExitCode::FAILURE
        }
    }
}
