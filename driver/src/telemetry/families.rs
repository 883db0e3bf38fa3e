//! Which metrics each attachment has, and what they are made of.

use super::attachments::Attachment;
use crate::model::{Ahead, DirectionTraffic, PacketCount, RuleTraffic, Traffic};

/// Labels beside those that say whose it is, and the value.
type Sample<'a> = (Vec<(&'static str, &'a str)>, u64);

/// Numbers of one name. A fixed number for each attachment, but for those of rules.
pub(super) struct Family {
    /// Without its unit, which the encoder appends, as it does `_total` to counters.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Option<&'static str>,
    pub(super) kind: Kind,
    pub(super) samples: for<'a> fn(&'a Attachment) -> Vec<Sample<'a>>,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

const PACKETS: Option<&str> = Some("packets");
const BYTES: Option<&str> = Some("bytes");

const fn counter(
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    samples: for<'a> fn(&'a Attachment) -> Vec<Sample<'a>>,
) -> Family {
    Family { name, help, unit, kind: Kind::Counter, samples }
}

const fn gauge(
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    samples: for<'a> fn(&'a Attachment) -> Vec<Sample<'a>>,
) -> Family {
    Family { name, help, unit, kind: Kind::Gauge, samples }
}

pub(super) const FAMILIES: [Family; 18] = [
    counter("weir", PACKETS, "Packets by verdict, in the direction as the pod sees it.", |it| {
        split(it, "verdict", |traffic| &traffic.verdicts, |count| count.packets)
    }),
    counter("weir", BYTES, "Bytes of packets by verdict, link-layer header included.", |it| {
        split(it, "verdict", |traffic| &traffic.verdicts, |count| count.bytes)
    }),
    counter("weir_protocol", PACKETS, "Packets by protocol, as the pod sees them.", |it| {
        split(it, "protocol", |traffic| &traffic.protocols, |count| count.packets)
    }),
    counter("weir_protocol", BYTES, "Bytes of packets by protocol.", |it| {
        split(it, "protocol", |traffic| &traffic.protocols, |count| count.bytes)
    }),
    counter("weir_tcp_events", None, "TCP segments by what their flags say.", tcp_events),
    counter("weir_fragments", None, "Packets that are part of a fragmented one.", |it| {
        each(it, |traffic| traffic.fragments)
    }),
    counter("weir_tagged", PACKETS, "Packets with a VLAN tag.", |it| {
        each(it, |traffic| traffic.tagged)
    }),
    counter("weir_replies", None, "Packets let through only because they answer others.", |it| {
        each(it, |traffic| traffic.replies)
    }),
    counter("weir_rule", PACKETS, "Packets that a rule matched, since the filter is.", |it| {
        rules(it, |count| count.packets)
    }),
    counter("weir_rule", BYTES, "Bytes of packets that a rule matched.", |it| {
        rules(it, |count| count.bytes)
    }),
    counter("weir_flows_evicted", None, "Flows that left the cache for others.", |it| {
        each(it, |traffic| traffic.flows_evicted)
    }),
    counter("weir_flows_exported", None, "Flows that left the cache for user space.", |it| {
        each(it, |traffic| traffic.flows_exported)
    }),
    counter("weir_flows_lost", None, "Flows that nobody in user space made room for.", |it| {
        each(it, |traffic| traffic.flows_lost)
    }),
    gauge(
        "weir_policy_generation",
        None,
        "The state of the filter that judged the last packet; 0 where none did.",
        |it| each(it, |traffic| traffic.generation),
    ),
    gauge("weir_policy_generation_applied", None, "The state of the filter in force.", |it| {
        it.generation.iter().map(|&generation| (Vec::new(), generation.into())).collect()
    }),
    gauge(
        "weir_programs_ahead",
        None,
        "Programs of others that run before ours, when somebody looked last.",
        programs_ahead,
    ),
    gauge(
        "weir_residue",
        None,
        "What of the host's could not be put back when it came home.",
        |it| vec![(Vec::new(), u64::try_from(it.residue).unwrap_or(u64::MAX))],
    ),
    gauge("weir_datapath_memory", BYTES, "Kernel memory of the maps.", |it| {
        it.memory.iter().map(|&bytes| (Vec::new(), bytes)).collect()
    }),
];

fn directions(it: &Attachment) -> impl Iterator<Item = (&'static str, &DirectionTraffic)> {
    it.traffic.iter().flat_map(Traffic::directions)
}

/// One sample for each direction.
fn each(it: &Attachment, value: fn(&DirectionTraffic) -> u64) -> Vec<Sample<'_>> {
    directions(it).map(|(name, traffic)| (vec![("direction", name)], value(traffic))).collect()
}

/// One sample for each kind of each direction.
fn split<'a>(
    it: &'a Attachment,
    label: &'static str,
    kinds: fn(&DirectionTraffic) -> &[(&'static str, PacketCount)],
    value: fn(&PacketCount) -> u64,
) -> Vec<Sample<'a>> {
    let mut samples = Vec::new();
    for (direction, traffic) in directions(it) {
        for (kind, count) in kinds(traffic) {
            samples.push((vec![("direction", direction), (label, *kind)], value(count)));
        }
    }
    samples
}

fn tcp_events(it: &Attachment) -> Vec<Sample<'_>> {
    let mut samples = Vec::new();
    for (direction, traffic) in directions(it) {
        for (event, count) in &traffic.tcp_events {
            samples.push((vec![("direction", direction), ("event", *event)], *count));
        }
    }
    samples
}

fn rules(it: &Attachment, value: fn(&PacketCount) -> u64) -> Vec<Sample<'_>> {
    let mut samples = Vec::new();
    for RuleTraffic { direction, origin, rule, matched } in &it.rules {
        let labels = vec![("direction", *direction), ("origin", origin.name()), ("rule", rule)];
        samples.push((labels, value(matched)));
    }
    samples
}

fn programs_ahead(it: &Attachment) -> Vec<Sample<'_>> {
    let mut samples = Vec::new();
    for (direction, programs) in it.ahead.iter().flat_map(Ahead::directions) {
        // Zero would say that somebody has looked.
        let Some(programs) = programs else { continue };
        let count = u64::try_from(programs.len()).unwrap_or(u64::MAX);
        samples.push((vec![("direction", direction)], count));
    }
    samples
}
