//! What a test program writes, read back.

/// The result of one test program.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Outcome {
    pub(super) passed: usize,
    pub(super) failed: Vec<String>,
}

impl Outcome {
    /// None where the program did not get to the line with its result.
    pub(super) fn parse(output: &str) -> Option<Self> {
        let (before, rest) = output.rsplit_once("\ntest result: ")?;
        let (passed, _) = rest.split_once(" passed")?;
        let passed = passed.rsplit(' ').next()?.parse().ok()?;
        // The last of two lists is that of the names.
        let names = before.rsplit_once("\nfailures:\n").map_or("", |(_, names)| names);
        let failed = names.lines().map(str::trim).filter(|name| !name.is_empty());
        Some(Self { passed, failed: failed.map(str::to_owned).collect() })
    }
}

/// What tests want to be read wherever they pass: lines that begin with `ring: `.
pub(super) fn told(output: &str) -> impl Iterator<Item = &str> {
    output.lines().filter_map(|line| line.strip_prefix("ring: "))
}

/// The tests whose names have `part` in them, of those that a test program lists.
pub(crate) fn listed<'l>(listing: &'l str, part: &str) -> Vec<&'l str> {
    let names = listing.lines().filter_map(|line| line.strip_suffix(": test"));
    names.filter(|name| name.contains(part)).collect()
}

/// What the test `name` wrote before it failed.
pub(super) fn words_of<'o>(output: &'o str, name: &str) -> &'o str {
    let Some((_, rest)) = output.split_once(&format!("\n---- {name} stdout ----\n")) else {
        return "";
    };
    let end = ["\n---- ", "\nfailures:\n"].iter().filter_map(|mark| rest.find(mark)).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// The line in which the kernel says why it gave up: far above the end of a console, before traces.
pub(super) fn panic(console: &str) -> Option<&str> {
    console.lines().find(|line| line.contains("Kernel panic"))
}

/// The last `count` lines.
pub(super) fn tail(text: &str, count: usize) -> &str {
    let text = text.trim_end();
    let start = text.rmatch_indices('\n').nth(count.saturating_sub(1)).map(|(at, _)| at + 1);
    &text[start.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "\nrunning 3 tests\ntest a::x ... ok\ntest a::y ... FAILED\n\
        test a::z ... FAILED\n\nfailures:\n\n---- a::y stdout ----\n\nrefused\nby the verifier\n\n\
        ---- a::z stdout ----\n\nother\n\n\nfailures:\n    a::y\n    a::z\n\n\
        test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; \
        finished in 1.00s\n\n";

    #[test]
    fn the_result_names_what_failed() {
        let failed = ["a::y", "a::z"].map(str::to_owned).to_vec();
        assert_eq!(Outcome::parse(FAILED), Some(Outcome { passed: 1, failed }));
        let good =
            "\nrunning 1 test\ntest a ... ok\n\ntest result: ok. 12 passed; 0 failed; 0 ignored\n";
        assert_eq!(Outcome::parse(good), Some(Outcome { passed: 12, failed: Vec::new() }));
    }

    #[test]
    fn a_program_that_did_not_end_has_no_result() {
        assert_eq!(Outcome::parse("\nrunning 3 tests\ntest a::x ... ok\ntest a::y ..."), None);
    }

    #[test]
    fn what_is_to_be_read_is_marked() {
        let output = "---- a::x stdout ----\nmore\nring: at most 12\n a ring: no\n";
        assert_eq!(told(output).collect::<Vec<_>>(), ["at most 12"]);
    }

    #[test]
    fn tests_are_listed_by_part_of_their_names() {
        let listing = "a::needs_tcx::b: test\na::b: test\na::needs_tcx::c: benchmark\n";
        assert_eq!(listed(listing, "::needs_tcx::"), ["a::needs_tcx::b"]);
    }

    #[test]
    fn a_failed_tests_words_are_its_own() {
        assert_eq!(words_of(FAILED, "a::y").trim(), "refused\nby the verifier");
        assert_eq!(words_of(FAILED, "a::z").trim(), "other");
        assert_eq!(words_of(FAILED, "a::x"), "");
    }

    #[test]
    fn a_panic_is_found_before_its_traces() {
        let line = "[    7.3] Kernel panic - not syncing: sysrq triggered crash";
        assert_eq!(panic(&format!("[    7.2] a\n{line}\n[    7.4] Call Trace:\n")), Some(line));
        assert_eq!(panic("[    7.2] reboot: Power down\n"), None);
    }

    #[test]
    fn a_tail_is_whole_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\nb\n", 5), "a\nb");
    }
}
