//! What filters can do beyond networks, protocols and ports, by the programs as they are loaded.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::PerCpuArray;
use common::{Count, Direction, Verdict, names};
use driver::datapath::{CounterSource as _, Datapath, MapCounters};
use driver::model::{
    Action, DefaultAction, DirectionFilter, Filter, FilterRule, Protocol, Rate, RateLimit,
};
use etherparse::{PacketBuilder, TcpHeader};

use super::frames::{self, frame};
use super::programs::{counters, load, run};
use super::wire::{Bench, POD_ADDRESSES, WIRE_ADDRESSES};
use super::{both, id, outgoing, rule, spec, tc, verdict};

const INGRESS: [&str; 3] = [names::XDP, names::XDP_FRAGS, names::INGRESS];
const PEER: [&str; 2] = ["10.0.0.1", "fd00::1"];
const POD: [&str; 2] = ["10.0.0.2", "fd00::2"];

/// How many rules that match nothing stand in front: with a hundred a filter is wide.
const FILLERS: [usize; 2] = [0, 100];

fn fillers(count: usize) -> impl Iterator<Item = FilterRule> {
    (0..count).map(|n| rule(Action::Deny, &[&format!("172.16.{n}.0/24")], None, &[]))
}

fn named(name: &str, rule: FilterRule) -> FilterRule {
    FilterRule { name: name.to_owned(), ..rule }
}

fn loaded(ingress: Option<DirectionFilter>, egress: Option<DirectionFilter>) -> Ebpf {
    load(&spec(tc(), Some(Filter { ingress, egress })))
}

fn stateful(rules: Vec<FilterRule>) -> DirectionFilter {
    DirectionFilter { default_action: DefaultAction::Deny, stateful: true, rules }
}

fn passes(ebpf: &Ebpf, program: &str, packet: &[u8]) -> bool {
    let (answer, _) = run(ebpf, program, packet, 1);
    let (pass, drop) = if program.starts_with(names::XDP) { (2, 1) } else { (u32::MAX, 2) };
    assert!([pass, drop].contains(&answer), "{program}: {answer}");
    answer == pass
}

fn packets(ebpf: &Ebpf, direction: Direction, verdict: Verdict) -> u64 {
    counters(ebpf, direction).of_verdict(verdict).packets
}

/// What rule `n` has matched, those of ingress first.
fn hits(ebpf: &Ebpf, n: usize) -> u64 {
    let map = PerCpuArray::<_, Count>::try_from(ebpf.map(names::HITS).unwrap()).unwrap();
    let cpus = map.get(&u32::try_from(n).unwrap(), 0).unwrap();
    cpus.iter().map(|count| count.packets).sum()
}

/// The transport header of a packet.
#[derive(Clone, Copy)]
enum Header {
    Udp,
    Tcp(&'static str),
    /// The number of the conversation is that of the port.
    Echo,
    EchoReply,
}

fn packet(header: Header, from: (&str, u16), to: (&str, u16), payload: usize) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let ip = match (from.0.parse().unwrap(), to.0.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{from:?} and {to:?} are of two families"),
    };
    let (payload, mut packet) = (vec![0; payload], Vec::new());
    match header {
        Header::Udp => ip.udp(from.1, to.1).write(&mut packet, &payload),
        Header::Tcp(flags) => {
            let mut tcp = TcpHeader::new(from.1, to.1, 1, 1000);
            (tcp.syn, tcp.ack) = (flags.contains('S'), flags.contains('A'));
            (tcp.fin, tcp.rst) = (flags.contains('F'), flags.contains('R'));
            ip.tcp_header(tcp).write(&mut packet, &payload)
        }
        Header::Echo => ip.icmpv4_echo_request(to.1, 1).write(&mut packet, &payload),
        Header::EchoReply => ip.icmpv4_echo_reply(from.1, 1).write(&mut packet, &payload),
    }
    .unwrap();
    packet.resize(packet.len().max(60), 0);
    packet
}

/// What opens a conversation and what answers it; only the family and the headers differ.
const CONVERSATIONS: [(&str, usize, Header, Header); 4] = [
    ("UDP", 0, Header::Udp, Header::Udp),
    ("UDP in IPv6", 1, Header::Udp, Header::Udp),
    ("TCP", 0, Header::Tcp("S"), Header::Tcp("SA")),
    ("echo", 0, Header::Echo, Header::EchoReply),
];

