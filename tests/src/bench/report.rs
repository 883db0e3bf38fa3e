//! What was measured, as every benchmark of the project says it: one JSON object, or a table.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::rounds::Net;

/// What it was measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
}

/// One number.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
}

/// What the kernel says about a loaded program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Instructions that the verifier looked at.
    pub(super) verified: u32,
    pub(super) translated_bytes: u32,
    pub(super) jited_bytes: u32,
}

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) costs: Vec<(String, Net)>,
    pub(super) sizes: Vec<(String, Size)>,
    pub(super) others: Vec<Measurement>,
    /// Why peers are not among them.
    pub(super) absent: Vec<String>,
}

impl Machine {
    pub(super) fn this() -> Result<Self> {
        let read = |path| fs::read_to_string(path).with_context(|| format!("read {path}"));
        let cpus = read("/proc/cpuinfo")?;
        let field = |name| {
            let value = |line: &str| Some(line.strip_prefix(name)?.split_once(':')?.1.to_owned());
            cpus.lines().find_map(value).map(|value| value.trim().to_owned())
        };
        Ok(Self {
            // Not every architecture has the first.
            cpu: field("model name").or_else(|| field("CPU part")).unwrap_or_default(),
            cores: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

/// Numbers and where they were measured, for programs.
pub(super) fn json(machine: &Machine, results: Vec<Measurement>) -> Result<String> {
    #[derive(Serialize)]
    struct Object<'a> {
        machine: &'a Machine,
        results: Vec<Measurement>,
    }
    serde_json::to_string_pretty(&Object { machine, results }).context("write the report")
}

impl Report {
    /// Every number under a name of its own.
    pub(super) fn results(&self) -> Vec<Measurement> {
        let mut results = Vec::new();
        for (name, net) in &self.costs {
            results.push(measurement(name.clone(), net.best, "ns"));
            results.push(measurement(format!("{name}_median"), net.median, "ns"));
        }
        for (name, size) in &self.sizes {
            let numbers = [
                ("verified", size.verified, "instructions"),
                ("xlated", size.translated_bytes, "bytes"),
                ("jited", size.jited_bytes, "bytes"),
            ];
            for (what, number, unit) in numbers {
                results.push(measurement(format!("{name}_{what}"), number.into(), unit));
            }
        }
        results.extend(self.others.iter().cloned());
        results
    }

    pub(super) fn json(&self) -> Result<String> {
        json(&self.machine, self.results())
    }

    pub(super) fn cost(&self, name: &str) -> Option<Net> {
        self.costs.iter().find(|(other, _)| other == name).map(|(_, net)| *net)
    }

    pub(super) fn other(&self, name: &str) -> Option<f64> {
        self.others.iter().find(|other| other.name == name).map(|other| other.value)
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let Machine { cpu, cores, kernel } = &self.machine;
        let mut text = format!("{cpu}, {cores} cores, Linux {kernel}\n\n");
        let mut line = |name: &str, values: [String; 2]| {
            let [first, second] = values;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:32}{first:>12}{second:>12}");
        };
        line("ns net", ["best".to_owned(), "median".to_owned()]);
        for (name, Net { best, median }) in &self.costs {
            line(name, [format!("{best:.1}"), format!("{median:.1}")]);
        }
        for Measurement { name, value, unit } in &self.others {
            line(name, [format!("{value:.3}"), (*unit).to_owned()]);
        }
        let _ = writeln!(text, "\n{:32}{:>12}{:>12}{:>12}", "size", "verified", "xlated", "jited");
        for (name, size) in &self.sizes {
            let Size { verified, translated_bytes, jited_bytes } = size;
            let _ =
                writeln!(text, "{name:32}{verified:>12}{translated_bytes:>12}{jited_bytes:>12}");
        }
        for absent in &self.absent {
            let _ = writeln!(text, "\nabsent: {absent}");
        }
        text
    }
}

pub(super) fn measurement(name: impl Into<String>, value: f64, unit: &'static str) -> Measurement {
    Measurement { name: name.into(), value, unit }
}
