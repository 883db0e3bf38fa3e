//! What the driver counts of its own work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::Timings;
use super::process::ThisProcess;
use crate::attach::{NoticeKind, Provisioned};

type Label = (&'static str, &'static str);

/// How a request of kubelet or of the runtime ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Success,
    Failed,
    /// It was about a pod that has no device of ours.
    NotOurs,
}

impl Outcome {
    fn label(self) -> Label {
        let outcome = match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::NotOurs => "not_ours",
        };
        ("outcome", outcome)
    }
}

/// Counters and gauges of the driver itself. What pods' datapaths counted is not kept here: it is
/// read when somebody scrapes.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    dra: Requests,
    nri: Requests,
    attach_errors: Family<[Label; 1], Counter>,
    notices: Family<[Label; 1], Counter>,
    counter_read_errors: Counter,
    watch_errors: Counter,
    published_devices: Gauge,
    published_slices: Gauge,
    undecided: Family<[Label; 1], Gauge>,
    nri_connected: Gauge,
    provisioned: Family<[Label; 1], Gauge>,
    timings: Timings,
}

/// Requests of one peer: how many, and how long they took.
#[derive(Clone, Debug)]
struct Requests {
    total: Family<[Label; 2], Counter>,
    duration: Family<[Label; 1], Histogram>,
}

impl Requests {
    fn registered(registry: &mut Registry, peer: &str, whose: &str) -> Self {
        // From 1 ms to 8 s: a hook has less than 2 s, kubelet waits longer.
        let histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let requests = Self {
            total: Family::default(),
            duration: Family::new_with_constructor(histogram as fn() -> Histogram),
        };
        registry.register(
            format!("weir_{peer}_requests"),
            format!("Requests of {whose} that were answered"),
            requests.total.clone(),
        );
        registry.register_with_unit(
            format!("weir_{peer}_request_duration"),
            format!("Time to answer a request of {whose}"),
            Unit::Seconds,
            requests.duration.clone(),
        );
        requests
    }

    fn answered(&self, what: Label, outcome: Outcome, took: Duration) {
        self.total.get_or_create(&[what, outcome.label()]).inc();
        self.duration.get_or_create(&[what]).observe(took.as_secs_f64());
    }
}