#[test]
fn answers_are_let_in_and_strangers_are_not() {
    for (count, program) in FILLERS.into_iter().flat_map(|count| INGRESS.map(|it| (count, it))) {
        let ebpf = loaded(Some(stateful(fillers(count).collect())), None);
        for (what, family, open, answer) in CONVERSATIONS {
            let (pod, peer) = ((POD[family], 4000), (PEER[family], 53));
            let stranger = if family == 0 { "10.0.0.3" } else { "fd00::3" };
            let answer_from = |peer| packet(answer, peer, pod, 20);
            assert!(!passes(&ebpf, program, &answer_from(peer)), "{what}: nobody has asked");

            assert!(passes(&ebpf, names::EGRESS, &packet(open, pod, peer, 20)), "{what}");

            let before = counters(&ebpf, Direction::Ingress).replies;
            assert!(passes(&ebpf, program, &answer_from(peer)), "{what} at {program}, {count}");
            assert_eq!(counters(&ebpf, Direction::Ingress).replies, before + 1, "{what}");
            assert!(!passes(&ebpf, program, &answer_from((stranger, 53))), "{what}: a stranger");
            assert!(!passes(&ebpf, program, &answer_from((peer.0, 54))), "{what}: another port");
        }
        let conversations = CONVERSATIONS.len() as u64;
        assert_eq!(packets(&ebpf, Direction::Ingress, Verdict::Allowed), conversations);
        assert_eq!(packets(&ebpf, Direction::Ingress, Verdict::DeniedByDefault), 3 * conversations);
    }
}

#[test]
fn what_opens_no_conversation_lets_nothing_in() {
    let ebpf = loaded(Some(stateful(Vec::new())), None);
    let (pod, peer) = ((POD[0], 4000), (PEER[0], 443));
    for flags in ["R", "RA", "SA"] {
        assert!(passes(&ebpf, names::EGRESS, &packet(Header::Tcp(flags), pod, peer, 0)));
        let answer = packet(Header::Tcp("A"), peer, pod, 0);
        assert!(!passes(&ebpf, names::INGRESS, &answer), "{flags}");
    }
    assert!(passes(&ebpf, names::EGRESS, &frame(frames::LATER_FRAGMENT)));
    assert!(!passes(&ebpf, names::INGRESS, &frame(frames::LATER_FRAGMENT)));
}

/// So whoever runs the node can cut what is going on.
#[test]
fn a_rule_comes_before_being_an_answer() {
    for count in FILLERS {
        let mut rules: Vec<_> = fillers(count).collect();
        rules.push(rule(Action::Deny, &["10.0.0.1/32"], None, &[]));
        let ebpf = loaded(None, Some(stateful(rules.into_iter().map(outgoing).collect())));
        for (peer, is_let_out) in [("10.0.0.1", false), ("10.0.0.3", true)] {
            let (pod, peer) = ((POD[0], 80), (peer, 4000));
            assert!(passes(&ebpf, names::XDP, &packet(Header::Udp, peer, pod, 0)));
            let answer = packet(Header::Udp, pod, peer, 0);
            assert_eq!(passes(&ebpf, names::EGRESS, &answer), is_let_out, "{peer:?}");
        }
        assert_eq!(packets(&ebpf, Direction::Egress, Verdict::DeniedByRule), 1);
    }
}

fn limited(rate: Rate, burst: u64) -> FilterRule {
    let limit = Action::RateLimit(RateLimit { rate, burst });
    rule(limit, &["10.0.0.0/24"], Some(Protocol::Udp), &[])
}

/// Runs the programs of both directions a hundred times each, and has as much pass as the burst says.
/// What the rate adds meanwhile, at most a packet in a second, is nothing unless something holds us up.
fn only_the_burst_passes(rule: &FilterRule, count: usize, packet: &[u8], burst: u64) {
    let rules: Vec<_> = fillers(count).chain([rule.clone()]).collect();
    let ebpf = load(&spec(tc(), Some(both(DefaultAction::Deny, rules))));
    let start = Instant::now();
    for program in [names::XDP, names::EGRESS] {
        run(&ebpf, program, packet, 100);
    }
    let more = (start.elapsed() + Duration::from_millis(500)).as_secs();
    for direction in Direction::ALL {
        let of = |verdict| packets(&ebpf, direction, verdict);
        let (passed, denied) = (of(Verdict::Allowed), of(Verdict::DeniedByRate));
        let range = burst..=burst + more;
        assert!(range.contains(&passed), "{count}: {passed} is not in {range:?}");
        let matched = hits(&ebpf, direction as usize * (count + 1) + count);
        assert_eq!((passed + denied, matched), (100, 100), "{count}");
    }
}

#[test]
fn exactly_the_burst_passes_at_once() {
    for count in FILLERS {
        let ten = limited(Rate::PacketsPerSecond(1), 10);
        let both_ways = packet(Header::Udp, ("10.0.0.1", 1), ("10.0.0.2", 2), 18);
        only_the_burst_passes(&ten, count, &both_ways, 10);

        // 10,500 bytes: what begins within them passes.
        let bits = limited(Rate::BitsPerSecond(1000), 84_000);
        let thousand_bytes = packet(Header::Udp, ("10.0.0.1", 1), ("10.0.0.2", 2), 1000 - 42);
        only_the_burst_passes(&bits, count, &thousand_bytes, 11);
    }
}

