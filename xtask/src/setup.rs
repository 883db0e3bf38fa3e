//! `cargo xtask setup`: what the build needs beside Rust. Where nothing is missing it only looks.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::rustc::Rustc;
use crate::workspace::Workspace;
use crate::{linker, rust_src, shell};

/// Something that has to be on the machine, and the package of Debian and Ubuntu that brings it.
struct Need {
    evidence: Evidence,
    package: &'static str,
}

enum Evidence {
    /// A program in the search path.
    Program(&'static str),
    /// A header in the compiler's usual folders.
    Header(&'static str),
}

/// libbpf is compiled from source with its crate: a compiler, make and pkg-config for that, and the
/// two libraries that it stands on.
const NEEDS: [Need; 7] = [
    Need { evidence: Evidence::Program("cc"), package: "gcc" },
    Need { evidence: Evidence::Program("make"), package: "make" },
    Need { evidence: Evidence::Program("pkg-config"), package: "pkg-config" },
    Need { evidence: Evidence::Header("libelf.h"), package: "libelf-dev" },
    Need { evidence: Evidence::Header("zlib.h"), package: "zlib1g-dev" },
    // The kernel ring makes with it what the driver itself never makes: bridges, rules.
    Need { evidence: Evidence::Program("ip"), package: "iproute2" },
    // The DHCP server of the kernel ring.
    Need { evidence: Evidence::Program("dnsmasq"), package: "dnsmasq-base" },
];

/// What the benchmark compares with, and how; it does without what cannot be had. Beside the program
/// that is looked for, xdp-tools brings the objects that it loads.
const PEERS: [Need; 3] = [
    Need { evidence: Evidence::Program("clang"), package: "clang" },
    Need { evidence: Evidence::Program("xdp-filter"), package: "xdp-tools" },
    Need { evidence: Evidence::Program("iperf3"), package: "iperf3" },
];

/// Everything: packages, and the tools for the eBPF object.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    packages()?;
    let rustc = Rustc::ask(&workspace.root)?;
    linker::ensure(workspace, &rustc)?;
    rust_src::ensure(workspace, &rustc)?;
    Ok(())
}

/// Installs the packages that are missing.
pub(crate) fn packages() -> Result<()> {
    install(&NEEDS)
}

/// Installs what the benchmark can do without.
pub(crate) fn peers() -> Result<()> {
    install(&PEERS)
}

fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> =
        needs.iter().filter(|need| !need.evidence.is_there()).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    ensure!(
        shell::which("apt-get").is_some(),
        "missing on this machine, as Debian calls them: {names}; there is no apt-get to install them"
    );
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "packages are missing; install them with\n\n    \
             sudo apt-get update && sudo apt-get install --yes {names}\n"
        );
    }
    shell::say(&format!("installing packages: {names}"));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // A machine that has just booted may be busy with updates of its own.
        command.args(["--quiet", "--yes", "-o", "DPkg::Lock::Timeout=120"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    };
    if let Err(error) = shell::run_quietly(&mut apt(&["update"])) {
        // A source that has nothing to do with us may be out of order; the install decides.
        shell::say(&format!("package lists are not all fresh: {error:#}"));
    }
    let mut install = vec!["install", "--no-install-recommends"];
    install.extend(&missing);
    shell::run_quietly(&mut apt(&install))
}

impl Evidence {
    fn is_there(&self) -> bool {
        match self {
            Self::Program(name) => shell::which(name).is_some(),
            Self::Header(name) => ["/usr/include", "/usr/local/include"]
                .iter()
                .any(|folder| Path::new(folder).join(name).exists()),
        }
    }
}
