//! The command line: `weir node` is the driver, the other commands look at a node and print.
//!
//! `weir policy` is the only one of them that changes anything, and asks the driver to.
//! What looks also works while no driver runs: it reads the checkpoint and the pinned maps, asks
//! nobody, and changes nothing. `weir check` looks at files only. Rendering is pure; only [`look`]
//! prints.

mod args;
mod check;
mod devices;
mod explain;
mod flows;
mod input;
mod inspect;
mod output;
mod policy;
mod top;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

pub use self::args::{
    CheckArgs, DevicesArgs, FlowOrder, FlowsArgs, InspectArgs, MannerArgs, NodeArgs, Output,
    SchemaKind, TopArgs, Way,
};
pub use self::policy::PolicyCommand;
use crate::admin::CallError;
use crate::config::UnknownProfile;
use crate::datapath::{CounterError, Datapath};
use crate::inventory::InventoryError;
use crate::model::{Problems, Selection};
use crate::state::CheckpointError;
use crate::sys::sysfs::SysfsError;
use crate::telemetry;

/// The `sysexits.h` code for a command line that cannot be used as written.
pub const EX_USAGE: u8 = 64;
/// Nothing on this node is called what was asked for.
const NOTHING_MATCHES: u8 = 3;

/// Version of the driver, and the build of the programs that it brings.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (datapath {})", env!("CARGO_PKG_VERSION"), Datapath::build().0));

/// A Kubernetes Network Driver: moves NICs into pods, counts and filters their traffic by eBPF.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version = VERSION.as_str(),
    after_help = "Exit status: 0 done, 1 failed, 3 nothing matches (inspect, flows, policy), 64 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `weir` can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the driver of this node.
    Node(Box<NodeArgs>),
    /// Lay rules over those of running pods, show them, or take them away.
    #[command(subcommand)]
    Policy(PolicyCommand),
    #[command(flatten)]
    Look(Look),
}

/// Commands that only look.
#[derive(Debug, Subcommand)]
pub enum Look {
    /// Show the devices of this node that claims can ask for.
    Devices(DevicesArgs),
    /// Show the traffic of prepared devices.
    Top(TopArgs),
    /// Show who talks to whom, where the claim asked for flows.
    Flows(FlowsArgs),
    /// Show everything about a pod's, a claim's or one device.
    Inspect(InspectArgs),
    /// Tell what is wrong with configurations and policies in files, without a node.
    Check(CheckArgs),
}

