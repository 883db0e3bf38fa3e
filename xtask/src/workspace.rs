//! Where things are: the source, what cargo builds, and what outlives both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, path};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Variables that `cargo run` sets for us as if we were the package to build. A nested cargo that
/// inherits them may think that something changed and build it again.
const OF_THE_OUTER_CARGO: [&str; 4] =
    ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];

/// The folders that commands work in.
pub(crate) struct Workspace {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, as an absolute path.
    pub(crate) target: PathBuf,
    /// Tools that we build or fetch; shared by all checkouts of one user.
    pub(crate) cache: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("the package xtask has no parent folder")?.to_owned();
        Ok(Self { root, target: target()?, cache: cache()? })
    }

    /// A nested cargo for the packages of this machine.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = self.bare_cargo();
        command.arg(subcommand);
        if env::var_os("CARGO_TARGET_DIR").is_some() {
            // It may be relative, and the nested cargo starts in another folder.
            command.env("CARGO_TARGET_DIR", &self.target);
        }
        command
    }

    /// Adds the one selection of packages and features that every build of this workspace uses.
    ///
    /// Cargo unites the features of whatever is selected, so two selections would compile the same
    /// dependencies twice. Narrow by target (`--lib`, `--test node`), never by package.
    #[expect(clippy::unused_self, reason = "the selection belongs to the workspace")]
    pub(crate) fn select<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.args(["--workspace", "--exclude", "ebpf", "--features", "driver/libbpf"])
    }

    /// Builds all programs, with the features that tests see.
    ///
    /// There are no examples. Asking for them makes cargo unite the features of what only tests
    /// depend on too, as it does for tests.
    pub(crate) fn build_programs(&self) -> Result<()> {
        let mut build = self.cargo("build");
        self.select(&mut build).args(["--bins", "--examples"]);
        shell::run(&mut build)
    }

    /// Where [`Self::build_programs`] puts the program `name`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// The manifests that the demo applies.
    pub(crate) fn examples(&self) -> PathBuf {
        self.root.join("deploy").join("examples")
    }

    /// A nested cargo that takes nothing over from the outer one but where its home is, how it
    /// reaches the network, and what its output looks like.
    pub(crate) fn isolated_cargo(&self, subcommand: &str) -> Command {
        const KEPT: [&str; 6] = [
            "CARGO_HOME",
            "CARGO_HTTP_",
            "CARGO_NET_",
            "CARGO_REGISTR",
            "CARGO_TERM_",
            "CARGO_BUILD_JOBS",
        ];
        let mut command = self.bare_cargo();
        command.arg(subcommand);
        for (name, _) in env::vars_os() {
            let Some(text) = name.to_str() else { continue };
            let is_cargos = text.starts_with("CARGO_")
                || matches!(text, "RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER");
            if is_cargos && !KEPT.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(text);
            }
        }
        command
    }

    fn bare_cargo(&self) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            let Some(text) = name.to_str() else { continue };
            if text.starts_with("CARGO_PKG_")
                || text.starts_with("CARGO_MANIFEST_")
                || OF_THE_OUTER_CARGO.contains(&text)
            {
                command.env_remove(text);
            }
        }
        command
    }
}

/// The target directory that this very program was built in, so that whatever chose it (a variable,
/// a configuration file) need not be understood here.
fn target() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("CARGO_TARGET_DIR") {
        return path::absolute(&folder).context("the target directory has no absolute path");
    }
    // TARGET/PROFILE/xtask
    let program = env::current_exe().context("find this program's own file")?;
    let target = program.ancestors().nth(2).context("this program is not in a target directory")?;
    Ok(target.to_owned())
}

fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    if let Some(folder) = set("XDG_CACHE_HOME") {
        return Ok(folder.join("weir"));
    }
    match set("HOME") {
        Some(home) => Ok(home.join(".cache").join("weir")),
        None => bail!("neither XDG_CACHE_HOME nor HOME names a folder to keep tools in"),
    }
}

/// Writes `content` to `file` unless that is what it holds already, so that builds which watch the
/// file do not run for nothing. Answers whether it wrote.
pub(crate) fn write_if_different(file: &Path, content: &[u8]) -> Result<bool> {
    if std::fs::read(file).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    std::fs::write(file, content).with_context(|| format!("write {}", file.display()))?;
    Ok(true)
}
