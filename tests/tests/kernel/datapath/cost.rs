//! What the programs cost, loosely: enough to notice a helper call or a runaway on the hot path.
//! Real numbers are the benchmark's business.

use std::time::Instant;

use common::names;
use driver::model::{Action, DatapathSpec, DefaultAction, Telemetry};

use super::frames::{self, frame};
use super::programs::{load, run};
use super::{both, rule, spec, tc};

const REPEAT: u32 = 1_000_000;

/// The best of several runs, in nanoseconds for each packet.
fn nanoseconds(spec: &DatapathSpec, program: &str, text: &str) -> u128 {
    let ebpf = load(spec);
    let packet = frame(text);
    (0..5).map(|_| run(&ebpf, program, &packet, REPEAT).1).min().unwrap()
}

#[test]
fn counting_and_filtering_cost_nanoseconds() {
    let off = DatapathSpec { telemetry: Telemetry::Off, ..spec(tc(), None) };
    let counting = spec(tc(), None);
    // None of them matches, so all are looked at.
    let filtering = |rules: usize| {
        let missing = |n| rule(Action::Deny, &[&format!("10.1.{n}.0/24")], None, &[]);
        spec(tc(), Some(both(DefaultAction::Allow, (0..rules).map(missing).collect())))
    };
    for program in [names::XDP, names::INGRESS] {
        for (what, text) in [("UDP", frames::UDP4), ("UDP in IPv6", frames::UDP6)] {
            let empty = nanoseconds(&off, program, text);
            let net = |spec: &DatapathSpec| nanoseconds(spec, program, text).saturating_sub(empty);
            let (counters, rules16) = (net(&counting), net(&filtering(16)));
            let (rules1, rules64) = (net(&filtering(1)), net(&filtering(64)));
            println!(
                "{program}, {what}: empty {empty} ns; net: counters {counters}, 1 rule {rules1}, \
                 16 rules {rules16}, 64 rules {rules64}"
            );
            assert!(counters < 100 && rules64 < 1000, "{program}, {what}: {counters}, {rules64}");
        }
    }
}

#[test]
fn the_verifier_is_done_quickly() {
    let start = Instant::now();
    let ebpf = load(&spec(tc(), Some(both(DefaultAction::Allow, Vec::new()))));
    println!("loaded four programs in {:?}", start.elapsed());
    for program in [names::XDP, names::XDP_FRAGS, names::INGRESS, names::EGRESS] {
        let info = ebpf.program(program).unwrap().info().unwrap();
        let verified = info.verified_instruction_count().unwrap();
        println!(
            "{program}: {:?} bytes translated, {} jited, {verified} instructions verified",
            info.size_translated(),
            info.size_jitted(),
        );
        // A tenth of that on 6.12 and later. The verifier of 6.1 sees less of what is alike.
        assert!(verified < 300_000, "{program}: {verified}");
    }
}