/// Why a command that looks has nothing, or not all, to show.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("open sysfs")]
    Sysfs(#[from] SysfsError),
    #[error("look for devices")]
    Scan(#[from] InventoryError),
    #[error("read what is recorded")]
    Records(#[from] CheckpointError),
    #[error("no device, pod or claim {0:?} is known on this node")]
    NothingMatches(String),
    #[error("which devices: --pod, --claim, --device or --all")]
    NothingChosen,
    #[error("{}", .0.absence())]
    NothingSelected(Selection),
    #[error("read {file}")]
    Read { file: String, source: io::Error },
    #[error("{file} is no YAML: {reason}")]
    Yaml { file: String, reason: String },
    #[error("{file}: the policy is not valid:\n  {}", .problems.join("\n  "))]
    Policy { file: String, problems: Vec<String> },
    #[error("{} devices are as they were:\n  {}", .0.len(), .0.join("\n  "))]
    NotEverywhere(Vec<String>),
    #[error("{0} problems")]
    NotValid(usize),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the counters of {0} devices could not be read")]
    Unread(usize),
    #[error("the flows of {0} devices could not be read")]
    UnreadFlows(usize),
    #[error("follow flows")]
    Follow(#[from] CounterError),
    #[error("the configuration is not valid:\n  {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    NodeConfig(Problems),
    #[error(transparent)]
    Profile(#[from] UnknownProfile),
    #[error("these arguments cannot be:\n  {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    Manner(Problems),
    #[error("{0}")]
    Filter(String),
    #[error("read what is offered")]
    InForce(#[source] io::Error),
    #[error("make JSON")]
    Json(#[from] serde_json::Error),
    #[error("write")]
    Write(#[from] io::Error),
}

/// What the command line says. Prints what clap has to say otherwise: help, the version, an error.
///
/// # Errors
///
/// The code to exit with, when there is nothing more to do.
pub fn parse() -> Result<Command, ExitCode> {
    let cli = Cli::try_parse().map_err(|error| {
        // Neither stream can be written to, and so nothing can be said about it.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { EX_USAGE } else { 0 })
    })?;
    Ok(cli.command)
}

/// Runs a command that looks, and prints.
pub fn look(command: Look) -> ExitCode {
    exit(match command {
        Look::Devices(args) => devices::run(&args),
        Look::Top(args) => top::run(&args),
        Look::Flows(args) => flows::run(&args),
        Look::Inspect(args) => inspect::run(&args),
        Look::Check(args) => check::run(&args),
    })
}

/// Runs a command about policies, and prints.
pub fn policy(command: &PolicyCommand) -> ExitCode {
    exit(policy::run(command))
}

#[expect(clippy::print_stderr, reason = "what failed is for whoever typed the command")]
fn exit(done: Result<(), CliError>) -> ExitCode {
    let (status, complaint) = end(done);
    if let Some(complaint) = complaint {
        eprintln!("weir: {complaint}");
    }
    ExitCode::from(status)
}

/// The exit status, and what to say.
fn end(done: Result<(), CliError>) -> (u8, Option<String>) {
    match done {
        Ok(()) => (0, None),
        // Whoever read has seen enough, as in `weir devices | head -1`.
        Err(CliError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => (0, None),
        Err(error @ (CliError::NothingMatches(_) | CliError::NothingSelected(_))) => {
            (NOTHING_MATCHES, Some(error.to_string()))
        }
        Err(error) => (1, Some(telemetry::chain(&error))),
    }
}

/// Where a driver of this node keeps what the commands read.
#[derive(Clone, Debug, clap::Args)]
pub struct Places {
    /// The driver's directory with its checkpoint.
    #[arg(long, default_value = args::STATE_DIR)]
    pub state_dir: PathBuf,
    /// Where bpffs is mounted.
    #[arg(long, default_value = args::BPFFS)]
    pub bpffs: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_names_the_build_of_the_programs() {
        let version = Cli::try_parse_from(["weir", "--version"]).unwrap_err().to_string();
        let build = Datapath::build().0;
        assert_eq!(version, format!("weir {} (datapath {build})\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_reader_who_has_seen_enough_is_no_failure() {
        let write = |kind: io::ErrorKind| end(Err(CliError::Write(kind.into())));
        assert_eq!(write(io::ErrorKind::BrokenPipe), (0, None));
        let (status, complaint) = write(io::ErrorKind::StorageFull);
        assert_eq!((status, complaint.as_deref()), (1, Some("write: no storage space")));
    }

    #[test]
    fn nothing_that_matches_has_its_own_exit_status() {
        let (status, complaint) = end(Err(CliError::NothingMatches("x".to_owned())));
        assert_eq!(status, 3);
        assert_eq!(complaint.unwrap(), "no device, pod or claim \"x\" is known on this node");
    }

    #[test]
    fn each_command_is_understood() {
        let parse = |words: &str| Cli::try_parse_from(words.split(' ')).map(|cli| cli.command);
        assert!(matches!(parse("weir node --node-name a"), Ok(Command::Node(_))));
        let devices = parse("weir devices --output json");
        assert!(
            matches!(devices, Ok(Command::Look(Look::Devices(args))) if args.output == Output::Json)
        );
        let top = parse("weir top --interval 500ms");
        assert!(
            matches!(top, Ok(Command::Look(Look::Top(args))) if args.interval.as_millis() == 500)
        );
        assert!(matches!(parse("weir inspect default/web"), Ok(Command::Look(Look::Inspect(_)))));
        let flows = parse("weir flows web --top 5 --sort last --direction egress");
        assert!(matches!(flows, Ok(Command::Look(Look::Flows(args))) if args.top == 5));
        assert!(parse("weir flows --follow --top 5").is_err());
        assert!(parse("weir inspect").is_err());
        let check = parse("weir check a.yaml - --output json");
        assert!(
            matches!(check, Ok(Command::Look(Look::Check(args))) if args.files == ["a.yaml", "-"])
        );
        assert!(parse("weir check").is_err());
        for chosen in ["--pod a/b", "--claim a/b", "--device a", "--all"] {
            for verb in ["apply -f x", "clear", "show"] {
                let words = format!("weir policy {verb} {chosen}");
                assert!(matches!(parse(&words), Ok(Command::Policy(_))), "{words}");
            }
        }
        assert!(parse("weir policy show").is_ok());
        for wrong in ["clear", "apply -f x", "apply --all", "clear --all --device a"] {
            assert!(parse(&format!("weir policy {wrong}")).is_err(), "{wrong}");
        }
        assert!(parse("weir top --interval 0s").is_err());
    }
}
