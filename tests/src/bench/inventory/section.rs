//! The benchmark's section of `docs/performance.md`.

use std::fmt::Write as _;

use super::super::report::{Machine, Measurement};
use super::super::sections;
use super::Figures;

pub(super) const NAME: &str = "inventory";

/// What the project promises, at most.
const TARGETS: [(&str, &str, f64); 3] = [
    ("a look at 256 interfaces", "scan_256_ms", 100.0),
    ("the first look at them", "scan_first_256_ms", 100.0),
    ("a look at one that changed, of the processor", "rescan_one_ms", 2.0),
];

/// `day` is when it was measured.
pub(super) fn section(figures: &Figures, day: &str) -> String {
    let Machine { cpu, cores, kernel } = &figures.machine;
    let build = if cfg!(debug_assertions) { "without optimisation" } else { "as it is shipped" };
    let priority = if figures.is_real_time { ", at a real-time priority" } else { "" };
    let mut text = format!(
        "{}\n\n## The inventory\n\nMeasured on {day} on {cpu} with {cores} cores, Linux {kernel}, by\n\
         `cargo xtask bench inventory`, with the driver built {build}{priority}.\n{INTRODUCTION}",
        sections::mark(NAME)
    );
    for (what, name, target) in TARGETS {
        let found = figures.results.iter().find(|other| other.name == name);
        let value = found.map_or(f64::NAN, |found| found.value);
        let verdict = if value <= target { "met" } else { "**missed**" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {what} | at most {target:.0} ms | {value:.1} ms | {verdict} |");
    }
    text += NUMBERS;
    for Measurement { name, value, unit } in &figures.results {
        let digits = if matches!(*unit, "ms" | "MiB") { 2 } else { 0 };
        let _ = writeln!(text, "| `{name}` | {value:.digits$} | {unit} |");
    }
    text
}

/// For people.
pub(super) fn line(result: &Measurement) -> String {
    let Measurement { name, value, unit } = result;
    format!("{name:32}{value:>12.3} {unit}\n")
}

const INTRODUCTION: &str = "
What it costs to know 256 interfaces, all up: two physical functions and 254 virtual ones, each with an RDMA
device. To the kernel they are veths; what they are on PCI is in files that are read as those of sysfs are.
Each number is the median of its rounds, but for the first look, of which there is one.

| what | target | measured | |
| --- | ---: | ---: | --- |
";

const NUMBERS: &str = "
`scan` looks at everything, `rescan_one` at one interface whose MTU has changed, `poll` whether programs came or
went; `_cpu_ms`, `rescan_one_ms` and `poll_ms` are processor time, the others what a clock says. A request is a
question to the kernel by netlink, bpf(2) or ioctl; files of sysfs are not counted. `slices_256` is what the
driver published of them, and `rss_mib` the memory of its process after that.

| number | value | unit |
| --- | ---: | --- |
";

#[cfg(test)]
mod tests {
    use super::super::super::report::measurement;
    use super::*;

    #[test]
    fn a_target_that_is_missed_is_called_so() {
        let machine = Machine { cpu: "a CPU".to_owned(), cores: 2, kernel: "6.18".to_owned() };
        let results =
            vec![measurement("scan_256_ms", 99.0, "ms"), measurement("rescan_one_ms", 2.1, "ms")];
        let section = section(&Figures { machine, is_real_time: true, results }, "2026-01-01");
        assert!(section.contains(", at a real-time priority."), "{section}");
        assert!(section.contains("| at most 100 ms | 99.0 ms | met |"), "{section}");
        assert!(section.contains("| at most 2 ms | 2.1 ms | **missed** |"), "{section}");
        assert!(section.contains("| `scan_256_ms` | 99.00 | ms |"), "{section}");
    }
}
