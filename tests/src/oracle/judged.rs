//! What `common` makes of a packet under a compiled filter, in the oracle's words.

use common::{Counters, Direction, Packet, TcpEvent, Used};
use driver::policy::{Compiled, MemoryGround};

use super::Answer;

/// What becomes of `frame`, which goes in `direction`, where no limit is reached and no reply is
/// waited for.
pub fn judged(frame: &[u8], compiled: &Compiled, direction: Direction) -> Answer {
    let packet = common::parse(&frame);
    let mut ground = MemoryGround::new(compiled, direction);
    let used = ground.of().used;
    let decision = if used.has(Used::FILTER) {
        let addresses = packet.addresses(&frame).unwrap_or_default();
        common::judge(&packet, &addresses, direction, used, &mut ground)
    } else {
        common::pass(&packet)
    };
    Answer {
        passes: decision.passes,
        verdict: decision.verdict,
        hits: ground.hits.into_iter().map(|rule| rule as usize).collect(),
        protocol: packet.protocol(),
        fragment: packet.is_fragment(),
        tagged: packet.is_tagged(),
        tcp: tcp_events(&packet),
        reply: decision.is_reply,
    }
}

fn tcp_events(packet: &Packet) -> Vec<TcpEvent> {
    let mut counters = Counters::default();
    counters.count_tcp(packet.tcp_flags());
    TcpEvent::ALL.into_iter().filter(|&event| counters.of_tcp(event) == 1).collect()
}