#[test]
fn after_the_burst_as_much_passes_as_the_rate_says() {
    const RATE: u64 = 1000;
    // The clock of the programs ticks at least a hundred times a second.
    const TICK: Duration = Duration::from_millis(10);
    let packets_in = |time: Duration| u64::try_from(time.as_millis()).unwrap() * RATE / 1000;
    let rule = limited(Rate::PacketsPerSecond(RATE), RATE);
    let ebpf = load(&spec(tc(), Some(both(DefaultAction::Deny, vec![rule]))));
    let packet = packet(Header::Udp, ("10.0.0.1", 1), ("10.0.0.2", 2), 18);
    let exhaust = || {
        while passes(&ebpf, names::INGRESS, &packet) {
            run(&ebpf, names::INGRESS, &packet, 500);
        }
        Instant::now()
    };
    let start = Instant::now();
    let (mut last, mut owed) = (exhaust(), Duration::ZERO);
    while start.elapsed() < Duration::from_millis(300) {
        let now = exhaust();
        // From nothing no more than the burst gathers while somebody holds us up.
        owed += (now - last).min(Duration::from_millis(900));
        last = now;
    }
    let passed = packets(&ebpf, Direction::Ingress, Verdict::Allowed);
    let most = RATE + packets_in(start.elapsed() + 2 * TICK) + 1;
    let at_least = RATE + packets_in(owed.saturating_sub(2 * TICK)) - 1;
    assert!((at_least..=most).contains(&passed), "{passed} is not in {at_least} to {most}");
    assert!(packets(&ebpf, Direction::Ingress, Verdict::DeniedByRate) > 0);
}

#[test]
fn a_rule_that_counts_leaves_the_decision_to_those_behind_it() {
    for count in FILLERS {
        let udp = Some(Protocol::Udp);
        let rules = [
            named("all", rule(Action::Count, &[], None, &[])),
            named("net", rule(Action::Count, &["10.0.0.0/8"], udp, &[])),
            named("other", rule(Action::Count, &["fd00::/8"], udp, &[])),
            named("no-80", rule(Action::Deny, &[], udp, &[(80, 80)])),
            named("rest", rule(Action::Count, &[], None, &[])),
        ];
        let rules = fillers(count).chain(rules).collect();
        let ebpf = load(&spec(tc(), Some(both(DefaultAction::Allow, rules))));
        let matched = || [0, 1, 2, 3, 4].map(|n| hits(&ebpf, count + n));
        let to = |port| packet(Header::Udp, (PEER[0], 1), (POD[0], port), 0);

        assert!(!passes(&ebpf, names::XDP, &to(80)));
        assert_eq!(matched(), [1, 1, 0, 1, 0], "what is behind the decision is not asked");
        assert!(passes(&ebpf, names::XDP, &to(81)));
        assert_eq!(matched(), [2, 2, 0, 1, 1]);
        assert!(passes(&ebpf, names::INGRESS, &frame(frames::TCP4_WITH_OPTIONS)));
        assert_eq!(matched(), [3, 2, 0, 1, 2]);
    }
}

/// Rule `n` of 4096: one half is about IPv4 networks, the other about IPv6; every other allows.
fn one_of_many(n: u16) -> FilterRule {
    let (action, port) =
        (if n.is_multiple_of(2) { Action::Allow } else { Action::Deny }, 1000 + n % 2048);
    let network = match n {
        0..2048 => format!("10.{}.{}.0/24", n / 256, n % 256),
        _ => format!("fd00:0:0:{n:x}::/64"),
    };
    rule(action, &[&network], Some(Protocol::Udp), &[(port, port)])
}

#[test]
fn each_of_4096_rules_of_both_families_decides_about_its_own() {
    let rules = (0..4096).map(one_of_many).collect();
    let ebpf = load(&spec(tc(), Some(both(DefaultAction::Deny, rules))));
    for n in [0_u16, 1, 63, 64, 65, 127, 128, 1000, 2047, 2048, 2049, 2111, 2112, 4031, 4032, 4095]
    {
        let (peer, pod) = match n {
            0..2048 => (format!("10.{}.{}.7", n / 256, n % 256), POD[0]),
            _ => (format!("fd00:0:0:{n:x}::7"), POD[1]),
        };
        let port = 1000 + n % 2048;
        for (nth, program) in (1..).zip(INGRESS) {
            let before = packets(&ebpf, Direction::Ingress, Verdict::DeniedByDefault);
            let to = |port| packet(Header::Udp, (&peer, 9), (pod, port), 0);
            assert_eq!(passes(&ebpf, program, &to(port)), n % 2 == 0, "{program}: {n}");
            assert_eq!(hits(&ebpf, n.into()), nth, "{program}: {n}");
            assert!(!passes(&ebpf, program, &to(port + 1)), "{program}: {n}, the port beside");
            let by_default = packets(&ebpf, Direction::Ingress, Verdict::DeniedByDefault);
            assert_eq!(by_default, before + 1, "{program}: {n}");
        }
        let out = packet(Header::Udp, (pod, 9), (&peer, port), 0);
        assert_eq!(passes(&ebpf, names::EGRESS, &out), n % 2 == 0, "out: {n}");
        assert_eq!(hits(&ebpf, 4096 + usize::from(n)), 1, "out: {n}");
    }
}

