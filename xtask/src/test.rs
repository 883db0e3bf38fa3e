//! `cargo xtask test`: the rings of tests, from those that need nothing to those that need a kernel.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::rustc::Rustc;
use crate::workspace::Workspace;
use crate::{ebpf, setup, shell};

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Which ring to run; may be given more than once.
    #[arg(long = "ring", value_enum, default_value = "all")]
    rings: Vec<Ring>,
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
    /// All of them.
    All,
}

impl Arguments {
    fn has(&self, ring: Ring) -> bool {
        self.rings.is_empty()
            || self.rings.iter().any(|&picked| picked == ring || picked == Ring::All)
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    ensure!(
        !arguments.has(Ring::Kernel) || nix::unistd::geteuid().is_root(),
        "the kernel ring makes network namespaces and loads eBPF programs: run it as root, or pick \
         other rings with `--ring unit --ring node`"
    );
    setup::packages()?;
    ebpf::build(workspace)?;
    if arguments.has(Ring::Unit) {
        shell::say("ring unit");
        ring(workspace, &["--lib", "--bins"], &arguments.further, &[])?;
    }
    if arguments.has(Ring::Node) || arguments.has(Ring::Kernel) {
        // Cargo builds the programs of a test's own package only, and the driver is another.
        workspace.build_programs()?;
    }
    if arguments.has(Ring::Node) {
        shell::say("ring node");
        ring(workspace, &["--test", "node"], &arguments.further, &[])?;
    }
    if arguments.has(Ring::Kernel) {
        shell::say("ring kernel, in namespaces of its own");
        // The tests share what is one per namespace, such as the bpffs root.
        let further = [vec!["--test-threads=1".to_owned()], arguments.further.clone()].concat();
        // The file that this process was started from may have been replaced by the build.
        let runner = runner(&Rustc::ask(&workspace.root)?, &workspace.program("xtask"))?;
        ring(workspace, &["--test", "kernel"], &further, &["--config".to_owned(), runner])?;
    }
    Ok(())
}

fn ring(
    workspace: &Workspace,
    targets: &[&str],
    further: &[String],
    options: &[String],
) -> Result<()> {
    let mut cargo = workspace.cargo("test");
    workspace.select(&mut cargo).args(targets).args(options).arg("--no-fail-fast");
    environment(workspace, &mut cargo);
    cargo.arg("--").args(further);
    shell::run(&mut cargo)
}

/// What tests that start the driver's own binary have to know.
fn environment(workspace: &Workspace, command: &mut Command) {
    command.env("WEIR_BINARY", workspace.program("weir"));
    command.env("WEIR_EXAMPLES", workspace.examples());
}

/// Cargo's setting that makes it start test programs through `cargo xtask enter`, in namespaces of
/// their own: whatever a test leaves behind goes with them, whichever way it ends.
fn runner(rustc: &Rustc, xtask: &Path) -> Result<String> {
    let xtask = xtask.to_str().context("the path of this program is not UTF-8")?;
    let unshare = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork"];
    let words = unshare.into_iter().chain(["--kill-child", "--mount-proc", xtask, "enter", "--"]);
    let words: Vec<_> = words.map(|word| format!("'{word}'")).collect();
    Ok(format!("target.{}.runner=[{}]", rustc.host, words.join(",")))
}
