//! Each program, loaded, on literal packets.

use aya::maps::PerCpuArray;
use aya::programs::{Program, TestRun as _, TestRunOptions};
use aya::{Ebpf, Pod};
use common::{Counters, Direction, Protocol, Verdict, names};
use driver::datapath::load_for_test;
use driver::model::{Action, DatapathSpec, DefaultAction, IngressHook, Telemetry};

use super::frames::{self, frame, short_frame};
use super::{both, rule, spec, tc};

/// A program, what it answers for "pass" and for "drop", and its direction.
const PROGRAMS: [(&str, u32, u32, Direction); 4] = [
    (names::XDP, 2, 1, Direction::Ingress),
    (names::XDP_FRAGS, 2, 1, Direction::Ingress),
    // TCX_NEXT is -1.
    (names::INGRESS, u32::MAX, 2, Direction::Ingress),
    (names::EGRESS, u32::MAX, 2, Direction::Egress),
];

pub(super) fn load(spec: &DatapathSpec) -> Ebpf {
    let mut ebpf = load_for_test(spec).unwrap();
    for (_, program) in ebpf.programs_mut() {
        match program {
            Program::Xdp(program) => program.load().unwrap(),
            Program::SchedClassifier(program) => program.load().unwrap(),
            other => panic!("unexpected program {other:?}"),
        }
    }
    ebpf
}

pub(super) fn run(ebpf: &Ebpf, program: &str, packet: &[u8], repeat: u32) -> (u32, u128) {
    let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::new() };
    let result = match ebpf.program(program).unwrap() {
        Program::Xdp(program) => program.test_run(options),
        Program::SchedClassifier(program) => program.test_run(options),
        other => panic!("unexpected program {other:?}"),
    }
    .unwrap();
    (result.return_value, result.duration.as_nanos())
}

pub(super) fn counters(ebpf: &Ebpf, direction: Direction) -> Counters {
    fn is_pod<T: Pod>() {}
    is_pod::<Counters>();
    let map = PerCpuArray::<_, Counters>::try_from(ebpf.map(names::COUNTERS).unwrap()).unwrap();
    let mut sum = Counters::default();
    for cpu in map.get(&(direction as u32), 0).unwrap().iter() {
        sum.merge(cpu);
    }
    sum
}

/// Runs every program on `packet` and checks what it answered and what it counted.
fn check(ebpf: &Ebpf, what: &str, packet: &[u8], pass: bool, verdict: Verdict, protocol: Protocol) {
    for (program, passed, dropped, direction) in PROGRAMS {
        let before = counters(ebpf, direction);

        let (answer, _) = run(ebpf, program, packet, 1);

        let mut expected = before;
        expected.count(verdict, protocol, 1, packet.len() as u64);
        assert_eq!(answer, if pass { passed } else { dropped }, "{program}: {what}");
        let counted = counters(ebpf, direction);
        assert_eq!(counted.traffic, expected.traffic, "{program}: {what}");
        let sizes = |counters: &Counters| counters.sizes.iter().sum::<u64>();
        assert_eq!(sizes(&counted), sizes(&before) + 1, "{program}: {what}");
    }
}

/// Without a filter everything passes, and is counted as what it is.
#[test]
fn without_a_filter_all_is_counted_and_passes() {
    use Protocol::{Arp, Icmp, Icmpv6, NotIp, OtherIp, Tcp, Udp};
    use Verdict::{Allowed, Malformed};
    let ebpf = load(&spec(tc(), None));
    for (what, text, verdict, protocol) in [
        ("UDP", frames::UDP4, Allowed, Udp),
        ("UDP under two tags", frames::UDP4_IN_QINQ, Allowed, Udp),
        ("UDP under three tags", frames::UDP4_IN_THREE_TAGS, Allowed, NotIp),
        ("TCP behind options", frames::TCP4_WITH_OPTIONS, Allowed, Tcp),
        ("ICMP", frames::ICMP4, Allowed, Icmp),
        ("first fragment", frames::FIRST_FRAGMENT, Allowed, Udp),
        ("later fragment", frames::LATER_FRAGMENT, Allowed, Udp),
        ("cut off in UDP", frames::CUT_OFF, Malformed, Udp),
        ("too long", frames::TOO_LONG, Malformed, OtherIp),
        ("UDP in IPv6", frames::UDP6, Allowed, Udp),
        ("TCP behind extensions", frames::TCP6_BEHIND_EXTENSIONS, Allowed, Tcp),
        ("atomic fragment", frames::ATOMIC_FRAGMENT6, Allowed, Udp),
        ("later IPv6 fragment", frames::LATER_FRAGMENT6, Allowed, Udp),
        ("too many extensions", frames::TOO_MANY_EXTENSIONS, Allowed, OtherIp),
        ("neighbour solicitation", frames::NEIGHBOUR_SOLICITATION, Allowed, Icmpv6),
        ("ARP", frames::ARP, Allowed, Arp),
        ("LLDP", frames::NOT_IP, Allowed, NotIp),
    ] {
        check(&ebpf, what, &frame(text), true, verdict, protocol);
    }
    // Too short for the kernel to make a socket buffer of it, but not for XDP.
    let stump = short_frame("0800 45 00 00 20 00 01");
    let mut expected = counters(&ebpf, Direction::Ingress);
    expected.count(Malformed, OtherIp, 1, stump.len() as u64);
    assert_eq!(run(&ebpf, names::XDP, &stump, 1).0, 2);
    assert_eq!(counters(&ebpf, Direction::Ingress).traffic, expected.traffic);
}

