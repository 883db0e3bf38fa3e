//! Words that may only stand in certain places, or in none.

use super::Finding;
use super::source::{Source, words};

/// The file of the thread that shows the main thread's namespace, whichever thread reads it.
const MAIN_THREADS_NETNS: &str = concat!("/proc/self", "/ns/net");

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in words(&source.code, "unsafe") {
        if let Some(what) = complaint_about_unsafe(source, at) {
            findings.push(source.finding(at, what));
        }
    }
    // The gate is another program: it enters a namespace as the last thing that it does.
    let enters = ["driver/src/sys/netns.rs", "driver/src/sys/gate.rs"];
    if !enters.iter().any(|file| source.is_under(file)) {
        for at in words(&source.code, "setns") {
            findings.push(
                source.finding(at, "`setns` is for driver/src/sys/netns.rs: use `Netns::run`"),
            );
        }
    }
    for (at, _) in source.uncommented.match_indices(MAIN_THREADS_NETNS) {
        let what =
            format!("{MAIN_THREADS_NETNS} is the main thread's: use /proc/thread-self/ns/net");
        findings.push(source.finding(at, what));
    }
    // What is in there has a ring of its own to run in, and the kernel ring names it.
    let has_a_ring = ["config/vm_only.rs", "dranet/vm_only.rs", "driver/vm_only.rs", "hardware"]
        .iter()
        .any(|part| source.is_under(&format!("tests/tests/kernel/{part}")));
    for (at, _) in source.code.match_indices("#[ignore").filter(|_| !has_a_ring) {
        findings.push(source.finding(at, "a test that cannot run fails; it is not ignored"));
    }
    for word in ["todo", "unimplemented"] {
        for at in words(&source.code, word) {
            if source.code[at + word.len()..].starts_with('!') {
                findings.push(source.finding(at, format!("`{word}!` is not finished")));
            }
        }
    }
    findings
}

fn complaint_about_unsafe(source: &Source, at: usize) -> Option<&'static str> {
    if source.is_under("driver/src/sys") || source.is_under("ebpf") {
        return None;
    }
    if source.is_under("common") {
        let rest = source.code[at..].trim_start_matches("unsafe").trim_start();
        let item = rest.split('{').next().unwrap_or_default();
        let is_pod = rest.starts_with("impl") && words(item, "Pod").next().is_some();
        return (!is_pod).then_some("`common` is unsafe in its `Pod` implementations only");
    }
    Some("`unsafe` is for driver/src/sys, ebpf and the `Pod` implementations of common")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let source = Source::new(Path::new(path), text.to_owned());
        check(&source).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unsafe_has_its_places() {
        let block = "fn f() {\n    unsafe { g() }\n}";
        assert_eq!(lines("driver/src/attach/mod.rs", block), [2]);
        assert_eq!(lines("driver/src/sys/xdp.rs", block), []);
        assert_eq!(lines("ebpf/src/main.rs", block), []);
        assert_eq!(lines("common/src/lib.rs", block), [2]);
        assert_eq!(lines("common/src/lib.rs", "unsafe impl aya::Pod for Counters {}"), []);
        assert_eq!(lines("driver/src/lib.rs", "#![deny(unsafe_op_in_unsafe_fn)] // unsafe"), []);
    }

    #[test]
    fn only_one_file_enters_namespaces() {
        assert_eq!(lines("tests/src/wire.rs", "nix::sched::setns(fd, flags)"), [1]);
        assert_eq!(lines("driver/src/sys/netns.rs", "sched::setns(fd, flags)"), []);
    }

    #[test]
    fn the_main_threads_namespace_is_never_read() {
        let text = format!("// {MAIN_THREADS_NETNS}\nopen(\"{MAIN_THREADS_NETNS}\")");
        assert_eq!(lines("driver/src/sys/netns.rs", &text), [2]);
    }

    #[test]
    fn nothing_is_ignored_or_left_to_do() {
        assert_eq!(
            lines("tests/tests/node.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() { todo!() }"),
            [2, 3]
        );
        for place in ["hardware/sriov.rs", "driver/vm_only.rs"] {
            let path = format!("tests/tests/kernel/{place}");
            assert_eq!(lines(&path, "#[ignore = \"needs hardware: vm ring\"]"), []);
        }
    }
}
