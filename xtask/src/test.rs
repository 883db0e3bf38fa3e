//! `cargo xtask test`: the rings of tests, from those that need nothing to those that need a kernel.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::runtime::{self, Cgroups};
use crate::rustc::Rustc;
use crate::workspace::Workspace;
use crate::{ebpf, enter, setup, shell, vm};

/// What the vm ring runs unless it is told otherwise. What a program costs is not asked of a processor
/// that is emulated: there the answer depends on the day. All that tests write is kept.
const IN_GUESTS: [&str; 7] = [
    "datapath::",
    VM_ONLY,
    HARDWARE,
    "--include-ignored",
    "--skip",
    "counting_and_filtering_cost_nanoseconds",
    "--show-output",
];

/// The modules whose tests the kernel ring leaves to the vm ring: each needs a kind of interface that a
/// machine's own kernel may not have, or hardware that only guests have.
const VM_ONLY: &str = "::vm_only::";
const HARDWARE: &str = "hardware::";

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Which ring to run; may be given more than once.
    #[arg(long = "ring", value_enum, default_value = "all")]
    rings: Vec<Ring>,
    /// Which kernel the vm ring boots; may be given more than once. Without it, all of them.
    #[arg(long = "kernel", value_name = "SERIES", value_parser = vm::SERIES)]
    kernels: Vec<String>,
    /// Arguments for the test programs, such as a part of a test's name.
    #[arg(last = true)]
    further: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Ring {
    /// Tests inside the source files.
    Unit,
    /// The driver against a simulated node.
    Node,
    /// Real namespaces, interfaces, programs and traffic; needs root.
    Kernel,
    /// Tests of the kernel ring on kernels of Debian, in emulated machines. Fetches about 500 MB once.
    Vm,
    /// The driver and its pods on real container runtimes; needs root. Fetches about 100 MB once.
    Runtime,
    /// Unit, node and kernel.
    All,
}

impl Arguments {
    fn has(&self, ring: Ring) -> bool {
        let is_in_all = !matches!(ring, Ring::Vm | Ring::Runtime);
        self.rings.is_empty() && is_in_all
            || self.rings.iter().any(|&picked| picked == ring || picked == Ring::All && is_in_all)
    }

