//! Policies are swapped under load, as fast as this machine sends and loads programs.
//!
//! There are two kinds of packets and two filters. Each filter allows one kind, denies the other, and
//! does so by a rule; by default all is denied. Their rules stand in other places, so a packet that
//! was judged by tables of both would be matched by no rule, and be seen as denied by default. Each
//! filter in its turn has hits of its own, all of which are kept and added up in the end.

use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, PerCpuArray};
use common::{Count, Counters, Direction, LAYOUT_VERSION, Verdict};
use driver::datapath::Datapath;
use driver::model::{
    Action, DatapathSpec, DefaultAction, Filter, FilterRule, IngressHook, Protocol,
};
use nix::sys::socket::{
    MsgFlags, MultiHeaders, MultiResults, SockaddrIn, SockaddrLike, recvmmsg, sendmmsg, setsockopt,
    sockopt,
};

use super::wire::{Bench, POD_ADDRESSES, WIRE_ADDRESSES, index};
use super::{both, id, rule, spec, tc};

/// The peers of the pod, each with the port that it sends from and to.
const PEERS: [(&str, u16); 2] = [(WIRE_ADDRESSES[0], 7000), ("10.9.0.3", 7001)];
/// Swaps, and how long is spent on them at most: on a slow machine there are fewer.
const MANY_SWAPS: (u32, Duration) = (300, Duration::from_secs(45));
const SOME_SWAPS: (u32, Duration) = (100, Duration::from_secs(15));
/// With fewer, nothing was shown.
const FEWEST_SWAPS: usize = 5;
/// Packets that may be on their way to a program and, having passed it, to whoever reads them, before
/// more are sent. What overruns a queue of the kernel's is lost, and would be missed here: a veth with
/// XDP has a ring of 256 (`VETH_RING_SIZE` in `drivers/net/veth.c`, Linux 6.12), all others share a
/// backlog of 1000 for each processor (`netdev_max_backlog`), on which what went out comes in at the
/// other end.
const WINDOWS: [(Direction, [u64; 2]); 2] =
    [(Direction::Ingress, [128, 8192]), (Direction::Egress, [128, 600])];
/// How long nothing may change until what is on its way is given up.
const PATIENCE: Duration = Duration::from_secs(5);
const QUEUE_BYTES: usize = 8 << 20;

/// The filter that allows what comes from the one peer and denies what comes from the other, or goes
/// there. Those of an odd `turn` have them the other way round.
fn filter(turn: u32, form: Form) -> Filter {
    let allowed = turn as usize % 2;
    let about = |action, peer: usize| {
        let (address, port) = PEERS[peer];
        rule(action, &[&format!("{address}/32")], Some(Protocol::Udp), &[(port, port)])
    };
    let mut rules = form.fillers(turn);
    let middle = rules.len() / 3 * (1 + allowed);
    rules.insert(middle, about(Action::Allow, allowed));
    rules.insert(0, about(Action::Deny, 1 - allowed));
    both(DefaultAction::Deny, rules)
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Narrow,
    Wide,
}

impl Form {
    /// Rules that match nothing here, of which there are more in one filter than in the other.
    fn fillers(self, turn: u32) -> Vec<FilterRule> {
        let count = match self {
            Self::Narrow => 6 + turn % 2 * 3,
            Self::Wide => 90 + turn % 2 * 40,
        };
        let filler = |n| {
            let network = format!("10.{}.{}.0/24", 16 + n / 100, n % 100);
            rule(Action::Deny, &[&network], Some(Protocol::Udp), &[(6990, 7010)])
        };
        (0..count).map(filler).collect()
    }
}

/// A socket at either end for each kind of packets.
struct Wire {
    pod: [UdpSocket; 2],
    far: [UdpSocket; 2],
}

impl Wire {
    fn new(bench: &Bench) -> Self {
        let far = bench.wire.netlink();
        far.add_address(index(&far, "far0"), "10.9.0.3/24".parse().unwrap()).unwrap();
        let pod = PEERS.map(|(_, port)| Bench::listen(&bench.pod, POD_ADDRESSES[0], port));
        let far = PEERS.map(|(address, port)| Bench::listen(&bench.wire, address, port));
        for kind in 0..2 {
            for (socket, to) in [(&pod[kind], &far[kind]), (&far[kind], &pod[kind])] {
                setsockopt(socket, sockopt::RcvBufForce, &QUEUE_BYTES).unwrap();
                socket.connect(to.local_addr().unwrap()).unwrap();
            }
        }
        Self { pod, far }
    }

