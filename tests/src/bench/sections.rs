//! Sections of `docs/performance.md`, each made by a benchmark of its own and kept by the others.

const MARK: &str = "<!-- From here on: made by `cargo xtask bench ";

/// The line that a benchmark's section begins with.
pub(super) fn mark(bench: &str) -> String {
    format!("{MARK}{bench} --write`. -->")
}

/// What a page that is made anew takes over from the one that is there.
pub(super) fn kept(page: &str) -> &str {
    page.find(MARK).map_or("", |at| page.get(at..).unwrap_or_default())
}

/// The page with this benchmark's section in the place of the former one, or at the end.
pub(super) fn replaced(page: &str, bench: &str, section: &str) -> String {
    let kept = kept(page);
    let head = page.strip_suffix(kept).unwrap_or(page);
    let mark = mark(bench);
    let mut parts: Vec<&str> = vec![head.trim_end()];
    let mut rest = kept;
    let mut is_new = true;
    while !rest.is_empty() {
        let end = rest.get(1..).and_then(|after| after.find(MARK)).map_or(rest.len(), |at| at + 1);
        let (part, after) = rest.split_at(end);
        let is_former = part.starts_with(&mark);
        parts.push(if is_former { section.trim_end() } else { part.trim_end() });
        is_new &= !is_former;
        rest = after;
    }
    if is_new {
        parts.push(section.trim_end());
    }
    format!("{}\n", parts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_the_former_one_and_nothing_else() {
        let section = |bench: &str, text: &str| format!("{}\n\n{text}\n", mark(bench));
        let page = "# Performance\n\ntext\n";
        let first = replaced(page, "hook", &section("hook", "one"));
        let both = replaced(&first, "inventory", &section("inventory", "two"));
        assert!(both.starts_with("# Performance\n\ntext\n\n<!-- From here on"), "{both}");
        let other = replaced(&both, "hook", &section("hook", "three"));
        assert_eq!(other, both.replace("one", "three"));
        assert_eq!(replaced(&both, "inventory", &section("inventory", "two")), both);
        assert_eq!(kept(&both), both.strip_prefix("# Performance\n\ntext\n\n").unwrap());
        assert_eq!(kept(page), "");
    }
}
