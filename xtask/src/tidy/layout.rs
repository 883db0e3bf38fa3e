//! `common` changes layout only together with `LAYOUT_VERSION`.
//!
//! Pinned maps outlive the driver that made them, so a newer one has to see at once that it does not
//! share their layout. The layout is what `#[repr(…)]` items say, the macro calls that make such
//! items, and the constants that they name; a fingerprint of that text is recorded beside the
//! version.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::Finding;
use super::source::{Source, words};
use crate::shell;
use crate::workspace::write_if_different;

pub(super) const RECORD: &str = "common/layout.txt";

/// The version and the fingerprint of a layout, as they are written down.
#[derive(Debug, Eq, PartialEq)]
struct Layout {
    version: String,
    fingerprint: String,
}

/// Compares the layout with the record. Without any layout there is nothing to compare.
pub(super) fn check(record: &Path, sources: &[Source]) -> Result<Vec<Finding>> {
    let finding = |what: &str| Finding { file: RECORD.into(), line: 0, what: what.to_owned() };
    let Some(current) = Layout::of(sources) else { return Ok(Vec::new()) };
    let Some(recorded) = Layout::read(record)? else {
        return Ok(vec![finding("the layout is not recorded yet: run `cargo xtask tidy --bless`")]);
    };
    let what = match (
        current.version == recorded.version,
        current.fingerprint == recorded.fingerprint,
    ) {
        (true, true) => return Ok(Vec::new()),
        (true, false) => {
            "the layout of `common` changed: raise LAYOUT_VERSION and run `cargo xtask tidy --bless`"
        }
        (false, _) => "LAYOUT_VERSION changed: run `cargo xtask tidy --bless`",
    };
    Ok(vec![finding(what)])
}

/// Records the layout as it is.
pub(super) fn bless(record: &Path, sources: &[Source]) -> Result<()> {
    let Some(current) = Layout::of(sources) else { bail!("`common` has no layout to record") };
    if let Some(recorded) = Layout::read(record)?
        && recorded.version == current.version
        && recorded.fingerprint != current.fingerprint
    {
        bail!("the layout of `common` changed, LAYOUT_VERSION did not: raise it first");
    }
    let Layout { version, fingerprint } = current;
    let text = format!("version {version}\nfingerprint {fingerprint}\n");
    if write_if_different(record, text.as_bytes())? {
        shell::say(&format!("recorded layout version {version}"));
    }
    Ok(())
}

impl Layout {
    fn of(sources: &[Source]) -> Option<Self> {
        let common = || sources.iter().filter(|source| source.is_under("common/src"));
        let mut constants = BTreeMap::new();
        let mut text = String::new();
        for source in common() {
            let code = source.code_without_tests();
            constants.extend(constants_of(code));
            for item in items(code) {
                let _ = writeln!(text, "{item}");
            }
        }
        if text.is_empty() {
            return None;
        }
        let version = constants.get("LAYOUT_VERSION").cloned().unwrap_or_default();
        // A constant that a constant names counts too: as often as it takes for no more to come.
        loop {
            let named = |name: &&String| words(&text, name).next().is_some();
            let Some(name) = constants.keys().find(named).cloned() else { break };
            let value = constants.remove(&name).unwrap_or_default();
            let _ = writeln!(text, "{name} = {value}");
        }
        Some(Self { version, fingerprint: format!("{:016x}", hash(&text)) })
    }

    fn read(record: &Path) -> Result<Option<Self>> {
        if !record.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(record).with_context(|| format!("read {RECORD}"))?;
        let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        let fields = value("version ").zip(value("fingerprint "));
        let (version, fingerprint) = fields.with_context(|| format!("{RECORD} is incomplete"))?;
        Ok(Some(Self { version, fingerprint }))
    }
}