    /// Has both ends of one kind learn each other's hardware address.
    fn warm_up(&self, kind: usize) {
        Bench::warm_up(&self.far[kind], &self.pod[kind]);
        Bench::warm_up(&self.pod[kind], &self.far[kind]);
    }
}

/// One direction: what goes from one end to the other.
struct Lane<'a> {
    direction: Direction,
    from: &'a [UdpSocket; 2],
    to: &'a [UdpSocket; 2],
    sent: [AtomicU64; 2],
    received: [AtomicU64; 2],
    stop: &'a AtomicBool,
}

impl<'a> Lane<'a> {
    fn new(wire: &'a Wire, direction: Direction, stop: &'a AtomicBool) -> Self {
        let (from, to) = match direction {
            Direction::Ingress => (&wire.far, &wire.pod),
            Direction::Egress => (&wire.pod, &wire.far),
        };
        Self { direction, from, to, sent: Default::default(), received: Default::default(), stop }
    }

    /// Sends both kinds in turn, until it is told to stop.
    fn send(&self, counters: &CountersMap) {
        let before = counters.udp(self.direction);
        let (_, window) = WINDOWS.into_iter().find(|it| it.0 == self.direction).unwrap();
        loop {
            // Once more after the last swap, so that its filter judges as well.
            let is_last = self.stop.load(Ordering::Relaxed);
            for (socket, sent) in self.from.iter().zip(&self.sent) {
                sent.fetch_add(send_many(socket), Ordering::Relaxed);
            }
            if is_last {
                break;
            }
            self.settle(counters, &before, window);
        }
        self.settle(counters, &before, [0, 0]);
    }

    /// Waits until so few packets are on their way to being judged, and to being read.
    fn settle(&self, counters: &CountersMap, before: &[u64; 5], most: [u64; 2]) {
        let (mut last, mut since) = ([0; 2], Instant::now());
        loop {
            let judged = since_then(before, &counters.udp(self.direction));
            let allowed = judged[Verdict::Allowed as usize];
            let judged = judged.iter().sum::<u64>();
            // Of what is read here, the one was written before the other.
            let on_their_way = [
                total(&self.sent).saturating_sub(judged),
                allowed.saturating_sub(total(&self.received)),
            ];
            if on_their_way.iter().zip(&most).all(|(now, most)| now <= most) {
                return;
            }
            if on_their_way != last {
                (last, since) = (on_their_way, Instant::now());
            } else if since.elapsed() > PATIENCE {
                return;
            }
            thread::yield_now();
        }
    }

    /// Counts what arrives of one kind, until nothing more can.
    fn receive(&self, kind: usize, is_over: &AtomicBool) {
        self.to[kind].set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while !is_over.load(Ordering::Relaxed) {
            self.received[kind].fetch_add(receive_many(&self.to[kind]), Ordering::Relaxed);
        }
    }
}

/// How many datagrams one call hands to the kernel, or takes.
const MANY: usize = 32;

/// Sends as many as go, and answers how many did.
fn send_many(socket: &UdpSocket) -> u64 {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(MANY, None);
    let slices = [[IoSlice::new(&[0; 18])]; MANY];
    // The sockets are connected.
    let to = [None::<SockaddrIn>; MANY];
    let flags = MsgFlags::empty();
    sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, [], flags).map_or(0, count)
}

/// Takes those that are there, and waits for the first.
fn receive_many(socket: &UdpSocket) -> u64 {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(MANY, None);
    let mut data = [[0; 32]; MANY];
    let mut slices: Vec<_> = data.iter_mut().map(|data| [IoSliceMut::new(data)]).collect();
    let flags = MsgFlags::MSG_WAITFORONE;
    recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None).map_or(0, count)
}