    fn kernels(&self) -> Vec<String> {
        match self.kernels.as_slice() {
            [] => vm::SERIES.map(str::to_owned).to_vec(),
            picked => picked.to_vec(),
        }
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let needs_root = arguments.has(Ring::Kernel) || arguments.has(Ring::Runtime);
    ensure!(
        !needs_root || nix::unistd::geteuid().is_root(),
        "the rings kernel and runtime make network namespaces and load eBPF programs: run them as root, or \
         pick other rings with `--ring unit --ring node`"
    );
    ensure!(
        arguments.kernels.is_empty() || arguments.has(Ring::Vm),
        "`--kernel` is for the vm ring: pick it with `--ring vm`"
    );
    let kernels = arguments.kernels();
    if arguments.has(Ring::Vm) {
        vm::prepare(workspace, &kernels)?;
    }
    let mut runtimes = Vec::new();
    if arguments.has(Ring::Runtime) {
        for release in &runtime::RELEASES {
            runtimes.push((release.series, release.ensure(workspace)?));
        }
    }
    setup::packages()?;
    ebpf::build(workspace)?;
    if arguments.has(Ring::Unit) {
        shell::say("ring unit");
        ring(workspace, &["--lib", "--bins"], &arguments.further, &[], None)?;
    }
    if [Ring::Node, Ring::Kernel, Ring::Vm, Ring::Runtime]
        .into_iter()
        .any(|ring| arguments.has(ring))
    {
        // Cargo builds the programs of a test's own package only, and the driver is another.
        workspace.build_programs()?;
    }
    if arguments.has(Ring::Node) {
        shell::say("ring node");
        ring(workspace, &["--test", "node"], &arguments.further, &[], None)?;
    }
    // The file that this process was started from may have been replaced by the build.
    let xtask = workspace.program("xtask");
    if arguments.has(Ring::Kernel) {
        shell::say("ring kernel, in namespaces of its own");
        in_kernel(workspace, &arguments.further, &enter::words(&xtask, &[])?)?;
        tell_what_is_left(workspace)?;
    }
    let mut bad = Vec::new();
    for (series, folder) in runtimes {
        shell::say(&format!("ring runtime, containerd {series}, in namespaces of its own"));
        // What the other one does is of interest also where this one fails.
        if let Err(error) = on_containerd(workspace, &folder, &arguments.further) {
            eprintln!("{error:#}");
            bad.push(series);
        }
    }
    ensure!(bad.is_empty(), "the runtime ring failed on containerd {}", bad.join(" and "));
    if arguments.has(Ring::Vm) {
        shell::say("ring vm, one guest after the other");
        in_guests(workspace, &kernels, &arguments.further)?;
    }
    Ok(())
}

/// Names the tests that this ring does not run, so that nobody takes them for shown.
fn tell_what_is_left(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo("test");
    workspace.select(&mut cargo).args(["--test", "kernel", "--quiet"]);
    cargo.args(["--", "--ignored", "--list", "--format", "terse", VM_ONLY, HARDWARE]);
    for name in vm::listed(&shell::read(&mut cargo)?, "") {
        shell::say(&format!("left to the vm ring: {name}"));
    }
    Ok(())
}

/// Runs tests of the kernel ring in guests: those about the datapath and those that were left to guests,
/// or the ones asked for.
fn in_guests(workspace: &Workspace, kernels: &[String], further: &[String]) -> Result<()> {
    let xtask = workspace.program("xtask");
    let mut words = vec![xtask.to_str().context("the path of xtask is not UTF-8")?, "guests"];
    words.extend(kernels.iter().flat_map(|kernel| ["--kernel", kernel]));
    words.push("--");
    if further.is_empty() {
        shell::say(&format!("test arguments: {}", IN_GUESTS.join(" ")));
        return in_kernel(workspace, &IN_GUESTS.map(str::to_owned), &words);
    }
    in_kernel(workspace, further, &words)
}

/// Runs the tests that need a kernel, their program started by `words`.
fn in_kernel(workspace: &Workspace, further: &[String], words: &[&str]) -> Result<()> {
    let runner = runner(&Rustc::ask(&workspace.root)?, words);
    // The tests share what is one per namespace, such as the bpffs root.
    let further = [&["--test-threads=1".to_owned()], further].concat();
    ring(workspace, &["--test", "kernel"], &further, &["--config".to_owned(), runner], None)
}

/// Runs the tests that need a container runtime, on the one in `folder`.
fn on_containerd(workspace: &Workspace, folder: &Path, further: &[String]) -> Result<()> {
    let (xtask, cgroups) = (workspace.program("xtask"), Cgroups::make()?);
    let words = enter::words(&xtask, cgroups.folders())?;
    let runner = runner(&Rustc::ask(&workspace.root)?, &words);
    // Each test has namespaces and a runtime of its own, but they share what the machine has.
    let further = [&["--test-threads=1".to_owned()], further].concat();
    let options = ["--config".to_owned(), runner];
    ring(workspace, &["--test", "runtime"], &further, &options, Some(folder))
}

fn ring(
    workspace: &Workspace,
    targets: &[&str],
    further: &[String],
    options: &[String],
    containerd: Option<&Path>,
) -> Result<()> {
    let mut cargo = workspace.cargo("test");
    workspace.select(&mut cargo).args(targets).args(options).arg("--no-fail-fast");
    environment(workspace, &mut cargo);
    if let Some(containerd) = containerd {
        cargo.env("WEIR_CONTAINERD", containerd);
    }
    cargo.arg("--").args(further);
    shell::run(&mut cargo)
}

/// What tests that start the driver's own binary have to know.
fn environment(workspace: &Workspace, command: &mut Command) {
    command.env("WEIR_BINARY", workspace.program("weir"));
    command.env("WEIR_EXAMPLES", workspace.examples());
}

/// Cargo's setting that makes it start test programs by `words`.
fn runner(rustc: &Rustc, words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    format!("target.{}.runner=[{}]", rustc.host, words.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_that_fetch_much_run_only_where_they_are_picked() {
        for far in [Ring::Vm, Ring::Runtime] {
            let has = |rings: &[Ring]| {
                Arguments { rings: rings.to_vec(), ..Arguments::default() }.has(far)
            };
            assert!(!has(&[]));
            assert!(!has(&[Ring::All]));
            assert!(has(&[Ring::All, far]));
        }
    }
}
