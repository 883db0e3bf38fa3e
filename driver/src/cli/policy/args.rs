//! The arguments of `weir policy`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use crate::cli::Output;
use crate::cli::args::STATE_DIR;
use crate::model::Selection;

/// What can be done with policies.
#[derive(Clone, Debug, Subcommand)]
pub enum PolicyCommand {
    /// Lay the rules of a file over the filters of running pods, in place of those applied before.
    Apply(ApplyArgs),
    /// Show which rules are in force, and whose they are.
    Show(ShowArgs),
    /// Take the operator's rules away. Those of the claims stay.
    Clear(ClearArgs),
}

/// One of them has to be chosen where something is changed.
const CHOICES: [&str; 4] = ["pod", "claim", "device", "all"];

/// Which devices are meant.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct SelectionArgs {
    /// The devices of this pod: NAMESPACE/NAME, or its UID.
    #[arg(long, group = "selection", value_name = "NAMESPACE/NAME")]
    pub pod: Option<String>,
    /// The devices of this claim: NAMESPACE/NAME, or its UID.
    #[arg(long, group = "selection", value_name = "NAMESPACE/NAME")]
    pub claim: Option<String>,
    /// This device.
    #[arg(long, group = "selection", value_name = "NAME")]
    pub device: Option<String>,
    /// Every device that has programs.
    #[arg(long, group = "selection")]
    pub all: bool,
    /// The driver's directory with its checkpoint and its socket.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
}

impl SelectionArgs {
    /// `None` where nothing was said.
    pub fn selection(&self) -> Option<Selection> {
        let Self { pod, claim, device, all, .. } = self;
        let pod = pod.clone().map(Selection::Pod);
        let claim = claim.clone().map(Selection::Claim);
        let device = device.clone().map(Selection::Device);
        pod.or(claim).or(device).or(all.then_some(Selection::All))
    }
}

/// Arguments of `weir policy apply`.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("chosen").required(true).args(CHOICES)))]
pub struct ApplyArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// A policy (kind `NodePolicy`), as YAML or JSON; `-` reads it from standard input.
    #[arg(long, short, value_name = "FILE")]
    pub file: String,
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `weir policy clear`.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("chosen").required(true).args(CHOICES)))]
pub struct ClearArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `weir policy show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}