/// An allow list: what it surely covers passes, and what the interface needs to live.
#[test]
fn under_default_deny_only_what_is_surely_allowed_passes() {
    use Protocol::{Arp, Icmp, Icmpv6, NotIp, OtherIp, Tcp, Udp};
    use Verdict::{Allowed, DeniedByDefault, Malformed};
    let allow = |cidrs: &[&str], port| {
        rule(Action::Allow, cidrs, Some(driver::model::Protocol::Udp), &[(port, port)])
    };
    let filter = both(
        DefaultAction::Deny,
        vec![allow(&["10.0.0.0/30", "fd00::/126"], 80), allow(&["192.0.2.0/24"], 53)],
    );
    let ebpf = load(&spec(tc(), Some(filter)));
    for (what, text, pass, verdict, protocol) in [
        ("UDP", frames::UDP4, true, Allowed, Udp),
        ("UDP under two tags", frames::UDP4_IN_QINQ, true, Allowed, Udp),
        ("UDP under three tags", frames::UDP4_IN_THREE_TAGS, false, DeniedByDefault, NotIp),
        ("TCP", frames::TCP4_WITH_OPTIONS, false, DeniedByDefault, Tcp),
        ("ICMP", frames::ICMP4, false, DeniedByDefault, Icmp),
        ("first fragment", frames::FIRST_FRAGMENT, true, Allowed, Udp),
        ("later fragment", frames::LATER_FRAGMENT, false, DeniedByDefault, Udp),
        ("cut off in UDP", frames::CUT_OFF, false, Malformed, Udp),
        ("too long", frames::TOO_LONG, false, Malformed, OtherIp),
        ("UDP in IPv6", frames::UDP6, true, Allowed, Udp),
        ("too many extensions", frames::TOO_MANY_EXTENSIONS, false, DeniedByDefault, OtherIp),
        ("neighbour solicitation", frames::NEIGHBOUR_SOLICITATION, true, Allowed, Icmpv6),
        ("far solicitation", frames::FAR_SOLICITATION, false, DeniedByDefault, Icmpv6),
        ("ARP", frames::ARP, true, Allowed, Arp),
        ("LLDP", frames::NOT_IP, true, Allowed, NotIp),
    ] {
        check(&ebpf, what, &frame(text), pass, verdict, protocol);
    }
}

