//! Flows, rules and memory as the driver reads them from the maps.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use driver::datapath::{CounterError, CounterSource as _, Datapath, Follower, MapCounters, flows};
use driver::model::{
    Action, DatapathSpec, DefaultAction, DirectionFilter, Ends, Filter, FilterRule, Flow,
    FlowWishes, Origin, PortRange, Protocol, Telemetry,
};

use super::wire::{Bench, POD_ADDRESSES, WIRE_ADDRESSES};
use super::{id, spec, tc};

const PORT: u16 = 5300;

fn installed(spec: &DatapathSpec) -> Bench {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    bench.host.run(|| datapath.install(spec, &Bench::nic()).unwrap());
    bench.move_to_pod_with(&datapath, spec);
    bench
}

fn with_flows(entries: u32, export_packets: u64) -> DatapathSpec {
    DatapathSpec {
        telemetry: Telemetry::Flows,
        flows: FlowWishes { entries, export_packets },
        ..spec(tc(), None)
    }
}

/// The flow of UDP from the wire to the pod's `PORT`.
fn inwards(bench: &Bench) -> Flow {
    let is_it = |flow: &Flow| {
        flow.direction == "ingress"
            && matches!(flow.ends, Ends::Ports { destination_port: PORT, .. })
    };
    flows(bench.bpffs(), &id()).unwrap().into_iter().find(is_it).unwrap()
}

#[test]
fn a_flow_is_seen_with_its_ends_and_its_time() {
    // Ticks are coarse, and come late where the machine itself is held up.
    let about = Duration::from_millis(250);
    for (pod, wire) in POD_ADDRESSES.into_iter().zip(WIRE_ADDRESSES) {
        let start = Instant::now();
        let bench = installed(&with_flows(4096, 16));
        let server = Bench::listen(&bench.pod, pod, PORT);
        let client = Bench::listen(&bench.wire, wire, 0);
        let sent = Bench::warm_up(&client, &server);
        let warm = Instant::now();
        let arrived = u64::try_from(Bench::exchange(&client, &server, 10)).unwrap();
        let over = Instant::now();

        let flow = inwards(&bench);

        assert!((10..=sent + 10).contains(&flow.seen.packets) && arrived == 10, "{flow:?}");
        let client = client.local_addr().unwrap();
        assert_eq!((flow.protocol, flow.verdict), ("udp", "allowed"));
        assert_eq!((flow.source, flow.destination), (client.ip(), pod.parse().unwrap()));
        let ends = Ends::Ports { source_port: client.port(), destination_port: PORT };
        assert_eq!(flow.ends, ends);
        // By the kernel's clock as we compute it: it is the one that the programs read.
        assert!(flow.last_seen <= warm.elapsed() + about, "{:?}", flow.last_seen);
        assert!(flow.first_seen >= flow.last_seen && flow.first_seen <= start.elapsed() + about);
        thread::sleep(Duration::from_millis(1500));
        let at_least = over.elapsed();
        let later = inwards(&bench).last_seen;
        let range = at_least.saturating_sub(about)..=warm.elapsed() + about;
        assert!(range.contains(&later), "{later:?} is not in {range:?}");
    }
}

#[test]
fn every_flow_that_leaves_a_small_cache_is_followed_by_one_reader() {
    let bench = installed(&with_flows(256, 1));
    let source = MapCounters::new(bench.bpffs());
    let mut follower = Follower::open(bench.bpffs(), &id()).unwrap();
    let second = Follower::open(bench.bpffs(), &id()).unwrap_err();
    assert!(matches!(second, CounterError::Followed { .. }), "{second}");
    let server = Bench::listen(&bench.pod, POD_ADDRESSES[0], PORT);
    Bench::warm_up(&Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 0), &server);

    let mut taken = Vec::new();
    for nth in 0..2000 {
        let client = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 20_000 + nth);
        client.send_to(&[0; 8], server.local_addr().unwrap()).unwrap();
        server.recv(&mut [0; 16]).unwrap();
        if nth % 200 == 0 {
            taken.extend(follower.take().unwrap());
        }
    }
    taken.extend(follower.take().unwrap());

    let traffic = source.read(&id()).unwrap();
    let sum = |of: fn(&driver::model::DirectionTraffic) -> u64| {
        of(&traffic.ingress) + of(&traffic.egress)
    };
    let exported = sum(|it| it.flows_exported);
    assert!(exported > 1000, "{exported}");
    assert_eq!(sum(|it| it.flows_evicted), exported, "each had a packet");
    assert_eq!(sum(|it| it.flows_lost), 0, "there was always room");
    assert_eq!(u64::try_from(taken.len()).unwrap(), exported);
    let ports: BTreeSet<_> = taken
        .iter()
        .filter_map(|flow| match flow.ends {
            Ends::Ports { source_port, destination_port: PORT } => Some(source_port),
            _ => None,
        })
        .collect();
    assert!(ports.iter().filter(|port| (20_000..22_000).contains(*port)).count() > 1000);
    assert!(!follower.is_over());
    Datapath::open(bench.bpffs()).unwrap().remove(&id()).unwrap();
    assert!(follower.is_over());
}

