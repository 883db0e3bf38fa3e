//! Every variant of the programs before this kernel's verifier.
//!
//! TCX and `clsact` are not told apart: the programs are the same.

use aya::programs::{Program, ProgramError};
use common::names;
use driver::datapath::load_for_test;
use driver::model::{
    Action, DatapathSpec, DefaultAction, DirectionFilter, Filter, FilterRule, PortRange, Protocol,
    Rate, RateLimit, Telemetry,
};
use driver::testing::rule;
use ipnet::IpNet;

use super::{spec, tc};

const PROGRAMS: [&str; 4] = [names::XDP, names::XDP_FRAGS, names::INGRESS, names::EGRESS];
const TELEMETRY: [(&str, Telemetry); 3] =
    [("off", Telemetry::Off), ("counters", Telemetry::Counters), ("flows", Telemetry::Flows)];

/// Half of what the kernel permits (`BPF_COMPLEXITY_LIMIT_INSNS` in `include/linux/bpf.h`): the
/// verifier of a kernel that we do not know may be less clever than those that we do.
const MOST_VERIFIED: u32 = 500_000;

#[test]
fn every_variant_loads() {
    let mut largest = None;
    let mut refused = Vec::new();
    for (form, filter) in filters() {
        for (telemetry, wish) in TELEMETRY {
            let spec = DatapathSpec { telemetry: wish, ..spec(tc(), filter.clone()) };
            let mut ebpf = load_for_test(&spec).unwrap();
            for name in PROGRAMS {
                let variant = format!("{name}, telemetry {telemetry}, filter {form}");
                match loaded(ebpf.program_mut(name).unwrap()) {
                    Ok(size) => {
                        let Size { translated, verified } = size;
                        println!("{variant}: {translated} instructions, {verified} verified");
                        largest = largest.max(Some((verified, translated, variant)));
                    }
                    Err(error) => refused.push(format!("{variant}: {}", end_of(&error))),
                }
                // To ask for a reason takes seconds each time.
                assert!(refused.len() < 4, "{}", refused.join("\n\n"));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n\n"));
    let (verified, translated, variant) = largest.unwrap();
    println!("ring: at most {verified} instructions verified ({translated} there): {variant}");
    assert!(verified < MOST_VERIFIED, "{variant}: {verified}");
}

/// Without a filter, with such as are common, and with such as use all that there is.
fn filters() -> Vec<(&'static str, Option<Filter>)> {
    let few = || vec![between("10.0.0.0/8", "192.0.2.1/32", Action::Allow), answers()];
    let wide: Vec<_> = (0..4096).map(nth).collect();
    vec![
        ("none", None),
        ("without rules", Some(both(false, Vec::new()))),
        ("narrow v4", Some(both(false, few()))),
        ("narrow with all", Some(both(false, everything()))),
        ("narrow stateful", Some(both(true, few()))),
        ("narrow stateful with all", Some(both(true, everything()))),
        ("stateful one way", Some(Filter { egress: None, ..both(true, few()) })),
        ("wide", Some(both(false, wide.clone()))),
        ("wide stateful", Some(both(true, wide))),
    ]
}

fn both(stateful: bool, rules: Vec<FilterRule>) -> Filter {
    let direction = DirectionFilter { default_action: DefaultAction::Deny, stateful, rules };
    Filter { ingress: Some(direction.clone()), egress: Some(direction) }
}

/// Rules that look at every octet of both families, at all that can be asked of a packet, and do all
/// that a rule can do.
fn everything() -> Vec<FilterRule> {
    let limit = |rate| Action::RateLimit(RateLimit { rate, burst: 1000 });
    let mut rules = vec![
        between("10.1.2.3/32", "10.4.5.6/32", Action::Count),
        between("fd00::1/128", "fd00::2/128", limit(Rate::PacketsPerSecond(1000))),
        FilterRule { fragment: Some(true), ..rule("fragments", Action::Deny) },
        FilterRule {
            icmp_types: vec![8, 0],
            protocol: Some(Protocol::Icmp),
            ..rule("pings", limit(Rate::BitsPerSecond(1_000_000)))
        },
        answers(),
    ];
    rules.extend((0..10).map(|n| nth(n * 2)));
    rules
}

fn answers() -> FilterRule {
    FilterRule {
        established: true,
        protocol: Some(Protocol::Tcp),
        ..rule("answers", Action::Allow)
    }
}

/// One of thousands, of either family in turn: one entry.
fn nth(n: u16) -> FilterRule {
    let [upper, lower] = n.to_be_bytes();
    let (source, destination) = match n % 2 {
        0 => (format!("10.7.{upper}.{lower}/32"), format!("10.8.{upper}.{lower}/32")),
        _ => (format!("fd07::{n:x}/128"), format!("fd08::{n:x}/128")),
    };
    let action = match n % 5 {
        0 => Action::Count,
        1 => Action::RateLimit(RateLimit { rate: Rate::PacketsPerSecond(1000), burst: 100 }),
        2 => Action::Deny,
        _ => Action::Allow,
    };
    let more = n % 40;
    FilterRule {
        protocol: Some(Protocol::Udp),
        source_ports: vec![PortRange { first: 1024 + more, last: 50_000 }],
        destination_ports: vec![PortRange { first: 4000, last: 4000 + more }],
        name: format!("rule-{n}"),
        ..between(&source, &destination, action)
    }
}

fn between(source: &str, destination: &str, action: Action) -> FilterRule {
    let network = |text: &str| -> Vec<IpNet> { vec![text.parse().unwrap()] };
    FilterRule {
        sources: network(source),
        destinations: network(destination),
        ..rule(&format!("{source}-{destination}"), action)
    }
}

/// In instructions of eight bytes.
struct Size {
    /// What is left of the program.
    translated: u32,
    /// How many the verifier went through, on all ways.
    verified: u32,
}

fn loaded(program: &mut Program) -> Result<Size, ProgramError> {
    match program {
        Program::Xdp(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        other => panic!("unexpected program {other:?}"),
    }
    let info = program.info()?;
    Ok(Size {
        translated: info.size_translated().unwrap() / 8,
        verified: info.verified_instruction_count().unwrap(),
    })
}

/// What the verifier refuses stands at the end of its log, which is long.
fn end_of(error: &ProgramError) -> String {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
