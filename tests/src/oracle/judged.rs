//! What `common` makes of a packet under a compiled filter, in the oracle's words.

use common::{Counters, Direction, Ground, Packet, Page, Row, Ruleset, TcpEvent, Used};
use driver::policy::{Compiled, CompiledDirection};

use super::Answer;

/// What becomes of `frame`, which goes in `direction`, where no limit is reached and no reply is
/// waited for.
pub fn judged(frame: &[u8], compiled: &Compiled, direction: Direction) -> Answer {
    let packet = common::parse(&frame);
    let used = side(compiled, direction).used;
    let mut ground = Memory { compiled, hits: Vec::new() };
    let decision = if used.has(Used::FILTER) {
        let addresses = packet.addresses(&frame).unwrap_or_default();
        common::judge(&packet, &addresses, direction, used, &mut ground)
    } else {
        common::pass(&packet)
    };
    Answer {
        passes: decision.passes,
        verdict: decision.verdict,
        hits: ground.hits,
        protocol: packet.protocol(),
        fragment: packet.is_fragment(),
        tagged: packet.is_tagged(),
        tcp: tcp_events(&packet),
        reply: decision.is_reply,
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

/// A compiled filter as the maps would hold it.
struct Memory<'a> {
    compiled: &'a Compiled,
    hits: Vec<usize>,
}

impl Ground for Memory<'_> {
    fn ruleset(&self, direction: Direction) -> Option<&Ruleset> {
        side(self.compiled, direction).ruleset.as_deref()
    }

    fn page(&self, number: u32) -> Option<&Page> {
        self.compiled.pages.get(number as usize)
    }

    fn row(&self, number: u32) -> Option<&Row> {
        self.compiled.rows.get(number as usize)
    }

    fn hit(&mut self, rule: u32) {
        self.hits.push(rule as usize);
    }

    fn admits(&mut self, _rule: u32) -> bool {
        true
    }

    fn is_reply(&mut self) -> bool {
        false
    }
}
