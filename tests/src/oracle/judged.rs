//! What `common` makes of a packet under a compiled filter, in the oracle's words.

use std::collections::HashMap;

use common::{
    Addresses, Bucket, Counters, Counting, Decided, Direction, Ground, Opening, Packet, Page, Row,
    Ruleset, TcpEvent, Used,
};
use driver::policy::{Compiled, CompiledDirection, MemoryGround};

use super::Answer;
use super::memory::opposite;

/// What `common` keeps between packets. Time stands still in it.
#[derive(Clone, Debug)]
pub struct Kept {
    buckets: Vec<Bucket>,
    /// Theoretical arrival times by rule.
    arrivals: HashMap<(Direction, u32), u64>,
}

/// As many as a loaded filter has.
const BUCKETS: usize = 2048;
/// Any will do.
const SEED: u64 = 0x5eed;
const HZ: u64 = 250;
const JIFFIES: u64 = 1_000_000;

impl Default for Kept {
    fn default() -> Self {
        Self { buckets: vec![Bucket::default(); BUCKETS], arrivals: HashMap::new() }
    }
}

impl Kept {
    /// What becomes of `frame`, which goes in `direction`, after all that was judged before.
    pub fn judged(&mut self, frame: &[u8], compiled: &Compiled, direction: Direction) -> Answer {
        let packet = common::parse(&frame);
        let addresses = packet.addresses(&frame).unwrap_or_default();
        let used = side(compiled, direction).used;
        let mut ground = Remembering {
            tables: MemoryGround::new(compiled, direction),
            kept: self,
            direction,
            bytes: frame.len() as u64,
        };
        let decision = if used.has(Used::FILTER) {
            common::judge(&packet, &addresses, direction, used, &mut ground)
        } else {
            common::pass(&packet)
        };
        let hits = ground.tables.hits.iter().map(|&rule| rule as usize).collect();
        if decision.passes
            && !decision.is_reply
            && side(compiled, opposite(direction)).used.has(Used::STATEFUL)
            && let Some(opening) = Opening::by(&packet, &addresses, direction, SEED)
        {
            self.bucket(&opening).remember(&opening, JIFFIES, HZ);
        }
        Answer {
            passes: decision.passes,
            verdict: decision.verdict,
            hits,
            protocol: packet.protocol(),
            fragment: packet.is_fragment(),
            tagged: packet.is_tagged(),
            tcp: tcp_events(&packet),
            reply: decision.is_reply,
        }
    }

    fn bucket(&mut self, opening: &Opening) -> &mut Bucket {
        &mut self.buckets[opening.hash() as usize % BUCKETS]
    }
}

/// What becomes of `frame`, which goes in `direction`, where nothing came before.
pub fn judged(frame: &[u8], compiled: &Compiled, direction: Direction) -> Answer {
    Kept { buckets: Vec::new(), arrivals: HashMap::new() }.judged(frame, compiled, direction)
}

/// One packet, before what is kept.
struct Remembering<'a> {
    tables: MemoryGround<'a>,
    kept: &'a mut Kept,
    direction: Direction,
    bytes: u64,
}

impl Ground for Remembering<'_> {
    fn ruleset(&self, direction: Direction) -> Option<&Ruleset> {
        self.tables.ruleset(direction)
    }

    fn page(&self, number: u32) -> Option<&Page> {
        self.tables.page(number)
    }

    fn row(&self, number: u32) -> Option<&Row> {
        self.tables.row(number)
    }

    fn hit(&mut self, rule: u32) {
        self.tables.hit(rule);
    }

    fn hit_each(&mut self, counting: Counting) {
        common::count_each(counting, self.direction, self.tables.of().used, self);
    }

    fn by_rows(
        &mut self,
        packet: &Packet,
        addresses: &Addresses,
        direction: Direction,
        used: Used,
    ) -> Option<Decided> {
        common::by_rows(packet, addresses, direction, used, self)
    }

    fn admits(&mut self, rule: u32) -> bool {
        let limit = &self.tables.of().rules[rule as usize].limit;
        let arrival = self.kept.arrivals.entry((self.direction, rule)).or_default();
        let next = limit.admit(*arrival, JIFFIES, 1, self.bytes);
        *arrival = next.unwrap_or(*arrival);
        next.is_some()
    }

    fn is_reply(&mut self, packet: &Packet, addresses: &Addresses) -> bool {
        let answered = Opening::answered_by(packet, addresses, self.direction, SEED);
        answered.is_some_and(|answered| self.kept.bucket(&answered).recall(&answered, JIFFIES, HZ))
    }
}

fn side(compiled: &Compiled, direction: Direction) -> &CompiledDirection {
    match direction {
        Direction::Ingress => &compiled.ingress,
        Direction::Egress => &compiled.egress,
    }
}

fn tcp_events(packet: &Packet) -> Vec<TcpEvent> {
    let mut counters = Counters::default();
    counters.count_tcp(packet.tcp_flags());
    TcpEvent::ALL.into_iter().filter(|&event| counters.of_tcp(event) == 1).collect()
}
