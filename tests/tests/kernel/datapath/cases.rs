//! One filter, and random packets that are judged by it three times.

use std::iter::Sum;

use common::{Direction, Verdict};
use driver::model::{DirectionFilter, Filter};
use driver::policy::Compiled;
use fastrand::Rng;
use tests::oracle::random::{self, Packets};
use tests::oracle::{Answer, Kept, Memory};

use super::loaded::{Entry, Loaded};

/// Packets for each filter.
pub(crate) const PACKETS: usize = 1000;

/// Different packets, where a filter remembers them. Each may begin a conversation, and the kernel's
/// table of those forgets where it is full: with so few, as good as never.
const REMEMBERED: usize = 24;

/// One filter.
pub(crate) struct Case {
    /// For the one who has to find it again.
    pub(crate) nth: u64,
    pub(crate) filter: Filter,
    pub(crate) compiled: Compiled,
}

/// A frame and the way it goes.
pub(crate) type Packet = (Vec<u8>, Direction);

impl Case {
    /// Lets all three judge packets, one after the other.
    ///
    /// # Panics
    ///
    /// If they disagree, with all that it takes to do it again.
    pub(crate) fn agree(&self, packets: &[Packet], loaded: &mut Loaded) -> Tally {
        let (mut memory, mut kept) = (Memory::default(), Kept::default());
        let mut tally = Tally::default();
        for (number, packet) in packets.iter().enumerate() {
            let (frame, direction) = packet;
            let fail = |what: &str| -> ! { self.fail(&format!("packet {number}"), packet, what) };
            tally.packets += 1;
            for entry in entries(number, *direction) {
                if !entry.takes(frame) {
                    continue;
                }
                let expected = memory.answer(frame, &self.filter, *direction);
                let judged = kept.judged(frame, &self.compiled, *direction);
                if judged != expected {
                    fail(&format!("common {judged:?}\noracle {expected:?}"));
                }
                if let Err(what) = loaded.run(entry, frame, &expected) {
                    fail(&format!("{what}\noracle {expected:?}"));
                }
                tally.add(&expected);
            }
        }
        if let Err(what) = loaded.check_hits() {
            self.find(packets, loaded, &what);
        }
        tally
    }

    /// Random packets: few of them, again and again, and what answers them, where the filter remembers.
    pub(crate) fn packets(&self, mut rng: Rng) -> Vec<Packet> {
        let mut random = Packets::new(rng.fork(), &self.filter);
        let mut draw = || {
            let (frame, direction) = random.draw();
            (frame.to_vec(), direction)
        };
        let is_stateful = |of: &Option<DirectionFilter>| of.as_ref().is_some_and(|of| of.stateful);
        if !is_stateful(&self.filter.ingress) && !is_stateful(&self.filter.egress) {
            return (0..PACKETS).map(|_| draw()).collect();
        }
        let mut few: Vec<_> = (0..REMEMBERED).map(|_| draw()).collect();
        for n in 0..REMEMBERED {
            let (frame, direction) = &few[n];
            few.push((random::mirrored(frame), Direction::ALL[1 - *direction as usize]));
        }
        (0..PACKETS).map(|_| few[rng.usize(..few.len())].clone()).collect()
    }

    /// The packet that rules matched in another way is looked for by doing all again.
    fn find(&self, packets: &[Packet], loaded: &mut Loaded, what: &str) -> ! {
        for (number, packet) in packets.iter().enumerate() {
            let (frame, direction) = packet;
            for entry in entries(number, *direction).filter(|entry| entry.takes(frame)) {
                loaded.forget_hits();
                // What depends on packets before may be different now, but not which rules match.
                let expected = Memory::default().answer(frame, &self.filter, *direction);
                let _ = loaded.run(entry, frame, &expected);
                if let Err(what) = loaded.check_hits() {
                    self.fail(&format!("packet {number} in {entry:?}"), packet, &what);
                }
            }
        }
        panic!("{what}: but not again\n{}", self.name());
    }

    fn fail(&self, which: &str, (frame, direction): &Packet, what: &str) -> ! {
        panic!("{which}, {}, {frame:02x?}\n{what}\n{}", direction.name(), self.name());
    }

    fn name(&self) -> String {
        let filter = serde_json::to_string(&self.filter).unwrap();
        format!("WEIR_SEED={} filter {}: {filter}", random::seed(), self.nth)
    }
}

/// The programs that see a packet: what comes in is seen by XDP and by TCX. Where the first buffer ends
/// varies.
fn entries(number: usize, direction: Direction) -> impl Iterator<Item = Entry> {
    let (first, second) = match direction {
        Direction::Ingress if number.is_multiple_of(2) => (Entry::Xdp, Some(Entry::Ingress)),
        Direction::Ingress => (Entry::XdpFrags(14 + number % 90), Some(Entry::Ingress)),
        Direction::Egress => (Entry::Egress, None),
    };
    [Some(first), second].into_iter().flatten()
}

/// What became of packets, for all three.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) packets: u64,
    pub(crate) runs: u64,
    passed: u64,
    dropped: u64,
    hit: u64,
    replies: u64,
    verdicts: [u64; Verdict::ALL.len()],
}

impl Tally {
    fn add(&mut self, answer: &Answer) {
        self.runs += 1;
        self.passed += u64::from(answer.passes);
        self.dropped += u64::from(!answer.passes);
        self.hit += u64::from(!answer.hits.is_empty());
        self.replies += u64::from(answer.reply);
        self.verdicts[answer.verdict as usize] += 1;
    }

    /// How often there was something to be learned, of each kind.
    pub(crate) fn learned(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let of_verdicts =
            Verdict::ALL.map(|verdict| (verdict.name(), self.verdicts[verdict as usize]));
        [
            ("passed", self.passed),
            ("dropped", self.dropped),
            ("met a rule", self.hit),
            ("replies", self.replies),
        ]
        .into_iter()
        .chain(of_verdicts)
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum.packets += tally.packets;
            sum.runs += tally.runs;
            sum.passed += tally.passed;
            sum.dropped += tally.dropped;
            sum.hit += tally.hit;
            sum.replies += tally.replies;
            for (sum, count) in sum.verdicts.iter_mut().zip(tally.verdicts) {
                *sum += count;
            }
            sum
        })
    }
}
