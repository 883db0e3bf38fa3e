//! What pods' datapaths counted, read at the moment of a scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::families::{FAMILIES, Family, Kind};
use super::{Metrics, Sightings, chain};
use crate::datapath::{CounterError, CounterSource};
use crate::model::{Ahead, DatapathSpec, Phase, Record, RuleTraffic, Telemetry, Traffic};

/// The phases, as [`Phase::name`] has them.
const PHASES: [&str; 6] =
    ["preparing", "prepared", "attaching", "attached", "detaching", "unpreparing"];

/// All attachments as they were at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    attachments: Vec<Attachment>,
}

/// What is told of one. `None` is what there is not, or what could not be read.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Who is counted: the labels that each series has.
    who: [(&'static str, String); 5],
    /// Labels of what never changes, beside the phase.
    facts: [(&'static str, &'static str); 5],
    phase: &'static str,
    pub(super) traffic: Option<Traffic>,
    pub(super) rules: Vec<RuleTraffic>,
    pub(super) generation: Option<u32>,
    pub(super) memory: Option<u64>,
    pub(super) ahead: Option<Ahead>,
    /// How many steps of its way back failed last.
    pub(super) residue: usize,
}

impl Snapshot {
    /// Reads the counters of everything recorded. Blocks. An attachment whose counters cannot be
    /// read is counted in `metrics` and has no traffic this time: a series that is missing is
    /// honest, one that falls back to zero looks like a restart.
    pub(super) fn take(
        records: &[Record],
        source: &dyn CounterSource,
        sightings: &Sightings,
        metrics: &Metrics,
    ) -> Self {
        let reader = Reader { source, metrics };
        let attachment = |record: &Record| {
            let spec = record.datapath.as_ref().filter(|_| is_made(record));
            let counts = spec.filter(|spec| spec.telemetry != Telemetry::Off);
            Attachment {
                who: who(record),
                facts: facts(record),
                phase: record.phase.name(),
                traffic: counts.and_then(|_| reader.read(record, |it, spec| it.read(&spec.id))),
                rules: spec
                    .and_then(|_| reader.read(record, |it, spec| it.rules(spec)))
                    .unwrap_or_default(),
                // While programs are replaced, or could not be, nobody knows which one is in force.
                generation: spec.filter(|_| record.build.is_known()).map(|spec| spec.generation),
                memory: spec.and_then(|_| reader.read(record, |it, spec| it.memory(&spec.id))),
                ahead: spec.and_then(|spec| Some(sightings.get(&spec.id)?.ahead.clone())),
                residue: record.residue.len(),
            }
        };
        Self { attachments: records.iter().map(attachment).collect() }
    }

    fn encode_family(&self, encoder: &mut DescriptorEncoder<'_>, family: &Family) -> fmt::Result {
        let unit = family.unit.map(|unit| Unit::Other(unit.to_owned()));
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        let mut metric =
            encoder.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
        for attachment in &self.attachments {
            for (further, value) in (family.samples)(attachment) {
                let mut labels = labels(&attachment.who);
                labels.extend(further);
                let mut series = metric.encode_family(&labels)?;
                match family.kind {
                    Kind::Counter => series.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                    Kind::Gauge => series.encode_gauge(&value)?,
                }
            }
        }
        Ok(())
    }

    fn encode_sizes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "Packets by size, link-layer header included, in the direction as the pod sees it.";
        let kind = MetricType::Histogram;
        let mut metric =
            encoder.encode_descriptor("weir_packet_size", help, Some(&Unit::Bytes), kind)?;
        for Attachment { who, traffic, .. } in &self.attachments {
            for (direction, counted) in traffic.iter().flat_map(Traffic::directions) {
                let limit = |limit: Option<u32>| limit.map_or(f64::INFINITY, f64::from);
                let buckets: Vec<_> =
                    counted.sizes.iter().map(|&(most, packets)| (limit(most), packets)).collect();
                let packets = buckets.iter().map(|(_, packets)| packets).sum();
                let mut labels = labels(who);
                labels.push(("direction", direction));
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "the format has no other sums, and 2^53 bytes are 8 PiB"
                )]
                let sum = counted.total.bytes as f64;
                metric
                    .encode_family(&labels)?
                    .encode_histogram::<NoLabelSet>(sum, packets, &buckets, None)?;
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
        let help = "Prepared devices: which hooks count and filter and why, and the phase.";
        let mut metric =
            encoder.encode_descriptor("weir_attachment", help, None, MetricType::Info)?;
        for Attachment { who, facts, phase, .. } in &self.attachments {
            let mut labels = labels(who);
            labels.extend(facts.iter().copied());
            labels.push(("phase", *phase));
            metric.encode_info(&labels)?;
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_phases(&mut encoder)?;
        self.encode_facts(&mut encoder)?;
        self.encode_sizes(&mut encoder)?;
        FAMILIES.iter().try_for_each(|family| self.encode_family(&mut encoder, family))
    }
}

/// Reads, and counts what could not be read.
struct Reader<'a> {
    source: &'a dyn CounterSource,
    metrics: &'a Metrics,
}

impl Reader<'_> {
    fn read<T>(
        &self,
        record: &Record,
        read: impl FnOnce(&dyn CounterSource, &DatapathSpec) -> Result<T, CounterError>,
    ) -> Option<T> {
        let spec = record.datapath.as_ref()?;
        read(self.source, spec)
            .inspect_err(|error| {
                self.metrics.counter_read_failed();
                // Once a scrape; the metric is what alerts are made of.
                tracing::debug!(attachment = %spec.id, error = chain(error), "cannot be read");
            })
            .ok()
    }
}

/// Whether the datapath is neither half made nor half removed.
fn is_made(record: &Record) -> bool {
    !matches!(record.phase, Phase::Preparing | Phase::Unpreparing)
}

fn who(record: &Record) -> [(&'static str, String); 5] {
    [
        ("namespace", record.claim.namespace.clone()),
        ("pod", record.pod.name.clone()),
        ("claim", record.claim.name.clone()),
        ("device", record.device.name.to_string()),
        ("interface", record.called().to_owned()),
    ]
}

/// All from closed sets.
fn facts(record: &Record) -> [(&'static str, &'static str); 5] {
    let spec = record.datapath.as_ref();
    let telemetry = match spec.map(|spec| spec.telemetry) {
        None | Some(Telemetry::Off) => "off",
        Some(Telemetry::Counters) => "counters",
        Some(Telemetry::Flows) => "flows",
    };
    let is_degraded = spec.is_some_and(DatapathSpec::is_degraded);
    [
        ("hook", spec.map_or("none", |spec| spec.ingress.name())),
        ("egress", spec.map_or("none", |spec| spec.egress.name())),
        ("reason", spec.map_or("none", |spec| spec.why.name())),
        ("degraded", if is_degraded { "true" } else { "false" }),
        ("telemetry", telemetry),
    ]
}

fn labels<'a>(who: &'a [(&'static str, String); 5]) -> Vec<(&'static str, &'a str)> {
    who.iter().map(|(name, value)| (*name, value.as_str())).collect()
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