fn count<S>(done: MultiResults<'_, S>) -> u64
where
    S: SockaddrLike + Copy,
{
    done.count() as u64
}

fn total(counts: &[AtomicU64; 2]) -> u64 {
    counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

fn since_then(before: &[u64; 5], now: &[u64; 5]) -> [u64; 5] {
    std::array::from_fn(|n| now[n] - before[n])
}

/// The pinned counters, which outlive every swap.
struct CountersMap(PerCpuArray<MapData, Counters>);

impl CountersMap {
    fn open(bench: &Bench) -> Self {
        Self(open(bench, &format!("counters_v{LAYOUT_VERSION}")).try_into().unwrap())
    }

    fn read(&self, direction: Direction) -> Counters {
        let mut sum = Counters::default();
        for cpu in self.0.get(&(direction as u32), 0).unwrap().iter() {
            sum.merge(cpu);
        }
        sum
    }

    /// Packets of UDP by verdict: all else, such as what IPv6 says of itself, is not ours.
    fn udp(&self, direction: Direction) -> [u64; 5] {
        let traffic = self.read(direction).traffic;
        let of = common::Protocol::ALL.len();
        Verdict::ALL
            .map(|verdict| traffic[verdict as usize * of + common::Protocol::Udp as usize].packets)
    }
}

fn open(bench: &Bench, pin: &str) -> Map {
    let id = id();
    let device = bench.bpffs().join("weir").join(id.claim.as_str()).join(id.device.as_str());
    Map::PerCpuArray(MapData::from_pin(device.join(pin)).unwrap())
}

/// The hits of one filter, kept for as long as any program could still write them.
struct Hits {
    map: PerCpuArray<MapData, Count>,
    filter: Filter,
    turn: u32,
}

impl Hits {
    fn open(bench: &Bench, spec: &DatapathSpec, turn: u32) -> Self {
        let map = open(bench, "hits").try_into().unwrap();
        Self { map, filter: spec.filter.clone().unwrap(), turn }
    }

    /// What was matched of each kind by the two rules, which have to be the only ones.
    fn of(&self, direction: Direction) -> [u64; 2] {
        let [ingress, egress] =
            [&self.filter.ingress, &self.filter.egress].map(|it| it.as_ref().unwrap().rules.len());
        let (first, count) = match direction {
            Direction::Ingress => (0, ingress),
            Direction::Egress => (ingress, egress),
        };
        let allowed = self.turn as usize % 2;
        let mut kinds = [0; 2];
        for n in 0..count {
            let cpus = self.map.get(&u32::try_from(first + n).unwrap(), 0).unwrap();
            let packets = cpus.iter().map(|count| count.packets).sum::<u64>();
            let rules = &self.filter.ingress.as_ref().unwrap().rules;
            match rules[n].action {
                Action::Allow => kinds[allowed] += packets,
                Action::Deny if n == 0 => kinds[1 - allowed] += packets,
                _ => assert_eq!(packets, 0, "rule {n} matches nothing that was sent"),
            }
        }
        kinds
    }
}

/// Installs the first filter, in the pod, and has everybody learn all addresses.
fn started(bench: &Bench, hook: IngressHook, form: Form) -> (Datapath, Wire) {
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let first = spec(hook, Some(filter(1, form)));
    bench.host.run(|| datapath.install(&first, &Bench::nic()).unwrap());
    bench.move_to_pod_with(&datapath, &first);
    let wire = Wire::new(bench);
    wire.warm_up(1);
    bench.replace_in_pod(&datapath, &spec(hook, Some(filter(0, form))));
    wire.warm_up(0);
    (datapath, wire)
}

/// Swaps as often as there is time for. Answers the hits of all filters, that of `first` among them.
fn swap(
    bench: &Bench,
    datapath: &Datapath,
    first: DatapathSpec,
    form: Form,
    (swaps, longest): (u32, Duration),
) -> Vec<Hits> {
    let mut all = vec![Hits::open(bench, &first, 0)];
    let start = Instant::now();
    let mut next = first;
    for turn in 1..=swaps {
        if start.elapsed() > longest {
            break;
        }
        next.filter = Some(filter(turn, form));
        next.generation = turn + 1;
        bench.replace_in_pod(datapath, &next);
        all.push(Hits::open(bench, &next, turn));
    }
    all
}

fn swapped_under_load(hook: IngressHook, form: Form, swaps: (u32, Duration)) {
    let bench = Bench::new(1500);
    let (datapath, wire) = started(&bench, hook, form);
    let counters = CountersMap::open(&bench);
    let first = DatapathSpec { generation: 1, ..spec(hook, Some(filter(0, form))) };
    bench.replace_in_pod(&datapath, &first);
    let (stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let lanes = Direction::ALL.map(|direction| Lane::new(&wire, direction, &stop));
    let before = Direction::ALL.map(|direction| counters.udp(direction));
    let start = Instant::now();

    let (hits, took) = thread::scope(|scope| {
        for lane in &lanes {
            for kind in 0..2 {
                let is_over = &is_over;
                scope.spawn(move || lane.receive(kind, is_over));
            }
        }
        let senders: Vec<_> =
            lanes.iter().map(|lane| scope.spawn(|| lane.send(&counters))).collect();
        let hits = swap(&bench, &datapath, first, form, swaps);
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        (hits, took)
    });

    let swaps = hits.len() - 1;
    assert!(swaps >= FEWEST_SWAPS, "only {swaps} swaps");
    for (lane, before) in lanes.iter().zip(before) {
        let judged = since_then(&before, &counters.udp(lane.direction));
        check(lane, judged, &hits);
        report(&format!("{hook}, {form:?}: {swaps} swaps"), lane, took);
        let generation = counters.read(lane.direction).generation;
        assert_eq!(generation, hits.len() as u64, "the last one judges");
    }
}

#[expect(clippy::print_stdout, reason = "how much load that was is for people to judge")]
fn report(what: &str, lane: &Lane<'_>, took: Duration) {
    let (sent, way) = (total(&lane.sent), lane.direction.name());
    let rate = u128::from(sent) * 1000 / took.as_millis().max(1);
    // The vm ring shows such lines of tests that pass, too.
    println!("ring: {what} in {took:.1?}, {way} {sent} packets, {rate} in a second");
}

/// Has the sums of what was sent, judged, matched and received agree.
fn check(lane: &Lane<'_>, judged: [u64; 5], hits: &[Hits]) {
    let read = |counts: &[AtomicU64; 2]| [0, 1].map(|n: usize| counts[n].load(Ordering::Relaxed));
    let (sent, received) = (read(&lane.sent), read(&lane.received));
    let (mut matched, mut let_through) = ([0; 2], [0; 2]);
    for hits in hits {
        let kinds = hits.of(lane.direction);
        let allowed = hits.turn as usize % 2;
        let_through[allowed] += kinds[allowed];
        (0..2).for_each(|kind| matched[kind] += kinds[kind]);
    }
    let named: Vec<_> =
        Verdict::ALL.iter().map(|verdict| (verdict.name(), judged[*verdict as usize])).collect();
    let of = |verdict: Verdict| judged[verdict as usize];
    let what =
        format!("{}: {sent:?} sent, {received:?} received, {named:?}", lane.direction.name());
    assert_eq!(matched, sent, "each packet is matched by the rule for its kind; {what}");
    assert_eq!(let_through, received, "what one filter lets through arrives; {what}");
    assert_eq!(of(Verdict::Allowed), received.iter().sum::<u64>(), "{what}");
    let denied = sent.iter().sum::<u64>() - of(Verdict::Allowed);
    assert_eq!(of(Verdict::DeniedByRule), denied, "nothing has another verdict; {what}");
    assert!(received.iter().all(|count| *count > 0), "both filters have judged; {what}");
}

#[test]
fn no_packet_is_lost_or_judged_by_a_mixture_while_narrow_filters_are_swapped() {
    swapped_under_load(tc(), Form::Narrow, MANY_SWAPS);
}

#[test]
fn no_packet_is_lost_or_judged_by_a_mixture_while_wide_filters_are_swapped() {
    swapped_under_load(tc(), Form::Wide, SOME_SWAPS);
}

#[test]
fn no_packet_is_lost_or_judged_by_a_mixture_while_filters_are_swapped_at_xdp() {
    swapped_under_load(IngressHook::Xdp, Form::Narrow, SOME_SWAPS);
}

#[test]
fn no_packet_is_lost_or_judged_by_a_mixture_while_filters_of_clsact_are_swapped() {
    swapped_under_load(IngressHook::Clsact, Form::Narrow, SOME_SWAPS);
}
