//! What every Prometheus client tells of its process, under the names that all of them use.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// This process, looked at for each scrape. What cannot be read is left out.
#[derive(Debug)]
pub(super) struct ThisProcess {
    start_seconds: f64,
}

impl ThisProcess {
    /// To be made when the process starts.
    pub(super) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start_seconds: since.as_secs_f64() }
    }
}

impl Collector for ThisProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let start = ConstGauge::new(self.start_seconds);
        let kind = start.metric_type();
        start.encode(encoder.encode_descriptor(
            "process_start_time",
            "When the process started, in seconds since 1970.",
            Some(&Unit::Seconds),
            kind,
        )?)?;
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let cpu = ConstCounter::new(seconds(usage.user_time()) + seconds(usage.system_time()));
            let kind = cpu.metric_type();
            cpu.encode(encoder.encode_descriptor(
                "process_cpu",
                "Processor time that the process has used.",
                Some(&Unit::Seconds),
                kind,
            )?)?;
        }
        let gauges = [
            ("process_resident_memory", "Memory of the process.", Some(Unit::Bytes), resident()),
            ("process_open_fds", "Open file descriptors of the process.", None, open_files()),
        ];
        for (name, help, unit, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "285 years of processor time are exact enough")]
fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

/// In bytes; the kernel tells kibibytes (`VmRSS` of proc(5)).
fn resident() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn open_files() -> Option<i64> {
    // The directory itself is open while it is read.
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    i64::try_from(count).ok()
}
