//! `docs/performance.md`, made of one run.

use std::fmt::Write as _;

use super::plan::FULL;
use super::report::{Machine, Report, Size};
use super::rounds::Net;

/// What the project promises, and how it is worked out.
const TARGETS: [(&str, f64, &str, Value); 7] = [
    ("counters", 10.0, "ns", |report| best(report, "counters")),
    ("counters, flows and 16 rules", 16.0, "ns", |report| best(report, FULL)),
    ("the same in a flood, more", 5.0, "ns", |report| best(report, "flood_extra")),
    ("counters, flows and 4096 rules, none hit", 120.0, "ns", |r| best(r, "rules4096_miss")),
    ("the second, against C", 1.10, "times", |report| report.other("c_ratio")),
    ("a deny list, against xdp-filter", 0.50, "times", |r| r.other("xdp_filter_ratio")),
    (THROUGHPUT, 0.97, "times", |report| report.other("veth_tcp_ratio")),
];

const THROUGHPUT: &str = "TCP throughput, against none";

type Value = fn(&Report) -> Option<f64>;

fn best(report: &Report, name: &str) -> Option<f64> {
    report.cost(name).map(|net| net.best)
}

/// The page. `day` is when it was measured.
pub(super) fn page(report: &Report, day: &str) -> String {
    let Machine { cpu, cores, kernel } = &report.machine;
    let mut page = format!(
        "# Performance\n\n<!-- Made by `cargo xtask bench datapath --write`; not edited by hand. -->\n\n\
         Measured on {day} on {cpu} with {cores} cores, Linux {kernel}, by\n\
         `cargo xtask bench datapath`, which measures the same on your machine.\n\n## Targets\n\n"
    );
    page += &targets(report);
    page += INTRODUCTION;
    page += "| case | best, ns | median, ns |\n| --- | ---: | ---: |\n";
    for (name, Net { best, median }) in &report.costs {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {best:.1} | {median:.1} |");
    }
    page += CASES;
    page += "| number | value | unit |\n| --- | ---: | --- |\n";
    for other in &report.others {
        let digits = if other.value < 10.0 { 3 } else { 0 };
        let _ = writeln!(page, "| `{}` | {:.digits$} | {} |", other.name, other.value, other.unit);
    }
    page += "\n## Sizes\n\nAs the kernel tells them once a program is loaded for its purpose, what is off \
             removed.\n\n| program | instructions verified | translated, bytes | machine code, bytes |\n\
             | --- | ---: | ---: | ---: |\n";
    for (name, size) in &report.sizes {
        let Size { verified, translated_bytes, jited_bytes } = size;
        let _ = writeln!(page, "| `{name}` | {verified} | {translated_bytes} | {jited_bytes} |");
    }
    if !report.absent.is_empty() {
        page += "\n## Absent\n\n";
    }
    for absent in &report.absent {
        let _ = writeln!(page, "- {absent}");
    }
    page
}

fn targets(report: &Report) -> String {
    let mut table = "| what | target | measured | |\n| --- | ---: | ---: | --- |\n".to_owned();
    for (what, target, unit, value) in TARGETS {
        let (side, digits) =
            if what == THROUGHPUT { ("at least", 3) } else { ("at most", digits(unit)) };
        let (measured, verdict) = match value(report) {
            None => ("absent".to_owned(), ""),
            Some(value) => {
                let is_met = if what == THROUGHPUT { value >= target } else { value <= target };
                (format!("{value:.digits$} {unit}"), if is_met { "met" } else { "**missed**" })
            }
        };
        let digits = if unit == "ns" { 0 } else { 2 };
        let _ = writeln!(
            table,
            "| {what} | {side} {target:.digits$} {unit} | {measured} | {verdict} |"
        );
    }
    table
}

fn digits(unit: &str) -> usize {
    if unit == "ns" { 1 } else { 2 }
}

const INTRODUCTION: &str = "
## What a packet costs

Nanoseconds that a program adds to each packet, as `BPF_PROG_TEST_RUN` has it: a million runs on
one CPU, by the thread's processor time, in several rounds, each next to a program that does nothing,
whose time is taken off. *Best* is the best round less the empty program's best, *median* that of the
differences. The packet is UDP in 60 bytes and always in the cache: a NIC's driver comes on top, and
on a machine with other things to do its caches are colder. `flood` gives each packet other random
addresses and ports, and compares with a flood of one and the same.

All of it is one run. On a virtual machine the next one may differ by a nanosecond or two: a target that is met or
missed by less is neither.

";

const CASES: &str = "
- `counters`: verdicts by protocol, packets and bytes, sizes, TCP events. `counters_flows`: and a cache
  of 4096 flows on each CPU. `counters_flows_rules16`: and 16 rules of a mixed kind, of which the last
  allows the packet (`_miss`: none does, and the default denies it).
- `rulesN`: counters, flows and N rules with a network and a range of ports each; the packet of `_miss`
  has octets that are in many of the networks, and is in none. `rules4096_worst`: rules made so that
  the program has to look at all of them.
- `_v6`: IPv6. `_tcx`: the program for TCX, all others are for XDP.
- `own_equal`, `xdp_filter_equal`: a list of 64 denied addresses, by us (with counters) and by
  xdp-filter of xdp-tools (with its own, and without its dispatcher). The packet is not on the list
  (`_hit`: it is).
- `c_…`: the same logic in C, compiled by clang (`tests/bench/weir.c`), on the same compiled rules.
- `textbook`: a trie of 1000 prefixes, an LRU hash of flows, counters (`tests/bench/textbook.c`).

## Throughput

Through a veth pair into another namespace, with and without counters in both directions (TCX) at
one end, ten times in turn; the ratio is the median of the ten. TCP with GSO, by iperf3 where the
machine has it and otherwise by large writes of our own (`veth_tcp_by_iperf3`). UDP with 18 bytes of
payload, sent as fast as one thread can, out of that end and into it (`_in`). The CPU that a packet
takes is that of the processes that send and receive, with what the kernel does in their name.

";

#[cfg(test)]
mod tests {
    use super::super::plan::C_FULL;
    use super::super::report::measurement;
    use super::*;

    #[test]
    fn a_target_that_is_missed_is_called_so() {
        let machine = Machine { cpu: "a CPU".to_owned(), cores: 2, kernel: "6.18".to_owned() };
        let report = Report {
            machine,
            costs: vec![
                ("counters".to_owned(), Net { best: 9.96, median: 10.2 }),
                (FULL.to_owned(), Net { best: 16.1, median: 17.0 }),
                (C_FULL.to_owned(), Net { best: 16.0, median: 17.0 }),
            ],
            sizes: Vec::new(),
            others: vec![measurement("veth_tcp_ratio", 0.99, "times")],
            absent: vec!["xdp-filter: not installed".to_owned()],
        };
        let page = page(&report, "2026-01-01");
        assert!(page.contains("| counters | at most 10 ns | 10.0 ns | met |"), "{page}");
        assert!(page.contains("| at most 16 ns | 16.1 ns | **missed** |"), "{page}");
        assert!(page.contains("| at least 0.97 times | 0.990 times | met |"), "{page}");
        assert!(page.contains("| at most 0.50 times | absent |  |"), "{page}");
    }
}
