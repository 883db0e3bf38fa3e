//! `cargo xtask tidy`: the rules of the house that neither compiler nor clippy can hold.
//!
//! They work on source text, so they are quick and a little blunt. Each finding says what to do.

mod layout;
mod paths;
mod purity;
mod shape;
mod source;
mod words;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use self::source::Source;
use crate::shell;
use crate::workspace::Workspace;

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Record the layout of `common` as it is, after `LAYOUT_VERSION` was raised.
    #[arg(long)]
    bless: bool,
}

/// A place where a rule is broken.
#[derive(Debug, Eq, PartialEq)]
struct Finding {
    file: PathBuf,
    /// Counted from 1; 0 where the whole file is meant.
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what } = self;
        match line {
            0 => write!(f, "{}: {what}", file.display()),
            line => write!(f, "{}:{line}: {what}", file.display()),
        }
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let mut sources = Vec::new();
    for member in ["common", "driver", "ebpf", "tests", "xtask"] {
        read_folder(&workspace.root, &workspace.root.join(member), &mut sources)?;
    }
    let record = workspace.root.join(layout::RECORD);
    if arguments.bless {
        return layout::bless(&record, &sources);
    }
    let mut findings = Vec::new();
    for source in &sources {
        findings.extend(purity::check(source));
        findings.extend(words::check(source));
        findings.extend(shape::check(source));
    }
    findings.extend(layout::check(&record, &sources)?);
    if findings.is_empty() {
        shell::say(&format!("tidy: {} files are in order", sources.len()));
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    bail!("tidy: {} findings", findings.len())
}

/// Reads the Rust files under `folder`, in order.
fn read_folder(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("read {}", folder.display()))?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_folder(root, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            sources.push(Source::new(path.strip_prefix(root)?, text));
        }
    }
    Ok(())
}