/// A metric that `registry` shows.
fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("weir_build", "The version of the driver", version);
        registry.register_collector(Box::new(ThisProcess::new()));
        Arc::new(Self {
            dra: Requests::registered(&mut registry, "dra", "kubelet"),
            nri: Requests::registered(&mut registry, "nri", "the container runtime"),
            attach_errors: registered(
                &mut registry,
                "weir_attach_errors",
                "Devices that could not be prepared, attached or given back",
            ),
            notices: registered(
                &mut registry,
                "weir_notices",
                "Failures and devices not as they should be, of which claims and pods are told by events",
            ),
            counter_read_errors: registered(
                &mut registry,
                "weir_counter_read_errors",
                "Attachments whose counters could not be read when asked for",
            ),
            watch_errors: registered(
                &mut registry,
                "weir_watch_errors",
                "Attachments of which nobody could tell whether programs run before ours",
            ),
            published_devices: registered(
                &mut registry,
                "weir_published_devices",
                "Devices in the ResourceSlices of this node",
            ),
            published_slices: registered(
                &mut registry,
                "weir_published_slices",
                "ResourceSlices of this node",
            ),
            undecided: registered(
                &mut registry,
                "weir_filter_undecided_devices",
                "Devices of which the filter said neither yes nor no when it was asked last",
            ),
            nri_connected: registered(
                &mut registry,
                "weir_nri_connected",
                "Whether the container runtime has synchronized with this plugin",
            ),
            provisioned: registered(
                &mut registry,
                "weir_sriov_provisioned",
                "Physical functions, or rules without any, by what became of their virtual functions",
            ),
            timings: Timings::registered(&mut registry),
            registry,
        })
    }

    /// Counts an answered request of kubelet.
    pub fn dra_request(&self, method: &'static str, outcome: Outcome, took: Duration) {
        self.dra.answered(("method", method), outcome, took);
    }

    /// Counts an answered event of the runtime.
    pub fn nri_request(&self, event: &'static str, outcome: Outcome, took: Duration) {
        self.nri.answered(("event", event), outcome, took);
    }

    /// Counts a failure by its reason, as `AttachError::reason` has it.
    pub fn attach_error(&self, reason: &'static str) {
        self.attach_errors.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a notice by its reason.
    pub fn noticed(&self, kind: NoticeKind) {
        self.notices.get_or_create(&[("reason", kind.reason())]).inc();
    }

    /// Tells of how many devices the filter failed, and of how many it did not answer.
    pub fn filtered(&self, failed: usize, unanswered: usize) {
        for (why, count) in [("failed", failed), ("no_answer", unanswered)] {
            self.undecided.get_or_create(&[("why", why)]).set(gauge(count));
        }
    }

    /// Tells what is published now.
    pub fn published(&self, devices: usize, slices: usize) {
        self.published_devices.set(gauge(devices));
        self.published_slices.set(gauge(slices));
    }

    pub fn nri_connected(&self, connected: bool) {
        self.nri_connected.set(i64::from(connected));
    }

    /// Tells what became of a physical function for which the configuration has a rule.
    pub fn provisioned(&self, one: &Provisioned) {
        self.provisioned.get_or_create(&[("outcome", one.outcome())]).inc();
    }

    /// Where parts of the work report how long they took.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    pub(super) fn counter_read_failed(&self) {
        self.counter_read_errors.inc();
    }

    pub(super) fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// Writes all of it as `OpenMetrics` text, without the mark of the end.
    pub(super) fn encode(&self, text: &mut String) -> fmt::Result {
        encode_registry(text, &self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Part;
    use super::*;

    fn text_of(metrics: &Metrics) -> String {
        let mut text = String::new();
        metrics.encode(&mut text).unwrap();
        text
    }

    #[test]
    fn requests_are_counted_by_outcome_and_timed() {
        let metrics = Metrics::new();
        metrics.dra_request("NodePrepareResources", Outcome::Success, Duration::from_millis(3));
        metrics.dra_request("NodePrepareResources", Outcome::Failed, Duration::from_mins(1));
        metrics.nri_request("RunPodSandbox", Outcome::NotOurs, Duration::ZERO);
        metrics.attach_error("out_of_time");
        metrics.noticed(NoticeKind::RunningWithout);
        metrics.filtered(1, 2);
        metrics.timings().step_took("move", Duration::from_millis(21));
        metrics.timings().took(Part::Load, Duration::from_millis(9));

        let text = text_of(&metrics);

        for line in [
            r#"weir_dra_requests_total{method="NodePrepareResources",outcome="success"} 1"#,
            r#"weir_dra_requests_total{method="NodePrepareResources",outcome="failed"} 1"#,
            r#"weir_dra_request_duration_seconds_count{method="NodePrepareResources"} 2"#,
            r#"weir_dra_request_duration_seconds_bucket{le="0.004",method="NodePrepareResources"} 1"#,
            r#"weir_nri_requests_total{event="RunPodSandbox",outcome="not_ours"} 1"#,
            r#"weir_nri_request_duration_seconds_count{event="RunPodSandbox"} 1"#,
            r#"weir_attach_errors_total{reason="out_of_time"} 1"#,
            r#"weir_notices_total{reason="RunningWithoutDevice"} 1"#,
            r#"weir_filter_undecided_devices{why="failed"} 1"#,
            r#"weir_filter_undecided_devices{why="no_answer"} 2"#,
            r#"weir_step_duration_seconds_sum{step="move"} 0.021"#,
            r#"weir_part_duration_seconds_count{part="load"} 1"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_process_is_told_of_as_everywhere() {
        let text = text_of(&Metrics::new());
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
        };
        // After the year 2020.
        assert!(value("process_start_time_seconds") > 1.577e9);
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
    }

    #[test]
    fn gauges_tell_what_is_now() {
        let metrics = Metrics::new();
        metrics.published(129, 2);
        metrics.nri_connected(true);
        let text = text_of(&metrics);
        assert!(text.contains("\nweir_published_devices 129\n"), "{text}");
        assert!(text.contains("\nweir_published_slices 2\n"), "{text}");
        assert!(text.contains("\nweir_nri_connected 1\n"), "{text}");
        assert!(text.contains("weir_build_info{version=\"0.1.0\"} 1\n"), "{text}");

        let rule = crate::model::SriovRule {
            pf: crate::model::PfSelector::Interface("eth9".parse().unwrap()),
            num_vfs: 2,
        };
        let decided = crate::plan::Provision::Unmatched { rule };
        metrics.provisioned(&Provisioned { decided, failure: None });
        let line = "weir_sriov_provisioned{outcome=\"unmatched\"} 1\n";
        assert!(text_of(&metrics).contains(line));

        metrics.nri_connected(false);
        assert!(text_of(&metrics).contains("\nweir_nri_connected 0\n"));
    }
}
