//! Pure rooms do no I/O, know no clock, and know no room that does or has either.

use super::Finding;
use super::paths::paths;
use super::source::Source;

const PURE: [&str; 4] = ["model", "claim", "policy", "plan"];

/// What leads out of a program, by the standard library or by the crates that we use for it.
const FORBIDDEN: [&str; 27] = [
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "arc_swap",
    "axum",
    "aya",
    "futures",
    "k8s_openapi",
    "kube",
    "libbpf_sys",
    "netlink_sys",
    "nix",
    "prost",
    "rtnetlink",
    "tokio",
    "tokio_stream",
    "tokio_util",
    "tonic",
    "tower",
    "tracing",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let Some(room) = room(source) else { return Vec::new() };
    if !PURE.contains(&room) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (at, path) in paths(source.code_without_tests()) {
        if FORBIDDEN.iter().any(|forbidden| is_within(&path, forbidden)) {
            findings.push(source.finding(at, format!("`{room}` is a pure room: no `{path}`")));
        }
        let other = path.strip_prefix("crate::").and_then(|rest| rest.split("::").next());
        if let Some(other) = other.filter(|other| !PURE.contains(other)) {
            let what = format!("`{room}` is a pure room: it may not know `{other}`");
            findings.push(source.finding(at, what));
        }
    }
    findings
}

/// The room of the driver that a file belongs to.
fn room(source: &Source) -> Option<&str> {
    let inside = source.path.strip_prefix("driver/src").ok()?;
    inside.iter().next()?.to_str()
}

/// Whether `path` is `outer` or something in it. What `std::time::*` brings in is not known, so it
/// counts as all of it.
fn is_within(path: &str, outer: &str) -> bool {
    if let Some(module) = path.strip_suffix("::*")
        && outer.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"))
    {
        return true;
    }
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(Path::new(path), text.to_owned());
        check(&source).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_pure_room_that_reads_a_file_is_found() {
        assert_eq!(
            findings("driver/src/plan/mod.rs", "use std::{\n    fmt,\n    fs,\n};"),
            ["driver/src/plan/mod.rs:3: `plan` is a pure room: no `std::fs`"]
        );
        assert_eq!(findings("driver/src/claim/x.rs", "fn f() { std::fs::read(\"x\"); }").len(), 1);
    }

    #[test]
    fn a_pure_room_may_not_know_the_hands() {
        assert_eq!(findings("driver/src/policy/mod.rs", "use crate::sys::Netns;").len(), 1);
        assert_eq!(findings("driver/src/policy/mod.rs", "use crate::model::Rule;").len(), 0);
    }

    #[test]
    fn a_pure_room_may_not_know_the_time() {
        assert_eq!(findings("driver/src/plan/mod.rs", "use std::time::Instant;").len(), 1);
        assert_eq!(findings("driver/src/plan/mod.rs", "use std::time::*;").len(), 1);
        assert_eq!(findings("driver/src/plan/mod.rs", "use std::time::Duration;").len(), 0);
    }

    #[test]
    fn tests_comments_and_other_rooms_may() {
        let tests = "fn f() {}\n#[cfg(test)]\nmod tests {\n use std::fs;\n}";
        assert_eq!(findings("driver/src/plan/mod.rs", tests).len(), 0);
        assert_eq!(findings("driver/src/plan/mod.rs", "// std::fs::read\n").len(), 0);
        assert_eq!(findings("driver/src/sys/mod.rs", "use std::fs;").len(), 0);
    }

    #[test]
    fn a_name_that_only_starts_alike_is_another() {
        assert_eq!(
            findings("driver/src/plan/mod.rs", "use ayatollah::X; use kubelet::Y;").len(),
            0
        );
    }
}