/// A deny list: what it may cover does not pass.
#[test]
fn under_default_allow_nothing_slips_past_a_deny_rule() {
    use Protocol::{Icmp, NotIp, OtherIp, Tcp, Udp};
    use Verdict::{Allowed, DeniedByRule, Malformed};
    let deny = rule(
        Action::Deny,
        &["10.0.0.0/30", "fd00::/126"],
        Some(driver::model::Protocol::Udp),
        &[(79, 81)],
    );
    let ebpf = load(&spec(tc(), Some(both(DefaultAction::Allow, vec![deny]))));
    for (what, text, pass, verdict, protocol) in [
        ("UDP", frames::UDP4, false, DeniedByRule, Udp),
        ("UDP under two tags", frames::UDP4_IN_QINQ, false, DeniedByRule, Udp),
        ("UDP under three tags", frames::UDP4_IN_THREE_TAGS, false, DeniedByRule, NotIp),
        ("TCP", frames::TCP4_WITH_OPTIONS, true, Allowed, Tcp),
        ("ICMP", frames::ICMP4, true, Allowed, Icmp),
        ("first fragment", frames::FIRST_FRAGMENT, false, DeniedByRule, Udp),
        ("later fragment", frames::LATER_FRAGMENT, true, Allowed, Udp),
        ("cut off in UDP", frames::CUT_OFF, false, Malformed, Udp),
        ("UDP in IPv6", frames::UDP6, false, DeniedByRule, Udp),
        ("TCP behind extensions", frames::TCP6_BEHIND_EXTENSIONS, true, Allowed, Tcp),
        ("atomic fragment", frames::ATOMIC_FRAGMENT6, false, DeniedByRule, Udp),
        ("later IPv6 fragment", frames::LATER_FRAGMENT6, true, Allowed, Udp),
        ("too many extensions", frames::TOO_MANY_EXTENSIONS, false, DeniedByRule, OtherIp),
    ] {
        check(&ebpf, what, &frame(text), pass, verdict, protocol);
    }
}

/// Rules count in order, up to the last of 64.
#[test]
fn the_last_of_sixty_four_rules_still_decides() {
    let mut rules: Vec<_> =
        (0..63).map(|n| rule(Action::Deny, &[&format!("10.1.{n}.0/24")], None, &[])).collect();
    rules.push(rule(Action::Allow, &["10.0.0.0/24"], None, &[]));
    let ebpf = load(&spec(tc(), Some(both(DefaultAction::Deny, rules))));

    check(&ebpf, "UDP", &frame(frames::UDP4), true, Verdict::Allowed, Protocol::Udp);
    let verdict = Verdict::DeniedByDefault;
    check(&ebpf, "UDP in IPv6", &frame(frames::UDP6), false, verdict, Protocol::Udp);
}

/// With frags a packet lies in several buffers; its headers are in the first, its length is not.
#[test]
fn a_packet_in_several_buffers_is_counted_in_full() {
    let ebpf = load(&spec(IngressHook::XdpFrags, None));
    let mut packet = frame(
        "0800 45 00 1f 40  00 01 00 00  40 11 00 00  0a 00 00 01  0a 00 00 02
         12 34 00 50  1f 2c 00 00",
    );
    packet.resize(14 + 8000, 0);

    let (answer, _) = run(&ebpf, names::XDP_FRAGS, &packet, 1);

    let counted = counters(&ebpf, Direction::Ingress);
    assert_eq!(answer, 2);
    assert_eq!(counted.of_verdict(Verdict::Allowed).bytes, 8014);
    assert_eq!(counted.of_protocol(Protocol::Udp).packets, 1);
}

/// The first buffer may end inside the headers, though no NIC is known to do that.
#[test]
fn headers_beyond_the_first_buffer_are_read_all_the_same() {
    let deny = rule(Action::Deny, &["fd00::/126"], Some(driver::model::Protocol::Udp), &[(80, 80)]);
    let ebpf = load(&spec(IngressHook::XdpFrags, Some(both(DefaultAction::Allow, vec![deny]))));
    let mut packet = frame(frames::UDP6);
    packet.resize(1000, 0);
    let Program::Xdp(program) = ebpf.program(names::XDP_FRAGS).unwrap() else { panic!() };
    for first_buffer in [14_u32, 30, 54, 60, 999] {
        // `struct xdp_md`: where data begins and ends; the rest follows behind.
        let context: Vec<u8> =
            [0, first_buffer, 0, 0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let options = TestRunOptions {
            data_in: Some(&packet),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        assert_eq!(program.test_run(options).unwrap().return_value, 1, "{first_buffer}");
    }
    let denied = counters(&ebpf, Direction::Ingress).of_verdict(Verdict::DeniedByRule);
    assert_eq!((denied.packets, denied.bytes), (5, 5000));
}

/// What is switched off is not in the program.
#[test]
fn a_feature_that_is_off_is_removed_by_the_verifier() {
    let off = DatapathSpec { telemetry: Telemetry::Off, ..spec(tc(), None) };
    let filter = both(DefaultAction::Allow, Vec::new());
    let sizes = [off, spec(tc(), None), spec(tc(), Some(filter))].map(|spec| {
        load(&spec).program(names::XDP).unwrap().info().unwrap().size_translated().unwrap()
    });
    assert!(sizes[0] < sizes[1] && sizes[1] < sizes[2], "{sizes:?}");
}
