//! The parser, the compiler and the judge, against the oracle: on random packets under random
//! filters, all three have to say the same as a plain reading of the filter.

use std::num::NonZero;
use std::thread;

use common::{Direction, Used, Verdict};
use driver::model::Filter;
use driver::policy;
use fastrand::Rng;
use tests::oracle::random::{self, Packets, Size};
use tests::oracle::{self, Answer, Quiet};

const PACKETS: u32 = 1000;
/// No rate of a random filter depends on it.
const HZ: u64 = 250;

#[test]
fn a_million_packets_fare_as_a_thousand_filters_say() {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let tallies = thread::scope(|scope| {
        let each =
            |nth| move || (nth..random::filters()).step_by(threads).map(one_filter).sum::<Tally>();
        let started: Vec<_> =
            (0..random::filters()).take(threads).map(|nth| scope.spawn(each(nth))).collect();
        started.into_iter().map(|thread| thread.join().expect("a disagreement")).sum::<Tally>()
    });

    // That the packets were such that something could be learned from them.
    let Tally { packets, wide, passed, hit, malformed, by_default } = tallies;
    assert_eq!(packets, random::filters() * u64::from(PACKETS));
    for (what, count) in [
        ("under a wide filter", wide),
        ("passed", passed),
        ("dropped", packets - passed),
        ("met a rule", hit),
        ("malformed", malformed),
        ("denied by default", by_default),
    ] {
        assert!(count > packets / 50, "only {count} packets of {packets}: {what}");
    }
}

/// What became of packets, for the oracle as for the judge.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    packets: u64,
    wide: u64,
    passed: u64,
    hit: u64,
    malformed: u64,
    by_default: u64,
}

impl Tally {
    fn add(&mut self, answer: &Answer, is_wide: bool) {
        self.packets += 1;
        self.wide += u64::from(is_wide);
        self.passed += u64::from(answer.passes);
        self.hit += u64::from(!answer.hits.is_empty());
        self.malformed += u64::from(answer.verdict == Verdict::Malformed);
        self.by_default += u64::from(answer.verdict == Verdict::DeniedByDefault);
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| Self {
            packets: sum.packets + tally.packets,
            wide: sum.wide + tally.wide,
            passed: sum.passed + tally.passed,
            hit: sum.hit + tally.hit,
            malformed: sum.malformed + tally.malformed,
            by_default: sum.by_default + tally.by_default,
        })
    }
}

/// Packets under the filter of this number.
fn one_filter(nth: u64) -> Tally {
    let mut rng = Rng::with_seed(random::seed() + nth);
    let size = Size::random(&mut rng);
    let filter = random::filter(&mut rng, size);
    let compiled = policy::compile(&filter, HZ).unwrap_or_else(|problems| {
        panic!(
            "filter {nth} of WEIR_SEED={} is refused: {problems:?}\n{}",
            random::seed(),
            json(&filter)
        )
    });
    let mut packets = Packets::new(rng, &filter);
    let mut tally = Tally::default();
    for number in 0..PACKETS {
        let (frame, direction) = packets.draw();
        let expected = oracle::answer(frame, Some(&filter), direction, &mut Quiet);
        let judged = oracle::judged(frame, &compiled, direction);
        assert!(
            judged == expected,
            "packet {number} under filter {nth} of WEIR_SEED={}, {direction:?}\n{frame:02x?}\n\
             oracle {expected:?}\njudge  {judged:?}\n{}",
            random::seed(),
            json(&filter),
        );
        let compiled = match direction {
            Direction::Ingress => &compiled.ingress,
            Direction::Egress => &compiled.egress,
        };
        tally.add(&expected, compiled.used.has(Used::WIDE));
    }
    tally
}

fn json(filter: &Filter) -> String {
    serde_json::to_string(filter).unwrap()
}
