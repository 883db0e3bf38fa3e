//! The benchmark's section of `docs/performance.md`.

use std::fmt::Write as _;

use super::super::report::{Machine, Measurement};
use super::super::sections;
use super::figures::Figures;

pub(super) const NAME: &str = "hook";

/// At most as many times what the bare sequence takes.
const TARGET: f64 = 1.3;

/// `day` is when it was measured.
pub(super) fn section(figures: &Figures, day: &str) -> String {
    let Machine { cpu, cores, kernel } = &figures.machine;
    let results = figures.results();
    let value = |name: &str| {
        let found = results.iter().find(|other| other.name == name);
        found.map_or(0.0, |found| found.value)
    };
    let mut text = format!(
        "{}\n\n## Starting a pod\n\nMeasured on {day} on {cpu} with {cores} cores, Linux {kernel}, by\n\
         `cargo xtask bench hook`, with the driver as it is shipped.\n{INTRODUCTION}",
        sections::mark(NAME)
    );
    for (which, what) in [("1nic", "one device"), ("8nic", "eight devices")] {
        let ratio = value(&format!("hook_{which}_p50_ratio"));
        let verdict = if ratio <= TARGET { "met" } else { "**missed**" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {what} | {:.1} | {:.1} | {:.1} | {:.1} | {ratio:.2} | at most {TARGET:.1}: {verdict} |",
            value(&format!("hook_{which}_p50_ms")),
            value(&format!("hook_{which}_p99_ms")),
            value(&format!("hook_{which}_bare_p50_ms")),
            value(&format!("hook_{which}_bare_p99_ms")),
        );
    }
    text += PARTS;
    for Measurement { name, value, unit } in &results {
        let digits = if *unit == "rounds" { 0 } else { 3 };
        let _ = writeln!(text, "| `{name}` | {value:.digits$} | {unit} |");
    }
    text
}

const INTRODUCTION: &str = "
How long the runtime waits for `RunPodSandbox`, from its call on the NRI socket to the answer: each
device into the pod's namespace under a new name, with an address and a route, and with its programs. *Bare*
is the least that the kernel could be asked for the same: in one process, one netlink socket for each
namespace, the interface down, moved, an address, up, a route; nothing is looked at first, written down, or
kept to go back by. Both take the same veth interfaces with the same programs on them, in turn, and most of
either is the kernel's: it waits for all CPUs to forget a device that leaves a namespace.
What else the machine does shows in the p99 of both sides first.

| pod with | p50, ms | p99, ms | bare p50, ms | bare p99, ms | ratio of p50 | |
| --- | ---: | ---: | ---: | ---: | ---: | --- |
";

const PARTS: &str = "
`prepare` is `NodePrepareResources` for one device on kubelet's socket, with counters, flows and a filter of
three rules (`prepare_8nic`: for eight devices). What follows a name is what a round spent on that part
together, in the median, as `weir_part_duration_seconds` and `weir_step_duration_seconds` of `/metrics` tell:
`checkpoint` is on a disk, `load` includes `compile`, and `step_install_datapath` is `load` and `attach`.

| number | value | unit |
| --- | ---: | --- |
";

#[cfg(test)]
mod tests {
    use super::super::figures::tests::figures;
    use super::*;

    #[test]
    fn a_target_that_is_met_is_called_so() {
        let text = section(&figures(), "2026-01-01");
        assert!(
            text.contains("| one device | 24.0 | 24.0 | 20.0 | 20.0 | 1.20 | at most 1.3: met |")
        );
        assert!(text.contains("Measured on 2026-01-01 on a CPU"), "{text}");
    }
}
