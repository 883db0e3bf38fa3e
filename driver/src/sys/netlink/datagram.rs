//! Everything that this room reads out of a datagram, for whoever wants to know whether any datagram
//! can harm it.

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkAttribute;

use super::raw::Raw;
use super::socket::{Answers, read};
use super::{LinkFacts, address, events, filter, neighbor, program, route, rule, vf};
use crate::model::IfIndex;

/// Reads a datagram as the answers to whatever we ask the kernel, and as news. Answers how many things
/// it told of.
pub fn read_all(datagram: &[u8]) -> usize {
    // Of the first message; the others are late answers to other requests.
    let sequence = datagram.get(8..12).and_then(|bytes| bytes.try_into().ok());
    let sequence = sequence.map_or(0, u32::from_ne_bytes);
    let mut answers = Answers::default();
    // What the kernel refuses is told with its own words, which are read as well.
    let _ = read::<RouteNetlinkMessage>(datagram, sequence, &"fuzz", &mut answers);
    let told: usize = answers.messages.into_iter().map(count).sum();
    // Of virtual functions we read ourselves what the kernel says.
    let mut answers = Answers::default();
    let _ = read::<Raw>(datagram, sequence, &"fuzz", &mut answers);
    let functions = answers.messages.iter().filter_map(|answer| answer.body.get(16..));
    let functions: usize = functions.map(|body| vf::decode_functions(body).len()).sum();
    told + functions + events::hear_all(datagram)
}

fn count(message: RouteNetlinkMessage) -> usize {
    let is_read = match message {
        RouteNetlinkMessage::NewLink(link) => {
            let modes = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Xdp(parts) => Some(program::xdp(parts).len()),
                _ => None,
            });
            LinkFacts::read(link).is_some() || modes.is_some()
        }
        RouteNetlinkMessage::NewAddress(message) => address::read(&message).is_some(),
        RouteNetlinkMessage::NewRoute(message) => route::read(&message).is_some(),
        RouteNetlinkMessage::NewRule(message) => rule::read(&message).is_some(),
        RouteNetlinkMessage::NewNeighbour(message) => {
            neighbor::read(IfIndex(message.header.ifindex), &message).is_some()
        }
        RouteNetlinkMessage::NewTrafficFilter(message) => {
            program::bpf_filter(&message).is_some() || filter::read(message).is_some()
        }
        _ => false,
    };
    usize::from(is_read)
}
