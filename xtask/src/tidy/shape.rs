//! How long a file may be, and how a room starts.

use super::Finding;
use super::source::Source;

/// Lines. The aim is half of it; what does not fit in this is two files.
const LONGEST_FILE: usize = 600;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let finding = |what| Finding { file: source.path.clone(), line: 0, what };
    let len = source.text.lines().count();
    if len > LONGEST_FILE {
        findings.push(finding(format!("{len} lines; no file has more than {LONGEST_FILE}")));
    }
    let is_room = source.path.file_name().is_some_and(|name| name == "mod.rs");
    if is_room && !source.text.starts_with("//! ") {
        findings.push(finding("a room starts with `//!` and what it is".to_owned()));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn count(path: &str, text: String) -> usize {
        check(&Source::new(Path::new(path), text)).len()
    }

    #[test]
    fn a_file_that_is_too_long_is_found() {
        assert_eq!(count("driver/src/x.rs", "\n".repeat(LONGEST_FILE)), 0);
        assert_eq!(count("driver/src/x.rs", "\n".repeat(LONGEST_FILE + 1)), 1);
    }

    #[test]
    fn a_room_without_a_header_is_found() {
        assert_eq!(count("driver/src/plan/mod.rs", "//! Plans.\n".to_owned()), 0);
        assert_eq!(count("driver/src/plan/mod.rs", "mod step;\n".to_owned()), 1);
        assert_eq!(count("driver/src/plan/step.rs", "use x;\n".to_owned()), 0);
    }
}
