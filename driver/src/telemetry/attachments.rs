//! What pods' datapaths counted, read at the moment of a scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Metrics, chain};
use crate::datapath::CounterSource;
use crate::model::{DirectionTraffic, PacketCount, Phase, Record, Telemetry, Traffic};

/// The phases, as [`Phase::name`] has them.
const PHASES: [&str; 6] =
    ["preparing", "prepared", "attaching", "attached", "detaching", "unpreparing"];

/// All attachments as they were at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    attachments: Vec<Attachment>,
}

#[derive(Debug)]
struct Attachment {
    /// Who is counted: the labels that each series has.
    who: [(&'static str, String); 5],
    hook: &'static str,
    phase: &'static str,
    /// `None` where nothing counts or nothing could be read.
    traffic: Option<Traffic>,
}

impl Snapshot {
    /// Reads the counters of everything recorded. Blocks. An attachment whose counters cannot be
    /// read is counted in `metrics` and has no traffic this time: a series that is missing is
    /// honest, one that falls back to zero looks like a restart.
    pub(super) fn take(records: &[Record], source: &dyn CounterSource, metrics: &Metrics) -> Self {
        let attachment = |record: &Record| Attachment {
            who: [
                ("namespace", record.claim.namespace.clone()),
                ("pod", record.pod.name.clone()),
                ("claim", record.claim.name.clone()),
                ("device", record.device.name.to_string()),
                ("interface", record.pod_interface().to_string()),
            ],
            hook: record.datapath.as_ref().map_or("none", |spec| spec.ingress.name()),
            phase: record.phase.name(),
            traffic: counts(record).then(|| read(record, source, metrics)).flatten(),
        };
        Self { attachments: records.iter().map(attachment).collect() }
    }

    fn encode_count(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        family: &CountFamily,
    ) -> fmt::Result {
        let counter = MetricType::Counter;
        let mut metric =
            encoder.encode_descriptor(family.name, family.help, Some(&family.unit), counter)?;
        for Attachment { who, traffic, .. } in &self.attachments {
            let Some(traffic) = traffic else {
                continue;
            };
            for (direction, counted) in [("ingress", &traffic.ingress), ("egress", &traffic.egress)]
            {
                for (value, count) in (family.split)(counted) {
                    let mut labels = labels(who);
                    labels.extend([("direction", direction), (family.label, *value)]);
                    metric
                        .encode_family(&labels)?
                        .encode_counter::<NoLabelSet, _, u64>(&(family.value)(count), None)?;
                }
            }
        }
        Ok(())
    }

    fn encode_phases(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Prepared devices by phase.";
        let mut metric =
            encoder.encode_descriptor("weir_attachments", help, None, MetricType::Gauge)?;
        for phase in PHASES {
            let count = self.attachments.iter().filter(|it| it.phase == phase).count();
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            metric.encode_family(&[("phase", phase)])?.encode_gauge(&count)?;
        }
        Ok(())
    }

    fn encode_facts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Prepared devices: which hook counts and filters, and in which phase they are.";
        let mut metric =
            encoder.encode_descriptor("weir_attachment", help, None, MetricType::Info)?;
        for Attachment { who, hook, phase, .. } in &self.attachments {
            let mut labels = labels(who);
            labels.extend([("hook", *hook), ("phase", *phase)]);
            metric.encode_info(&labels)?;
        }
        Ok(())
    }
}

/// Whether there are counters to be read: a datapath that counts, and neither half made nor half
/// removed.
fn counts(record: &Record) -> bool {
    let is_made = !matches!(record.phase, Phase::Preparing | Phase::Unpreparing);
    is_made && record.datapath.as_ref().is_some_and(|spec| spec.telemetry == Telemetry::Counters)
}

fn read(record: &Record, source: &dyn CounterSource, metrics: &Metrics) -> Option<Traffic> {
    let id = record.id();
    source
        .read(&id)
        .inspect_err(|error| {
            metrics.counter_read_failed();
            // Once a scrape; the metric is what alerts are made of.
            tracing::debug!(attachment = %id, error = chain(error), "counters cannot be read");
        })
        .ok()
}

fn labels<'a>(who: &'a [(&'static str, String); 5]) -> Vec<(&'static str, &'a str)> {
    who.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// A family of counters: one number out of each count of one of the two ways to split traffic.
struct CountFamily {
    /// Without its unit, which the encoder appends.
    name: &'static str,
    help: &'static str,
    unit: Unit,
    label: &'static str,
    split: fn(&DirectionTraffic) -> &[(&'static str, PacketCount)],
    value: fn(&PacketCount) -> u64,
}

fn count_families() -> [CountFamily; 4] {
    let packets = || Unit::Other("packets".to_owned());
    [
        CountFamily {
            name: "weir",
            help: "Packets by verdict, in the direction as the pod sees it.",
            unit: packets(),
            label: "verdict",
            split: |traffic| &traffic.verdicts,
            value: |count| count.packets,
        },
        CountFamily {
            name: "weir",
            help: "Bytes of packets by verdict, link-layer header included.",
            unit: Unit::Bytes,
            label: "verdict",
            split: |traffic| &traffic.verdicts,
            value: |count| count.bytes,
        },
        CountFamily {
            name: "weir_protocol",
            help: "Packets by protocol, in the direction as the pod sees it.",
            unit: packets(),
            label: "protocol",
            split: |traffic| &traffic.protocols,
            value: |count| count.packets,
        },
        CountFamily {
            name: "weir_protocol",
            help: "Bytes of packets by protocol, link-layer header included.",
            unit: Unit::Bytes,
            label: "protocol",
            split: |traffic| &traffic.protocols,
            value: |count| count.bytes,
        },
    ]
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_phases(&mut encoder)?;
        self.encode_facts(&mut encoder)?;
        count_families().iter().try_for_each(|family| self.encode_count(&mut encoder, family))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::netns;

    #[test]
    fn every_phase_is_among_those_that_are_shown() {
        let netns = netns(1);
        for phase in [
            Phase::Preparing,
            Phase::Prepared,
            Phase::Attaching { netns: netns.clone() },
            Phase::Attached { netns: netns.clone(), inside: crate::model::IfIndex(1) },
            Phase::Detaching { netns, inside: None },
            Phase::Unpreparing,
        ] {
            assert!(PHASES.contains(&phase.name()), "{phase:?}");
        }
    }
}
