//! Reads the machine's apt sources, and uses apt with lists of our own.
//!
//! No archive is named here: the one that the machine is set up with is asked for suites that the
//! machine may not have enabled. Its own lists and packages are left as they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

/// Debian's suites that carry recent Rust packages. To be looked at whenever the toolchain moves.
const DEBIAN_SUITES: [&str; 3] = ["trixie", "trixie-backports", "sid"];

/// One place that packages come from, as one stanza or line of the machine's configuration says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Source {
    pub(crate) uri: String,
    pub(crate) suites: Vec<String>,
    pub(crate) components: Vec<String>,
    /// A keyring's path or an embedded key, as it is written; none where apt's own keys are meant.
    pub(crate) signed_by: Option<String>,
}

/// The distribution's archive, with the suites that we want from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Archive {
    pub(crate) uri: String,
    pub(crate) suites: Vec<String>,
    signed_by: Option<String>,
}

impl Archive {
    pub(crate) fn of_this_machine() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        let sources = read_sources(Path::new("/etc/apt"))?;
        Self::choose(&sources, &release)
            .context("no source under /etc/apt is the archive of Debian or Ubuntu")
    }

    /// The distribution's own archive among `sources`, which may hold many others.
    ///
    /// Other archives also end in `/debian`. What tells the real one is its component `main`, and
    /// that its updates suite is configured beside the release.
    fn choose(sources: &[Source], os_release: &str) -> Option<Self> {
        let value = |key| os_release.lines().find_map(|line| line.strip_prefix(key));
        let words = [value("ID="), value("ID_LIKE=")].into_iter().flatten().collect::<String>();
        let name = if words.contains("ubuntu") { "ubuntu" } else { "debian" };
        let candidates =
            sources.iter().filter(|s| is_named(&s.uri, name) && has(&s.components, "main"));
        let has_updates = |candidate: &&Source| {
            let same = sources.iter().filter(|source| source.uri == candidate.uri);
            same.flat_map(|source| &source.suites).any(|suite| suite.ends_with("-updates"))
        };
        let source = candidates.clone().find(has_updates).or_else(|| candidates.clone().next())?;
        let suites = if name == "debian" {
            DEBIAN_SUITES.map(str::to_owned).to_vec()
        } else {
            // Newer toolchains come as updates of the release, or with the release in the making.
            [source.suites.clone(), vec!["devel".to_owned()]].concat()
        };
        Some(Self { uri: source.uri.clone(), suites, signed_by: source.signed_by.clone() })
    }

    /// Packages that may hold the standard library's source for Rust `version`: Debian's, and the
    /// one with the version in its name that Ubuntu has beside it.
    #[expect(clippy::unused_self, reason = "what packages are called is the archive's business")]
    pub(crate) fn source_packages(&self, version: &str) -> Vec<String> {
        let minor = version.rsplit_once('.').map_or(version, |(minor, _patch)| minor);
        vec!["rust-src".to_owned(), format!("rust-{minor}-src")]
    }

    fn stanza(&self) -> String {
        let signed_by = self.signed_by.as_ref();
        let signed_by = signed_by.map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
        format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main universe\n{signed_by}",
            self.uri,
            self.suites.join(" ")
        )
    }
}

/// The last part of an archive's path says whose it is. Mirror lists carry the name with a suffix.
fn is_named(uri: &str, name: &str) -> bool {
    let path = uri.trim_end_matches('/');
    let path = path.strip_suffix(".list").unwrap_or(path);
    path.rsplit('/').next() == Some(name)
}

fn has(words: &[String], word: &str) -> bool {
    words.iter().any(|other| other == word)
}

/// All sources that apt is set up with, in both of its formats.
fn read_sources(folder: &Path) -> Result<Vec<Source>> {
    let parts = folder.join("sources.list.d");
    let mut files = vec![folder.join("sources.list")];
    if parts.is_dir() {
        for entry in fs::read_dir(&parts).with_context(|| format!("read {}", parts.display()))? {
            files.push(entry.with_context(|| format!("read {}", parts.display()))?.path());
        }
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.exists()) {
        let read = || fs::read_to_string(file).with_context(|| format!("read {}", file.display()));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => sources.extend(parse_stanzas(&read()?)),
            Some("list") => sources.extend(parse_lines(&read()?)),
            _ => {}
        }
    }
    Ok(sources)
}

/// Parses the format of `*.sources` files: stanzas of fields that may go on in indented lines.
fn parse_stanzas(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let field = |name: &str| {
            fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        let words = |name| {
            field(name).into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect()
        };
        let types: Vec<String> = words("types");
        if !has(&types, "deb") || field("enabled").is_some_and(|value| value == "no") {
            continue;
        }
        for uri in words("uris") as Vec<String> {
            sources.push(Source {
                uri,
                suites: words("suites"),
                components: words("components"),
                signed_by: field("signed-by").map(str::to_owned),
            });
        }
    }
    sources
}

/// Parses the format of `*.list` files: `deb [options] URI suite component…`.
fn parse_lines(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned),
    })
}

/// The first version of Rust `release` in the output of `apt-cache madison`.
pub(crate) fn version_of(listing: &str, release: &str) -> Option<String> {
    listing.lines().find_map(|line| {
        let version = line.split('|').nth(1)?.trim();
        let rest = version.strip_prefix(release)?;
        rest.starts_with(['+', '-', '~']).then(|| version.to_owned())
    })
}

/// A state directory for apt that knows one archive and no installed package.
pub(crate) struct State {
    folder: PathBuf,
}

impl State {
    pub(crate) fn make(folder: &Path, archive: &Archive) -> Result<Self> {
        for part in ["sources", "state/lists/partial", "cache/archives/partial", "download"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        }
        let state = Self { folder: folder.to_owned() };
        for (file, content) in
            [("sources/archive.sources", archive.stanza()), ("state/status", String::new())]
        {
            let file = folder.join(file);
            fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(state)
    }

    /// One of apt's programs, set to work on this state only.
    pub(crate) fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, part) in [
            ("Dir::Etc::sourcelist", "sources/none"),
            ("Dir::Etc::sourceparts", "sources"),
            ("Dir::State", "state"),
            ("Dir::State::status", "state/status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{name}={}", self.folder.join(part).display()));
        }
        // Translations are of no use here. As root, apt would become another user, who may not be
        // able to read a folder in root's home.
        command.args(["-q", "-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root"]);
        command.current_dir(self.folder.join("download")).env("LC_ALL", "C");
        command
    }

    /// The package that `apt-get download` has put here.
    pub(crate) fn downloaded(&self) -> Result<PathBuf> {
        let folder = self.folder.join("download");
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                return Ok(path);
            }
        }
        bail!("apt-get left no package in {} ({})", folder.display(), env::consts::ARCH)
    }
}
