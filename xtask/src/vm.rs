//! The vm ring: tests of the kernel ring again, inside guests that run kernels of Debian.
//!
//! Cargo starts the test program through `cargo xtask guests`, as it starts it through `cargo xtask
//! enter` for the kernel ring. A guest is emulated, sees the machine's own files, and runs the program
//! as the kernel ring would: same path, same environment, namespaces of its own. One guest at a time.

mod bench;
mod guest;
mod hardware;
mod initramfs;
mod kernel;
mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs, io};

use anyhow::{Context as _, Result, bail, ensure};

use self::bench::Bench;
use self::guest::{Ending, Guest};
use self::kernel::Kernel;
use self::report::Outcome;
use crate::workspace::Workspace;
use crate::{runtime, shell};

pub(crate) use self::kernel::SERIES;
pub(crate) use self::report::listed;

/// How much of a text is shown where the whole would be too much. A verifier's log is long, and what it
/// refuses stands at its end.
const TAIL_LINES: usize = 60;

/// Modules whose tests not every kernel can run: what they need, and the release that brought it. Debian
/// brings none of it to older ones.
const NEEDS: [(&str, &str, [u32; 2]); 4] = [
    // Which drivers run XDP is told by the netlink family `netdev`, and not known before.
    ("::needs_xdp_features::", "the list of what drivers can do with XDP", [6, 3]),
    ("::needs_tcx::", "TCX", [6, 6]),
    ("::needs_netkit::", "netkit", [6, 7]),
    // Debian's 6.18 has it not, and 7.3 has.
    ("::needs_rxe_in_pods::", "rxe in other namespaces", [7, 0]),
];

/// Set where golden files are to be made of what guests saw.
const WRITES: &str = "WEIR_GOLDEN";
const GOLDEN: &str = "tests/fixtures/hardware";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which kernels to boot.
    #[arg(long = "kernel", value_parser = SERIES)]
    kernels: Vec<String>,
    /// What to run in each guest.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Fetches what the ring needs and has not got: a test that cannot run should say so before anything
/// is built.
pub(crate) fn prepare(workspace: &Workspace, kernels: &[String]) -> Result<()> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "the vm ring boots kernels for x86_64 and runs this machine's programs on them, but this \
         machine is {}",
        env::consts::ARCH
    );
    containerd(workspace)?;
    Bench::ensure(workspace, kernels).map(drop)
}

/// The runtime for tests that need one. Of those that the runtime ring has, one is enough here.
fn containerd(workspace: &Workspace) -> Result<PathBuf> {
    let [first, ..] = &runtime::RELEASES;
    first.ensure(workspace)
}

/// Runs the command in one guest after the other, and prints a line for each.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let bench = Bench::ensure(workspace, &arguments.kernels)?;
    let containerd = containerd(workspace)?;
    let mut bad = Vec::new();
    for series in &arguments.kernels {
        let kernel = bench.kernel(series)?;
        shell::say(&format!("booting Linux {}", kernel.release));
        let share = workspace.target.join("vm").join(series);
        let guest = Guest {
            bench: &bench,
            kernel: &kernel,
            series,
            containerd: &containerd,
            share: &share,
        };
        let command = command(&kernel, &arguments.command)?;
        let start = Instant::now();
        let ending = guest.run(&workspace.program("xtask"), &command)?;
        let seconds = start.elapsed().as_secs();
        let output = read_lossy(&guest.output())?;
        let outcome = Outcome::parse(&output);
        let verdict = judge(ending, outcome.as_ref());
        if env::var_os(WRITES).is_some() {
            bless(workspace, series, &share)?;
        }
        for line in report::told(&output) {
            shell::say(line);
        }
        let line = format!("{}: {}, {seconds} s", kernel.release, summary(outcome.as_ref()));
        match verdict {
            Ok(()) => shell::say(&line),
            Err(error) => {
                shell::say(&format!("{line}: {error}"));
                explain(&guest, &output, outcome.as_ref())?;
                bad.push(kernel.release.clone());
            }
        }
    }
    ensure!(bad.is_empty(), "the vm ring failed on {}", bad.join(", "));
    Ok(())
}

