//! Real packets through both hooks of an interface in a pod.

use std::thread;
use std::time::{Duration, Instant};

use driver::datapath::{CounterSource as _, Datapath, MapCounters};
use driver::model::{Action, DatapathSpec, DefaultAction, Filter, IngressHook, Protocol, Traffic};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

use super::wire::{Bench, POD_ADDRESSES, WIRE_ADDRESSES, send_scattered};
use super::{both, frames, id, outgoing, protocol, rule, spec, tc, verdict};

/// Denies UDP to port 7001, whoever sends it.
fn no_7001() -> Filter {
    both(DefaultAction::Allow, vec![rule(Action::Deny, &[], Some(Protocol::Udp), &[(7001, 7001)])])
}

fn read(bench: &Bench) -> Traffic {
    MapCounters::new(bench.bpffs()).read(&id()).unwrap()
}

/// Ethernet and UDP headers and the eight bytes that tests send.
const UDP4_BYTES: u64 = 14 + 20 + 8 + 8;
const UDP6_BYTES: u64 = 14 + 40 + 8 + 8;

#[test]
fn packets_are_counted_and_denied_exactly_by_xdp() {
    counted_and_denied(IngressHook::Xdp);
}

#[test]
fn packets_are_counted_and_denied_exactly_by_xdp_with_frags() {
    counted_and_denied(IngressHook::XdpFrags);
}

#[test]
fn packets_are_counted_and_denied_exactly_by_tc() {
    counted_and_denied(tc());
}

fn counted_and_denied(ingress: IngressHook) {
    for (family, bytes) in [(0, UDP4_BYTES), (1, UDP6_BYTES)] {
        let bench = Bench::new(1500);
        let datapath = Datapath::open(bench.bpffs()).unwrap();
        let spec = spec(ingress, Some(no_7001()));
        bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
        bench.move_to_pod_with(&datapath, &spec);
        let heard = Bench::listen(&bench.pod, POD_ADDRESSES[family], 7000);
        let unheard = Bench::listen(&bench.pod, POD_ADDRESSES[family], 7001);
        let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[family], 9000);
        let first = Bench::warm_up(&wire, &heard);
        let before = read(&bench);
        assert_eq!(protocol(&before.ingress, "udp"), first);

        assert_eq!(Bench::exchange(&wire, &heard, 200), 200);
        for _ in 0..100 {
            wire.send_to(&[0; 8], unheard.local_addr().unwrap()).unwrap();
        }
        assert_eq!(Bench::exchange(&heard, &wire, 150), 150);
        unheard.set_nonblocking(true).unwrap();
        assert!(unheard.recv(&mut [0; 16]).is_err(), "{ingress}: a denied packet was delivered");

        let after = read(&bench);
        assert_eq!(verdict(&after.ingress, "denied_rule"), 100, "{ingress}");
        assert_eq!(protocol(&after.ingress, "udp"), first + 300, "{ingress}");
        assert_eq!(protocol(&after.egress, "udp"), 150, "{ingress}");
        let udp_bytes = |traffic: &Traffic| {
            let (_, count) =
                traffic.ingress.protocols.iter().find(|(name, _)| *name == "udp").unwrap();
            count.bytes
        };
        assert_eq!(udp_bytes(&after), (first + 300) * bytes, "{ingress}");
    }
}

/// What the pod sends is filtered too, and its own address is not the peer's.
#[test]
fn what_a_pod_sends_is_filtered_by_destination() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let mut filter = both(DefaultAction::Allow, Vec::new());
    let deny = rule(Action::Deny, &["10.9.0.1/32"], Some(Protocol::Udp), &[(9001, 9999)]);
    filter.egress.as_mut().unwrap().rules.push(outgoing(deny));
    let spec = spec(tc(), Some(filter));
    bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
    bench.move_to_pod_with(&datapath, &spec);
    let pod = Bench::listen(&bench.pod, POD_ADDRESSES[0], 7000);
    let open = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9000);
    let closed = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9500);
    Bench::warm_up(&open, &pod);

    assert_eq!(Bench::exchange(&pod, &open, 20), 20);
    // A locally dropped packet is an error of the sender's, or none: both are the kernel's choice.
    (0..10).for_each(|_| drop(pod.send_to(&[0; 8], closed.local_addr().unwrap())));
    closed.set_nonblocking(true).unwrap();
    assert!(closed.recv(&mut [0; 16]).is_err());
    assert_eq!(verdict(&read(&bench).egress, "denied_rule"), 10);
}

