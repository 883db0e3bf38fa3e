//! A Rust file, as the rules look at it: with and without its comments and strings.

use std::path::{Path, PathBuf};

use super::Finding;

/// A source file. The views have every byte of what they leave out replaced by a space, line breaks
/// kept, so that a position means the same in all of them.
pub(super) struct Source {
    /// Relative to the repository, with `/` between its parts.
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Without comments.
    pub(super) uncommented: String,
    /// Without comments and without what strings hold.
    pub(super) code: String,
}

impl Source {
    pub(super) fn new(path: &Path, text: String) -> Self {
        let mut uncommented = text.clone().into_bytes();
        let mut code = uncommented.clone();
        for (what, from, to) in regions(text.as_bytes()) {
            blank(&mut code[from..to]);
            if what == What::Comment {
                blank(&mut uncommented[from..to]);
            }
        }
        let view = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { path: path.to_owned(), text, uncommented: view(uncommented), code: view(code) }
    }

    pub(super) fn is_under(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    pub(super) fn finding(&self, position: usize, what: impl Into<String>) -> Finding {
        let before = &self.text.as_bytes()[..position.min(self.text.len())];
        let line = before.iter().fold(1, |line, &byte| line + usize::from(byte == b'\n'));
        Finding { file: self.path.clone(), line, what: what.into() }
    }

    /// The code up to the tests at the bottom of the file.
    pub(super) fn code_without_tests(&self) -> &str {
        self.code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
    }
}

/// Positions in `text` where `word` stands and is not part of a longer identifier.
pub(super) fn words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    Comment,
    /// A string or character, without its quotes.
    Literal,
}

/// Finds comments and literals, with where they start and end.
fn regions(text: &[u8]) -> Vec<(What, usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let starts_word = at == 0 || !is_word(text[at - 1]);
        let (what, skip, len) = if rest.starts_with(b"//") {
            (What::Comment, 0, line_len(rest))
        } else if rest.starts_with(b"/*") {
            (What::Comment, 0, block_len(rest))
        } else if let Some(hashes) = raw_hashes(rest).filter(|_| starts_word) {
            let open = rest.iter().position(|&byte| byte == b'"').unwrap_or_default() + 1;
            let close = [vec![b'"'], vec![b'#'; hashes]].concat();
            (What::Literal, open, find(&rest[open..], &close))
        } else if rest[0] == b'"' {
            (What::Literal, 1, quoted_len(&rest[1..], b'"'))
        } else if rest[0] == b'\'' && is_character(rest) {
            (What::Literal, 1, quoted_len(&rest[1..], b'\''))
        } else {
            at += 1;
            continue;
        };
        let from = at + skip;
        let to = (from + len).min(text.len());
        found.push((what, from, to));
        // Past the closing quote, which is not part of the region.
        at = to + usize::from(what == What::Literal);
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn find(text: &[u8], what: &[u8]) -> usize {
    text.windows(what.len()).position(|window| window == what).unwrap_or(text.len())
}

fn line_len(text: &[u8]) -> usize {
    find(text, b"\n")
}

/// Length of a block comment, which may hold others.
fn block_len(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if text[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// How many `#` a raw string starts with, if one starts here.
fn raw_hashes(text: &[u8]) -> Option<usize> {
    let rest = text.strip_prefix(b"b").unwrap_or(text);
    let rest = rest.strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|&&byte| byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// Length of what stands before the closing quote.
fn quoted_len(text: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// Whether a quote starts a character and not a lifetime.
fn is_character(text: &[u8]) -> bool {
    match text.get(1) {
        Some(b'\\') => true,
        // A character beyond ASCII takes several bytes; a lifetime cannot start with one in practice.
        Some(byte) if !byte.is_ascii() => true,
        Some(_) => text.get(2) == Some(&b'\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(Path::new("x.rs"), text.to_owned())
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        let source = source("a // unsafe\nb /* x /* y */ unsafe */ c \"unsafe \\\" unsafe\" d");
        assert_eq!(words(&source.code, "unsafe").count(), 0);
        assert_eq!(
            source.code.split_whitespace().collect::<Vec<_>>(),
            ["a", "b", "c", "\"", "\"", "d"]
        );
        assert_eq!(words(&source.uncommented, "unsafe").count(), 2);
    }

    #[test]
    fn raw_strings_end_at_their_own_mark() {
        let source = source("x r#\"a \" todo!\"# y br\"z\" w");
        assert!(!source.code.contains("todo!"), "{}", source.code);
        assert!(source.code.ends_with('w') && source.code.contains(" y "), "{}", source.code);
    }

    #[test]
    fn lifetimes_are_not_characters() {
        let source = source("fn f<'a>(x: &'a str) { g('\"', 'x', '\\'', '▶'); unsafe {} }");
        assert_eq!(words(&source.code, "unsafe").count(), 1);
        assert_eq!(words(&source.code, "a").count(), 2);
    }

    #[test]
    fn a_view_keeps_lines_and_positions() {
        let text = "\"a\nb\"\n/* c\n */ unsafe";
        let source = source(text);
        assert_eq!(source.code.len(), text.len());
        let at = words(&source.code, "unsafe").next().expect("it is there");
        assert_eq!(source.finding(at, "").line, 4);
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(words("unsafe_code unsafe un_unsafe", "unsafe").collect::<Vec<_>>(), [12]);
    }
}
