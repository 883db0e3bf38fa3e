//! Reads the machine's apt sources, and uses apt with lists of our own.
//!
//! No archive is named here: the one that the machine is set up with is asked for suites that the
//! machine may not have enabled. Its own lists and packages are left as they are.

mod state;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

pub(crate) use self::state::{State, unpack};

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
    components: &'static str,
    signed_by: Option<String>,
}

impl Archive {
    pub(crate) fn of_this_machine() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        let sources = read_sources(Path::new("/etc/apt"))?;
        Self::choose(&sources, &release)
            .context("no source under /etc/apt is the archive of Debian or Ubuntu")
    }

    /// Debian's archive, asked for `suites`, some of which are of other releases than the machine's.
    pub(crate) fn of_debian(suites: &[&str]) -> Result<Self> {
        let sources = read_sources(Path::new("/etc/apt"))?;
        let source = find(&sources, "debian")
            .context("no source under /etc/apt is the archive of Debian itself")?;
        Ok(Self {
            uri: source.uri.clone(),
            suites: suites.iter().map(|&suite| suite.to_owned()).collect(),
            components: "main",
            signed_by: source.signed_by.clone(),
        })
    }

    /// The distribution's own archive among `sources`, which may hold many others.
    fn choose(sources: &[Source], os_release: &str) -> Option<Self> {
        let value = |key| os_release.lines().find_map(|line| line.strip_prefix(key));
        let words = [value("ID="), value("ID_LIKE=")].into_iter().flatten().collect::<String>();
        let name = if words.contains("ubuntu") { "ubuntu" } else { "debian" };
        let source = find(sources, name)?;
        let (suites, components) = if name == "debian" {
            (DEBIAN_SUITES.map(str::to_owned).to_vec(), "main")
        } else {
            // Newer toolchains come as updates of the release, or with the release in the making.
            let same = sources.iter().filter(|other| other.uri == source.uri);
            let configured = same.flat_map(|other| &other.suites).cloned();
            (configured.chain(["devel".to_owned()]).collect(), "main universe")
        };
        let (uri, signed_by) = (source.uri.clone(), source.signed_by.clone());
        Some(Self { uri, suites, components, signed_by })
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
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n{signed_by}",
            self.uri,
            self.suites.join(" "),
            self.components
        )
    }
}

/// The archive of the distribution `name`.
///
/// Other archives also end in `/debian`. What tells the real one is its component `main`, and that
/// its updates suite is configured beside the release.
fn find<'s>(sources: &'s [Source], name: &str) -> Option<&'s Source> {
    let mut candidates =
        sources.iter().filter(|s| is_named(&s.uri, name) && has(&s.components, "main"));
    let has_updates = |candidate: &&Source| {
        let same = sources.iter().filter(|source| source.uri == candidate.uri);
        same.flat_map(|source| &source.suites).any(|suite| suite.ends_with("-updates"))
    };
    candidates.clone().find(has_updates).or_else(|| candidates.next())
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

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main contrib\n\
        Signed-By: /usr/share/keyrings/archive.gpg\n\n\
        Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n\
        Components: main\n\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm-updates\n\
        Components: main\nEnabled: no\n";
    const ID_DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n";

    #[test]
    fn stanzas_are_read_and_those_switched_off_are_not() {
        let sources = parse_stanzas(DEBIAN);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/usr/share/keyrings/archive.gpg"));
        assert_eq!(sources[1].uri, "http://mirror.example/debian-security");
    }

    #[test]
    fn an_embedded_key_keeps_its_lines() {
        let key = "Signed-By:\n -----BEGIN KEY-----\n .\n AAAA\n";
        let sources =
            parse_stanzas(&format!("Types: deb\nURIs: http://a/debian\nSuites: x\n{key}"));
        let archive = Archive {
            uri: String::new(),
            suites: vec!["sid".to_owned()],
            components: "main",
            signed_by: sources[0].signed_by.clone(),
        };
        assert!(archive.stanza().contains("\n -----BEGIN KEY-----\n .\n AAAA\n"), "{archive:?}");
    }

    #[test]
    fn lines_are_read_with_their_options() {
        let sources = parse_lines(
            "# deb http://no.example/debian x main\n\
             deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian trixie main non-free # why\n\
             deb-src http://a.example/debian trixie main\n",
        );
        let expected = Source {
            uri: "http://a.example/debian".to_owned(),
            suites: vec!["trixie".to_owned()],
            components: vec!["main".to_owned(), "non-free".to_owned()],
            signed_by: Some("/k.gpg".to_owned()),
        };
        assert_eq!(sources, [expected]);
    }

    #[test]
    fn the_distributions_archive_is_told_from_others() {
        let mut sources = parse_lines(
            "deb http://tools.example/linux/debian bookworm stable\n\
             deb http://packages.example/apt cloud main\n\
             deb http://also.example/some/debian bookworm main\n",
        );
        assert_eq!(Archive::choose(&sources[..2], ID_DEBIAN), None);
        sources.extend(parse_stanzas(DEBIAN));
        let archive = Archive::choose(&sources, ID_DEBIAN).expect("there is one");
        assert_eq!(archive.uri, "http://mirror.example/debian");
        assert_eq!(archive.suites, DEBIAN_SUITES);
    }

    #[test]
    fn ubuntu_is_asked_for_its_own_suites() {
        let sources = parse_lines(
            "deb http://archive.example/ubuntu/ noble main universe\n\
             deb http://archive.example/ubuntu/ noble-updates main universe\n",
        );
        let archive =
            Archive::choose(&sources, "ID=ubuntu\nID_LIKE=debian\n").expect("there is one");
        assert_eq!(archive.suites, ["noble", "noble-updates", "devel"]);
        assert_eq!(archive.source_packages("1.95.0"), ["rust-src", "rust-1.95-src"]);
    }

    #[test]
    fn a_mirror_list_is_known_by_its_name() {
        assert!(is_named("mirror+file:/etc/apt/mirrors/debian.list", "debian"));
        assert!(!is_named("http://a.example/debian-security", "debian"));
    }

    #[test]
    fn the_version_that_is_asked_for_is_picked() {
        let listing = " rust-src | 1.97.1+dfsg1-1 | http://a.example/debian sid/main amd64 Packages\n\
            rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://a.example/debian b/main amd64 Packages\n\
            rust-src | 1.95.01-1 | http://a.example/debian c/main amd64 Packages\n";
        assert_eq!(version_of(listing, "1.95.0").as_deref(), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(version_of(listing, "1.96.0"), None);
    }
}