/// Who waits for an answer shall not notice that rules are changed meanwhile, nor that another build
/// of the driver brings other programs.
#[test]
fn answers_pass_after_an_exchange_of_programs() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let mut filter = both(DefaultAction::Deny, Vec::new());
    filter.ingress.as_mut().unwrap().stateful = true;
    filter.egress.as_mut().unwrap().default_action = DefaultAction::Allow;
    let spec = spec(tc(), Some(filter));
    bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
    bench.move_to_pod_with(&datapath, &spec);
    let pod = Bench::listen(&bench.pod, POD_ADDRESSES[0], 7000);
    let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9000);
    let stranger = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9001);
    Bench::warm_up(&pod, &wire);
    assert_eq!(Bench::exchange(&wire, &pod, 10), 10);

    let next = DatapathSpec { generation: spec.generation + 1, ..spec };
    bench.replace_in_pod(&datapath, &next);

    assert_eq!(Bench::exchange(&wire, &pod, 10), 10);
    for _ in 0..10 {
        stranger.send_to(&[0; 8], pod.local_addr().unwrap()).unwrap();
    }
    pod.set_nonblocking(true).unwrap();
    assert!(pod.recv(&mut [0; 16]).is_err(), "a stranger was let in");
    let traffic = read(&bench).ingress;
    // And what IPv6 says of itself on a link that is new.
    assert!(verdict(&traffic, "denied_default") >= 10);
    assert_eq!(traffic.generation, u64::from(next.generation));
}

/// A socket buffer may hold nothing but the link-layer header in its linear part.
#[test]
fn headers_beyond_the_linear_part_are_read_all_the_same() {
    let bench = Bench::new(9000);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let deny = rule(Action::Deny, &["10.0.0.1/32", "fd00::/126"], Some(Protocol::Udp), &[(80, 80)]);
    let spec = spec(tc(), Some(both(DefaultAction::Allow, vec![deny])));
    bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
    bench.move_to_pod_with(&datapath, &spec);
    let pod = Bench::listen(&bench.pod, POD_ADDRESSES[0], 7000);
    let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9000);
    // For some milliseconds the far end does not know that this one is up, and drops all.
    Bench::warm_up(&wire, &pod);

    for (text, padding) in [(frames::UDP4, 5000), (frames::UDP6, 6000), (frames::ICMP4, 7000)] {
        let mut frame = frames::frame(text);
        frame.resize(padding, 0);
        send_scattered(&bench, &frame);
    }
    // The kernel delivers them when it comes to it.
    let arrived = |traffic: &Traffic| protocol(&traffic.ingress, "icmp") == 1;
    let start = Instant::now();
    while !arrived(&read(&bench)) && start.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(1));
    }

    let traffic = read(&bench).ingress;
    assert_eq!(verdict(&traffic, "denied_rule"), 2);
    assert_eq!(verdict(&traffic, "malformed"), 0);
    let (_, denied) = traffic.verdicts[1];
    assert_eq!(denied.bytes, 11_000);
    assert_eq!(protocol(&traffic, "icmp"), 1);
}

#[test]
fn counts_go_on_while_programs_are_replaced_under_load() {
    for ingress in [IngressHook::Xdp, tc()] {
        let bench = Bench::new(1500);
        let datapath = Datapath::open(bench.bpffs()).unwrap();
        let spec = spec(ingress, Some(no_7001()));
        bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
        bench.move_to_pod_with(&datapath, &spec);
        let pod = Bench::listen(&bench.pod, POD_ADDRESSES[0], 7000);
        let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9000);
        let first = Bench::warm_up(&wire, &pod);
        let before = driver::datapath::programs(bench.bpffs(), &id()).unwrap();
        // As after a kill: nothing of the former driver is left but what is pinned.
        drop(datapath);

        let arrived = thread::scope(|scope| {
            let traffic = scope.spawn(|| Bench::exchange(&wire, &pod, 2000));
            let datapath = Datapath::open(bench.bpffs()).unwrap();
            for _ in 0..5 {
                bench.replace_in_pod(&datapath, &spec);
            }
            traffic.join().unwrap()
        });

        let after = driver::datapath::programs(bench.bpffs(), &id()).unwrap();
        assert_eq!(arrived, 2000, "{ingress}");
        assert_eq!(protocol(&read(&bench).ingress, "udp"), first + 2000, "{ingress}");
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.link_id, after.link_id);
            assert_ne!(before.program_id, after.program_id);
            assert!(after.program.as_ref().unwrap().name.starts_with("weir_"));
        }
    }
}

/// What segmentation offload will split is counted as the packets that it becomes.
#[test]
fn segments_are_counted_as_on_the_wire() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let spec = spec(tc(), None);
    bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
    bench.move_to_pod_with(&datapath, &spec);
    let pod = Bench::listen(&bench.pod, POD_ADDRESSES[0], 7000);
    let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9000);
    Bench::warm_up(&wire, &pod);

    setsockopt(&pod, UdpGsoSegment, &1000).unwrap();
    pod.send_to(&[0; 9_500], wire.local_addr().unwrap()).unwrap();

    let arrived = std::iter::from_fn(|| wire.recv(&mut [0; 2000]).ok()).take(10);
    assert_eq!(arrived.collect::<Vec<_>>(), [[1000; 9].as_slice(), &[500]].concat());
    let (_, udp) = read(&bench).egress.protocols[1];
    assert_eq!((udp.packets, udp.bytes), (10, 10 * 42 + 9_500));
}