#[test]
fn fragments_and_established_connections_can_be_told_apart() {
    for count in FILLERS {
        let any = rule(Action::Deny, &[], None, &[]);
        let rules = [
            FilterRule { fragment: Some(true), ..named("fragments", any.clone()) },
            FilterRule {
                established: true,
                protocol: Some(Protocol::Tcp),
                action: Action::Allow,
                ..named("established", any.clone())
            },
            FilterRule {
                fragment: Some(false),
                protocol: Some(Protocol::Udp),
                action: Action::Allow,
                ..named("whole", any)
            },
        ];
        let rules = fillers(count).chain(rules).collect();
        let ebpf = load(&spec(tc(), Some(both(DefaultAction::Deny, rules))));
        let tcp = |flags| packet(Header::Tcp(flags), (PEER[0], 443), (POD[0], 4000), 0);
        for program in INGRESS {
            for (what, packet, pass) in [
                ("first fragment", frame(frames::FIRST_FRAGMENT), false),
                ("later fragment", frame(frames::LATER_FRAGMENT), false),
                ("later IPv6 fragment", frame(frames::LATER_FRAGMENT6), false),
                ("whole UDP", frame(frames::UDP4), true),
                ("whole UDP in IPv6", frame(frames::UDP6), true),
                ("SYN", tcp("S"), false),
                ("SYN with ACK", tcp("SA"), true),
                ("ACK", tcp("A"), true),
                ("RST alone", tcp("R"), false),
            ] {
                assert_eq!(passes(&ebpf, program, &packet), pass, "{program}, {count}: {what}");
            }
        }
        let of = |verdict| packets(&ebpf, Direction::Ingress, verdict);
        let seen = [Verdict::DeniedByRule, Verdict::DeniedByDefault, Verdict::Allowed].map(of);
        assert_eq!(seen, [9, 6, 12]);
    }
}

/// By the kernel's own packets, in a pod that lets nothing in but answers.
#[test]
fn a_pod_that_lets_in_answers_only_can_call_and_cannot_be_called() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let filter = Filter { ingress: Some(stateful(Vec::new())), egress: None };
    let spec = spec(tc(), Some(filter));
    bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
    bench.move_to_pod_with(&datapath, &spec);
    let [pod, _] = POD_ADDRESSES;
    let [far, _] = WIRE_ADDRESSES;
    let inside = Bench::listen(&bench.pod, pod, 7000);
    let asked = Bench::listen(&bench.wire, far, 53);
    let stranger = Bench::listen(&bench.wire, far, 54);
    Bench::warm_up(&inside, &asked);
    assert_eq!(Bench::exchange(&asked, &inside, 50), 50);
    (0..10).for_each(|_| drop(stranger.send_to(&[0; 8], inside.local_addr().unwrap())));
    inside.set_nonblocking(true).unwrap();
    assert!(inside.recv(&mut [0; 16]).is_err(), "nobody has asked that one");

    let listener = bench.wire.run(|| TcpListener::bind((far, 80)).unwrap());
    let call = bench.pod.run(|| TcpStream::connect((far, 80)).unwrap());
    let (answering, _) = listener.accept().unwrap();
    for (from, to) in [(&call, &answering), (&answering, &call)] {
        std::io::Write::write_all(&mut &*from, b"hello").unwrap();
        let mut heard = [0; 5];
        std::io::Read::read_exact(&mut &*to, &mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }
    let closed = bench.pod.run(|| TcpListener::bind((pod, 80)).unwrap());
    let to = closed.local_addr().unwrap();
    let called = bench.wire.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)));
    assert!(called.is_err(), "a call from outside came through");

    let traffic = MapCounters::new(bench.bpffs()).read(&id()).unwrap().ingress;
    // At least a SYN with ACK, an ACK and data came in answer to the call.
    assert!(traffic.replies >= 53, "{traffic:?}");
    assert!(verdict(&traffic, "denied_default") >= 11, "{traffic:?}");
}
