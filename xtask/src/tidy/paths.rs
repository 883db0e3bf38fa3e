//! The paths that code names, with the trees of `use` written out.

/// Every path of at least two parts in `code`, as `a::b::c`, with its position. A `use` tree gives
/// one path per leaf.
pub(super) fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = code[at..].find(|c: char| c.is_alphabetic() || c == '_') {
        at += offset;
        let mut reader = Reader { text: code, at };
        let start = reader.word();
        let before = code[..at].trim_end();
        if start == "use" && !before.ends_with('.') {
            reader.tree("", &mut found);
        } else {
            let mut path = start.to_owned();
            while reader.eat("::") {
                match reader.word() {
                    "" => break,
                    word => path = format!("{path}::{word}"),
                }
            }
            if path.contains("::") {
                found.push((at, path));
            }
        }
        at = reader.at;
    }
    found
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// The identifier that starts here; empty where there is none.
    fn word(&mut self) -> &'t str {
        self.skip_space();
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn eat(&mut self, what: &str) -> bool {
        let start = self.at;
        self.skip_space();
        if self.text[self.at..].starts_with(what) {
            self.at += what.len();
            return true;
        }
        self.at = start;
        false
    }

    /// Reads `a::{b, c as d, e::*}`.
    fn tree(&mut self, prefix: &str, found: &mut Vec<(usize, String)>) {
        self.eat("::");
        let mut path = prefix.to_owned();
        loop {
            self.skip_space();
            let at = self.at;
            if self.eat("{") {
                while !self.eat("}") && self.at < self.text.len() {
                    let before = self.at;
                    self.tree(&path, found);
                    self.eat(",");
                    // Text that is no use tree must not hold us up.
                    self.at += usize::from(self.at == before);
                }
                return;
            }
            let word = if self.eat("*") { "*" } else { self.word() };
            path = if path.is_empty() { word.to_owned() } else { format!("{path}::{word}") };
            if !self.eat("::") {
                found.push((at, path.trim_end_matches("::self").to_owned()));
                if self.eat("as ") {
                    self.word();
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(code: &str) -> Vec<String> {
        paths(code).into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn a_use_tree_is_written_out() {
        assert_eq!(
            named("use std::{fs, io::{self, Read as _}, time::*};\nuse aya;"),
            ["std::fs", "std::io", "std::io::Read", "std::time::*", "aya"]
        );
    }

    #[test]
    fn paths_in_expressions_and_types_are_found() {
        assert_eq!(
            named("fn f(x: &crate::sys::Netns) -> u8 { ::std::fs::read(x.y); Vec::<u8>::new() }"),
            ["crate::sys::Netns", "std::fs::read"]
        );
    }

    #[test]
    fn positions_lead_to_the_leaf() {
        let code = "use a::{\n  b,\n  c,\n};";
        assert_eq!(paths(code)[1].0, code.find("c,").expect("it is there"));
    }
}