/// The items with a `repr` and the macro calls that make items, each in one line.
fn items(code: &str) -> Vec<String> {
    let reprs = code.match_indices("#[repr(").map(|(at, _)| at);
    let calls = code.match_indices("! {").map(|(at, _)| line_start(code, at));
    let calls = calls.filter(|&at| {
        code[at..].starts_with(|c: char| c.is_alphabetic())
            && !code[at..].starts_with("macro_rules!")
    });
    let mut starts: Vec<_> = reprs.chain(calls).collect();
    starts.sort_unstable();
    starts.into_iter().map(|at| in_one_line(&without_attributes(item(&code[at..])))).collect()
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |line_break| line_break + 1)
}

/// From the start of `text` to the brace that closes the item there, or to its semicolon.
fn item(text: &str) -> &str {
    let mut depth = 0_usize;
    let end = text.char_indices().find_map(|(end, c)| {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0 && matches!(c, '}' | ';')).then_some(end + 1)
    });
    &text[..end.unwrap_or(text.len())]
}

/// Leaves out attributes, of which only `repr` says something about layout.
fn without_attributes(item: &str) -> String {
    let mut kept = String::new();
    let mut rest = item;
    while let Some(at) = rest.find("#[") {
        kept.push_str(&rest[..at]);
        let len = rest[at..].find(']').map_or(rest.len() - at, |end| end + 1);
        if rest[at..].starts_with("#[repr(") {
            kept.push_str(&rest[at..at + len]);
        }
        rest = &rest[at + len..];
    }
    kept + rest
}

/// The values of constants by their names.
fn constants_of(code: &str) -> BTreeMap<String, String> {
    words(code, "const")
        .filter_map(|at| {
            let rest = code[at + "const".len()..].trim_start();
            let (name, rest) = rest.split_once(':')?;
            let is_name = !name.is_empty()
                && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
            let (_, value) = rest.split_once('=').filter(|_| is_name)?;
            let (value, _) = value.split_once(';')?;
            Some((name.to_owned(), in_one_line(value)))
        })
        .collect()
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// FNV-1a with 64 bits: the same on every machine and in every version of Rust.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = "pub const LAYOUT_VERSION: u32 = 3;\npub const SIZE: usize = 2 * HALF;\n\
        const HALF: usize = 4;\nconst OTHER: u8 = 1;\n/// Words.\n#[derive(Clone)]\n#[repr(C)]\n\
        pub struct Counters {\n    pub packets: [u64; SIZE],\n}\nfn f() {}\n";

    fn layout(text: &str) -> Option<Layout> {
        Layout::of(&[Source::new(Path::new("common/src/lib.rs"), text.to_owned())])
    }

    fn fingerprint(text: &str) -> String {
        layout(text).expect("there is a layout").fingerprint
    }

    #[test]
    fn a_field_that_changes_changes_the_fingerprint() {
        assert_ne!(fingerprint(COMMON), fingerprint(&COMMON.replace("u64", "u32")));
        assert_ne!(fingerprint(COMMON), fingerprint(&COMMON.replace("packets", "bytes")));
    }

    #[test]
    fn a_constant_behind_an_array_length_counts() {
        assert_ne!(fingerprint(COMMON), fingerprint(&COMMON.replace("= 4", "= 5")));
        assert_eq!(fingerprint(COMMON), fingerprint(&COMMON.replace("= 1", "= 2")));
    }

    #[test]
    fn what_a_macro_makes_counts() {
        let with = |names| format!("{COMMON}words! {{\n    Verdict {{ {names} }}\n}}\n");
        assert_ne!(fingerprint(&with("Allowed, Denied")), fingerprint(&with("Denied, Allowed")));
    }

    #[test]
    fn documentation_derives_and_functions_do_not_count() {
        let other = COMMON.replace("Words", "Other words").replace("fn f() {}", "fn g() { h() }");
        let other = other.replace("#[repr(C)]", "#[repr(C)]\n#[derive(Copy)]");
        assert_eq!(fingerprint(COMMON), fingerprint(&other));
    }

    #[test]
    fn the_version_is_read() {
        assert_eq!(layout(COMMON).expect("there is a layout").version, "3");
        assert_eq!(layout("fn f() {}"), None);
    }
}
