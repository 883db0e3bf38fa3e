//! What is told of packets that are dropped, where that is asked for, and what it costs where not.

use common::{Direction, Verdict};
use driver::datapath::{Datapath, Drops, HookFacts, programs};
use driver::model::{Action, DatapathSpec, DefaultAction, Ends, Flow, IngressHook, Protocol};

use super::wire::{Bench, POD_ADDRESSES, WIRE_ADDRESSES};
use super::{both, id, rule, spec, tc};

const SHUT: u16 = 7000;
const OPEN: u16 = 7001;

/// Lets no UDP to one port in.
fn shut(ingress: IngressHook) -> DatapathSpec {
    let deny = rule(Action::Deny, &[], Some(Protocol::Udp), &[(SHUT, SHUT)]);
    spec(ingress, Some(both(DefaultAction::Allow, vec![deny])))
}

fn installed(datapath: impl FnOnce(Datapath) -> Datapath, spec: &DatapathSpec) -> Bench {
    let bench = Bench::new(1500);
    let datapath = datapath(Datapath::open(bench.bpffs()).unwrap());
    bench.host.run(|| datapath.install(spec, &Bench::nic()).unwrap());
    bench.move_to_pod_with(&datapath, spec);
    bench
}

/// Sends `count` packets that are dropped, and one after them that is not, so that they were seen.
/// Answers the port that they come from.
fn knock(bench: &Bench, family: usize, count: usize) -> u16 {
    let (pod, wire) = (POD_ADDRESSES[family], WIRE_ADDRESSES[family]);
    let open = Bench::listen(&bench.pod, pod, OPEN);
    let client = Bench::listen(&bench.wire, wire, 0);
    Bench::warm_up(&client, &open);
    for _ in 0..count {
        client.send_to(&[0; 20], (pod, SHUT)).unwrap();
    }
    assert_eq!(Bench::exchange(&client, &open, 1), 1);
    client.local_addr().unwrap().port()
}

fn drops(bench: &Bench) -> Drops {
    Drops::open(bench.bpffs(), &id()).unwrap().unwrap()
}

#[test]
fn each_packet_that_is_dropped_is_told_with_its_verdict_and_its_ends() {
    for ingress in [tc(), IngressHook::Xdp] {
        let bench = installed(Datapath::logging_drops, &shut(ingress));
        for (family, header) in [20, 40].into_iter().enumerate() {
            let mut drops = drops(&bench);
            let source_port = knock(&bench, family, 3);
            let told = drops.take();
            let [Flow { seen, .. }, ..] = &told[..] else { panic!("nothing is told") };
            assert_eq!(told.len(), 3, "{told:?}");
            assert_eq!((seen.packets, seen.bytes), (1, 14 + header + 8 + 20));
            for flow in &told {
                assert_eq!(flow.direction, Direction::Ingress.name());
                assert_eq!((flow.verdict, flow.protocol), (Verdict::DeniedByRule.name(), "udp"));
                let [from, to] = [WIRE_ADDRESSES[family], POD_ADDRESSES[family]];
                assert_eq!(flow.source, from.parse::<std::net::IpAddr>().unwrap());
                assert_eq!(flow.destination, to.parse::<std::net::IpAddr>().unwrap());
                assert_eq!(flow.ends, Ends::Ports { source_port, destination_port: SHUT });
            }
            assert!(drops.take().is_empty(), "each is told once");
        }
    }
}

/// A driver that starts finds what was told while there was none, and goes on where the other ended.
#[test]
fn another_reader_goes_on_and_other_programs_are_noticed() {
    let spec = shut(tc());
    let bench = installed(Datapath::logging_drops, &spec);
    let mut first = drops(&bench);
    knock(&bench, 0, 2);
    assert_eq!(first.take().len(), 2);
    drop(first);
    knock(&bench, 0, 4);
    let mut second = drops(&bench);
    assert_eq!(second.take().len(), 4);

    assert!(!second.is_over(bench.bpffs(), &id()));
    knock(&bench, 0, 1);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    assert_ne!(
        datapath.attaches(),
        Datapath::open(bench.bpffs()).unwrap().logging_drops().attaches()
    );
    bench.replace_in_pod(&datapath, &spec);
    assert!(second.is_over(bench.bpffs(), &id()));
    assert_eq!(second.take().len(), 1, "of the former programs");
    knock(&bench, 0, 1);
    assert!(second.take().is_empty() && drops(&bench).take().is_empty(), "these tell nothing");
    datapath.remove(&id()).unwrap();
    assert!(second.is_over(bench.bpffs(), &id()));
    assert!(Drops::open(bench.bpffs(), &id()).unwrap().is_none());
}

/// Bytes of instructions that the verifier left of each program.
fn sizes(bench: &Bench) -> Vec<u32> {
    let size = |hook: HookFacts| hook.program.unwrap().translated_bytes.unwrap();
    programs(bench.bpffs(), &id()).unwrap().into_iter().map(size).collect()
}

/// More than two thousand bytes build a record. Neither is there where nobody reads it, nor where
/// there is no filter, so that nothing is dropped.
#[test]
fn the_log_is_in_no_program_that_does_not_need_it() {
    let silent = installed(|it| it, &shut(IngressHook::Xdp));
    knock(&silent, 0, 3);
    assert!(drops(&silent).take().is_empty());
    let logging = installed(Datapath::logging_drops, &shut(IngressHook::Xdp));
    for (silent, logging) in sizes(&silent).into_iter().zip(sizes(&logging)) {
        assert!(silent + 2000 < logging, "{silent} {logging}");
    }
    let unfiltered = spec(IngressHook::Xdp, None);
    let silent = installed(|it| it, &unfiltered);
    let logging = installed(Datapath::logging_drops, &unfiltered);
    assert_eq!(sizes(&silent), sizes(&logging));
}
