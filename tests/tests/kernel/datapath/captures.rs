//! Real traffic, captured in the ring and judged again: by the oracle, by `common` on the host and by
//! the loaded programs.

use std::time::{Duration, Instant};

use common::{Direction, Protocol, TcpEvent};
use driver::model::{
    self, Action, DatapathSpec, DefaultAction, Filter, FilterRule, IngressHook, Telemetry,
};
use driver::policy;
use driver::sys::clock;
use fastrand::Rng;
use tests::oracle::random::{self, Size};
use tests::oracle::{self, Answer, Quiet};

use super::cases::{Case, Packet};
use super::clients;
use super::loaded::Loaded;
use super::pcap::{self, Capture};
use super::wire::Bench;
use super::{both, rule, spec};

#[test]
fn captured_traffic_fares_alike_under_every_filter() {
    let packets = captured();
    for (name, is) in KINDS {
        let count = packets.iter().filter(|(frame, _)| is(frame)).count();
        assert!(count > 0, "no {name} among {} packets", packets.len());
    }
    for (nth, filter) in (0..).zip(filters()) {
        let compiled = policy::compile(&filter, clock::ticks_per_second().unwrap()).unwrap();
        let spec = DatapathSpec {
            telemetry: Telemetry::Flows,
            ..spec(IngressHook::Tcx, Some(filter.clone()))
        };
        let case = Case { nth, filter, compiled };
        let tally = case.agree(&packets, &mut Loaded::exact(&spec));
        assert_eq!(tally.packets, packets.len() as u64);
    }
}

/// What the pod's interface saw while clients of every kind were at work, read from a file as other
/// tools read and write them.
fn captured() -> Vec<Packet> {
    let bench = Bench::new(1500);
    let mut capture = bench.pod.run(Capture::new);
    bench.move_to_pod();
    for client in clients::ALL {
        client(&bench);
        capture.take();
    }
    // Connections are still being ended, and the link's own business goes on.
    let start = Instant::now();
    let is_complete = |capture: &Capture| KINDS.iter().all(|(_, is)| capture.frames().any(is));
    while !is_complete(&capture) && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
        capture.take();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pod.pcap");
    pcap::write(&file, capture.frames()).unwrap();
    let mac = clients::mac(&bench.pod);
    let directed = |frame: Vec<u8>| {
        let is_own = frame[6..12] == mac;
        (frame, if is_own { Direction::Egress } else { Direction::Ingress })
    };
    pcap::read(&file).unwrap().into_iter().map(directed).collect()
}