fn rules(rules: Vec<FilterRule>) -> Filter {
    let default_action = DefaultAction::Allow;
    let ingress = DirectionFilter { default_action, stateful: false, rules };
    Filter { egress: Some(ingress.clone()), ingress: Some(ingress) }
}

#[test]
fn each_rule_has_its_hits_by_name_and_origin() {
    let udp = |name, action, origin, port| FilterRule {
        origin,
        protocol: Some(Protocol::Udp),
        destination_ports: vec![PortRange { first: port, last: port }],
        ..driver::testing::rule(name, action)
    };
    let filter = rules(vec![
        udp("dns", Action::Count, Origin::Operator, PORT),
        udp("dns", Action::Allow, Origin::Claim, PORT),
        udp("other", Action::Deny, Origin::Claim, PORT + 1),
    ]);
    let spec = DatapathSpec { generation: 7, ..spec(tc(), Some(filter)) };
    let bench = installed(&spec);
    let source = MapCounters::new(bench.bpffs());
    let server = Bench::listen(&bench.pod, POD_ADDRESSES[0], PORT);
    let client = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 0);
    Bench::warm_up(&client, &server);
    let before = source.rules(&spec).unwrap();

    assert_eq!(Bench::exchange(&client, &server, 5), 5);
    client.send_to(&[0; 8], (POD_ADDRESSES[0], PORT + 1)).unwrap();

    let after = source.rules(&spec).unwrap();
    let hits: Vec<_> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| {
            let packets = after.matched.packets - before.matched.packets;
            (after.direction, after.origin, after.rule.as_str(), packets)
        })
        .collect();
    let (claim, operator) = (Origin::Claim, Origin::Operator);
    assert_eq!(
        hits,
        [
            ("ingress", operator, "dns", 5),
            ("ingress", claim, "dns", 5),
            ("ingress", claim, "other", 1),
            ("egress", operator, "dns", 0),
            ("egress", claim, "dns", 0),
            ("egress", claim, "other", 0),
        ]
    );
    // 14 of Ethernet, 20 of IP, 8 of UDP, 8 of load.
    assert_eq!(after[0].matched.bytes - before[0].matched.bytes, 5 * 50);
    assert_eq!(source.read(&id()).unwrap().ingress.generation, 7);
    let fewer = DatapathSpec { filter: Some(rules(Vec::new())), ..spec.clone() };
    assert!(source.rules(&fewer).unwrap().is_empty());
    let other = DatapathSpec {
        filter: Some(rules(vec![driver::testing::rule("one", Action::Deny)])),
        ..spec
    };
    let error = source.rules(&other).unwrap_err();
    assert!(matches!(error, CounterError::Rules { found: 6, expected: 2, .. }), "{error}");
}

/// And how long that takes is told: a system call for each rule, or each CPU, would be seen.
#[test]
fn thousands_of_rules_are_read() {
    let rule = |n: u16| FilterRule {
        sources: vec![format!("10.{}.{}.0/24", n >> 8, n & 0xff).parse().unwrap()],
        ..driver::testing::rule(&format!("r{n}"), Action::Deny)
    };
    let spec = spec(tc(), Some(rules((0..2048).map(rule).collect())));
    let bench = installed(&spec);
    let source = MapCounters::new(bench.bpffs());
    let best = |read: &dyn Fn()| {
        let once = |_| {
            let start = Instant::now();
            read();
            start.elapsed()
        };
        (0..10).map(once).min().unwrap()
    };
    let rules = best(&|| assert_eq!(source.rules(&spec).unwrap().len(), 4096));
    let counters = best(&|| drop(source.read(&id()).unwrap()));
    let memory = best(&|| assert!(source.memory(&id()).unwrap() > 0));
    println!("ring: read 4096 rules in {rules:?}, counters in {counters:?}, memory in {memory:?}");
}

#[test]
fn memory_is_what_the_maps_were_made_for() {
    let memory = |spec: &DatapathSpec| {
        let bench = installed(spec);
        MapCounters::new(bench.bpffs()).memory(&id()).unwrap()
    };
    let (small, large) = (memory(&with_flows(256, 1)), memory(&with_flows(65_536, 1)));
    let cpus = u64::try_from(aya::util::nr_cpus().unwrap()).unwrap();
    let flows = (65_536 - 256) * 64 * cpus;
    println!("{small} bytes with 256 places of flows, {large} with 65536");
    assert!(large - small >= flows && large - small < flows + flows / 8, "{small}, {large}");
}