/// Makes what the guest's hardware was published with the golden file of its kernel.
fn bless(workspace: &Workspace, series: &str, share: &Path) -> Result<()> {
    let (seen, folder) = (share.join("attributes.json"), workspace.root.join(GOLDEN));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let file = folder.join(format!("{series}.json"));
    fs::copy(&seen, &file).with_context(|| format!("copy {}", seen.display()))?;
    shell::say(&format!("wrote {}", file.display()));
    Ok(())
}

/// What to run on this kernel. What is left out is said, by name.
fn command(kernel: &Kernel, command: &[OsString]) -> Result<Vec<OsString>> {
    let mut command = command.to_vec();
    for (module, what, since) in NEEDS.iter().filter(|(_, _, since)| !kernel.is_from(*since)) {
        let (program, words) = command.split_first().context("there is no command")?;
        let listing =
            shell::read(Command::new(program).args(words).args(["--list", "--format", "terse"]))?;
        for name in report::listed(&listing, module) {
            let [major, minor] = since;
            shell::say(&format!("left out, because {what} came with {major}.{minor}: {name}"));
        }
        command.extend(["--skip", *module].map(OsString::from));
    }
    Ok(command)
}

fn summary(outcome: Option<&Outcome>) -> String {
    match outcome {
        Some(Outcome { passed, failed }) => format!("{passed} passed, {} failed", failed.len()),
        None => "no result".to_owned(),
    }
}

/// The guest's exit status decides; what the tests wrote has to agree.
fn judge(ending: Ending, outcome: Option<&Outcome>) -> Result<()> {
    match ending {
        Ending::TimedOut => bail!("not done after {} s", guest::LIMIT.as_secs()),
        Ending::Stuck => bail!("the guest did not come up, booted {} times", guest::BOOTS),
        Ending::Died => bail!("the guest ended before its tests did"),
        Ending::Exited(status) => {
            let outcome = outcome.with_context(|| format!("the tests ended with {status}"))?;
            ensure!(outcome.passed + outcome.failed.len() > 0, "no test has such a name");
            ensure!(status == 0 && outcome.failed.is_empty(), "tests failed");
            Ok(())
        }
    }
}

/// Says what there is to say about a failure: of each failed test its last words, and those of the
/// guest itself where it did not get to the end.
fn explain(guest: &Guest<'_>, output: &str, outcome: Option<&Outcome>) -> Result<()> {
    let failed = outcome.map(|outcome| outcome.failed.as_slice()).unwrap_or_default();
    for name in failed {
        eprintln!("---- {name}\n{}", report::tail(report::words_of(output, name), TAIL_LINES));
    }
    if outcome.is_none() {
        eprintln!("---- tests\n{}", report::tail(output, TAIL_LINES));
        let console = read_lossy(&guest.console())?;
        eprintln!("---- console\n{}", report::tail(&console, TAIL_LINES));
        if let Some(line) = report::panic(&console) {
            eprintln!("{line}");
        }
    }
    for name in failed {
        eprintln!("failed: {name}");
    }
    shell::say(&format!("all of it: {}", guest.share.display()));
    Ok(())
}

/// A console shows whatever comes; a file that was never written is empty.
fn read_lossy(file: &Path) -> Result<String> {
    match fs::read(file) {
        Ok(content) => Ok(String::from_utf8_lossy(&content).replace('\r', "")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(passed: usize, failed: &[&str]) -> Outcome {
        Outcome { passed, failed: failed.iter().map(|&name| name.to_owned()).collect() }
    }

    #[test]
    fn only_a_guest_whose_tests_ran_and_passed_is_good() {
        assert!(judge(Ending::Exited(0), Some(&outcome(3, &[]))).is_ok());
        for (ending, outcome) in [
            (Ending::Exited(101), Some(outcome(2, &["a"]))),
            (Ending::Exited(1), Some(outcome(3, &[]))),
            (Ending::Exited(0), Some(outcome(0, &[]))),
            (Ending::Exited(0), None),
            (Ending::TimedOut, Some(outcome(3, &[]))),
            (Ending::Died, Some(outcome(3, &[]))),
            (Ending::Stuck, None),
        ] {
            assert!(judge(ending, outcome.as_ref()).is_err(), "{ending:?} {outcome:?}");
        }
    }
}