type Kind = (&'static str, fn(&[u8]) -> bool);

const KINDS: [Kind; 25] = [
    ("SYN in IPv4", |frame| is_v4(frame, 6) && has(frame, TcpEvent::Syn)),
    ("SYN in IPv6", |frame| is_v6(frame, 6) && has(frame, TcpEvent::Syn)),
    ("SYN with ACK", |frame| has(frame, TcpEvent::SynAck)),
    ("FIN", |frame| has(frame, TcpEvent::Fin)),
    ("RST", |frame| has(frame, TcpEvent::Rst)),
    ("UDP in IPv4", |frame| is_v4(frame, 17)),
    ("UDP in IPv6", |frame| is_v6(frame, 17)),
    ("QUIC", |frame| is_udp_to(frame, 443) && frame.len() > 1200),
    ("DNS", |frame| is_udp_to(frame, 53)),
    ("echo request", |frame| is_v4(frame, 1) && frame[34] == 8),
    ("echo reply", |frame| is_v4(frame, 1) && frame[34] == 0),
    ("port unreachable", |frame| is_v4(frame, 1) && frame[34] == 3),
    ("ICMPv6 echo request", |frame| is_v6(frame, 58) && frame[54] == 128),
    ("ICMPv6 echo reply", |frame| is_v6(frame, 58) && frame[54] == 129),
    ("neighbour solicitation", |frame| is_v6(frame, 58) && frame[54] == 135),
    ("neighbour advertisement", |frame| is_v6(frame, 58) && frame[54] == 136),
    ("ARP", |frame| frame[12..14] == [0x08, 0x06]),
    ("hop-by-hop options", |frame| is_v6(frame, 0)),
    ("a routing header", |frame| is_v6(frame, 43)),
    ("a fragment of IPv6", |frame| is_v6(frame, 44) && seen(frame).fragment),
    ("a fragment of IPv4", |frame| is_v4(frame, 17) && seen(frame).fragment),
    ("destination options", |frame| is_v6(frame, 60)),
    ("GRE", |frame| is_v4(frame, 47)),
    ("SCTP", |frame| seen(frame).protocol == Protocol::Sctp),
    ("a VLAN tag", |frame| seen(frame).tagged && seen(frame).protocol == Protocol::Udp),
];

fn seen(frame: &[u8]) -> Answer {
    oracle::answer(frame, None, Direction::Ingress, &mut Quiet)
}

fn has(frame: &[u8], event: TcpEvent) -> bool {
    seen(frame).tcp.contains(&event)
}

/// IPv4 without options, carrying the protocol `number`.
fn is_v4(frame: &[u8], number: u8) -> bool {
    frame.len() >= 42 && frame[12..15] == [0x08, 0x00, 0x45] && frame[23] == number
}

/// IPv6 whose first header has this number.
fn is_v6(frame: &[u8], number: u8) -> bool {
    frame.len() >= 62 && frame[12..14] == [0x86, 0xdd] && frame[20] == number
}

fn is_udp_to(frame: &[u8], port: u16) -> bool {
    let port = port.to_be_bytes();
    is_v4(frame, 17) && frame[36..38] == port || is_v6(frame, 17) && frame[56..58] == port
}

/// None, lists of both kinds about this very traffic, narrow and wide, with and without memory, and
/// random ones.
fn filters() -> Vec<Filter> {
    use model::Protocol::{Icmp, Icmpv6, Sctp, Tcp, Udp};
    let networks = ["10.9.0.1/32", "10.9.0.2/31", "fd09::/126", "10.0.0.0/30"];
    let allow = |protocol, ports: &[(u16, u16)]| rule(Action::Allow, &[], Some(protocol), ports);
    let deny = |protocol, ports: &[(u16, u16)]| rule(Action::Deny, &networks, protocol, ports);
    let list = vec![
        rule(Action::Count, &networks[..1], None, &[]),
        FilterRule { established: true, ..allow(Tcp, &[]) },
        allow(Udp, &[(53, 53), (443, 443)]),
        FilterRule { icmp_types: vec![0, 8], ..allow(Icmp, &[]) },
        allow(Icmpv6, &[]),
        FilterRule { fragment: Some(true), ..rule(Action::Allow, &[], None, &[]) },
    ];
    let denied = vec![
        deny(Some(Udp), &[(53, 53), (9000, 9000)]),
        deny(Some(Tcp), &[(8443, 8443)]),
        deny(Some(Sctp), &[]),
        FilterRule { fragment: Some(true), ..deny(None, &[]) },
    ];
    let mut wide = list.clone();
    wide.extend((0..200).map(|n| rule(Action::Deny, &[&format!("10.9.{n}.0/25")], None, &[])));
    let mut stateful = both(DefaultAction::Deny, vec![allow(Udp, &[]), allow(Icmp, &[])]);
    let mut outgoing = both(DefaultAction::Deny, vec![allow(Tcp, &[]), allow(Icmpv6, &[])]);
    stateful.ingress.as_mut().unwrap().stateful = true;
    outgoing.egress.as_mut().unwrap().stateful = true;
    outgoing.ingress.clone_from(&stateful.ingress);
    let mut filters = vec![
        Filter::default(),
        both(DefaultAction::Deny, Vec::new()),
        both(DefaultAction::Deny, list),
        both(DefaultAction::Allow, denied),
        both(DefaultAction::Deny, wide),
        stateful,
        outgoing,
    ];
    let mut rng = Rng::with_seed(random::seed());
    filters.extend((0..8).map(|n| random::filter(&mut rng, Size(8 * n))));
    filters
}
