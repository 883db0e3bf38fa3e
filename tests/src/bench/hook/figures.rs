//! What was measured, as numbers with names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;

use super::super::report::{Machine, Measurement, json, measurement};

/// All rounds with one number of devices. What a round spent on parts and steps is in seconds.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) hook: Vec<Duration>,
    pub(super) bare: Vec<Duration>,
    pub(super) prepare: Vec<Duration>,
    pub(super) of_hook: BTreeMap<String, Vec<f64>>,
    pub(super) of_prepare: BTreeMap<String, Vec<f64>>,
}

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) machine: Machine,
    pub(super) one: Rounds,
    pub(super) eight: Rounds,
}

const MS: &str = "ms";

impl Figures {
    /// Every number under a name of its own.
    pub(super) fn results(&self) -> Vec<Measurement> {
        let mut results = Vec::new();
        for (which, rounds) in [("1nic", &self.one), ("8nic", &self.eight)] {
            let (hook, bare) = (millis(&rounds.hook), millis(&rounds.bare));
            let ratio = quantile(&hook, 0.5) / quantile(&bare, 0.5);
            results.push(measurement(format!("hook_{which}_p50_ratio"), ratio, "times"));
            for (what, values) in [("", &hook), ("_bare", &bare)] {
                for (name, at) in [("p50", 0.5), ("p99", 0.99)] {
                    let name = format!("hook_{which}{what}_{name}_ms");
                    results.push(measurement(name, quantile(values, at), MS));
                }
            }
            results.push(measurement(format!("hook_{which}_rounds"), count(&hook), "rounds"));
            parts(&format!("hook_{which}"), &rounds.of_hook, &mut results);
        }
        let (one, eight) = (millis(&self.one.prepare), millis(&self.eight.prepare));
        for (prefix, values) in [("prepare", one), ("prepare_8nic", eight)] {
            for (name, at) in [("p50", 0.5), ("p99", 0.99)] {
                results.push(measurement(format!("{prefix}_{name}_ms"), quantile(&values, at), MS));
            }
        }
        parts("prepare", &self.one.of_prepare, &mut results);
        results
    }

    pub(super) fn json(&self) -> Result<String> {
        json(&self.machine, self.results())
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let Machine { cpu, cores, kernel } = &self.machine;
        let mut text = format!("{cpu}, {cores} cores, Linux {kernel}\n\n");
        for Measurement { name, value, unit } in self.results() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:40}{value:>12.3} {unit}");
        }
        text
    }
}

/// The median of what rounds spent on each part; nothing for a part on which they spent nothing.
fn parts(prefix: &str, spent: &BTreeMap<String, Vec<f64>>, results: &mut Vec<Measurement>) {
    for (part, seconds) in spent {
        let median = quantile(seconds, 0.5) * 1e3;
        if median > 0.0 {
            results.push(measurement(format!("{prefix}_{part}_ms"), median, MS));
        }
    }
}

fn millis(durations: &[Duration]) -> Vec<f64> {
    durations.iter().map(|duration| duration.as_secs_f64() * 1e3).collect()
}

#[expect(clippy::cast_precision_loss, reason = "rounds are few")]
fn count(values: &[f64]) -> f64 {
    values.len() as f64
}

/// The smallest value that as large a share of them does not exceed; 0 of none.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a small number, not negative"
    )]
    let place = (share * count(&sorted)).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the project's other benchmarks, and people, look for.
    const PROMISED: [&str; 6] = [
        "hook_1nic_p50_ms",
        "hook_1nic_p50_ratio",
        "hook_8nic_p99_ms",
        "prepare_p50_ms",
        "prepare_load_ms",
        "prepare_attach_ms",
    ];

    pub(in super::super) fn figures() -> Figures {
        let rounds = || Rounds {
            hook: vec![Duration::from_millis(24); 3],
            bare: vec![Duration::from_millis(20); 3],
            prepare: vec![Duration::from_millis(60); 3],
            of_hook: [("checkpoint", 0.002), ("step_move", 0.020)]
                .map(|(name, value)| (name.to_owned(), vec![value]))
                .into(),
            of_prepare: [("load", 0.05), ("attach", 0.001), ("fetch", 0.0)]
                .map(|(name, value)| (name.to_owned(), vec![value]))
                .into(),
        };
        let machine = Machine { cpu: "a CPU".to_owned(), cores: 2, kernel: "6.18".to_owned() };
        Figures { machine, one: rounds(), eight: rounds() }
    }

    #[test]
    fn the_json_has_every_promised_name_once() {
        let json: serde_json::Value = serde_json::from_str(&figures().json().unwrap()).unwrap();
        let results = json["results"].as_array().unwrap();
        let mut names: Vec<_> = results.iter().map(|it| it["name"].as_str().unwrap()).collect();
        for name in PROMISED {
            assert!(names.contains(&name), "{name}");
        }
        assert!(!names.contains(&"prepare_fetch_ms"), "it took no time, so it was not done");
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "a name stands for two numbers");
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let at = |share: f64| format!("{:.1}", quantile(&values, share));
        assert_eq!([at(0.5), at(0.99), at(1.0)], ["50.0", "99.0", "100.0"]);
        assert_eq!(format!("{:.1}", quantile(&[], 0.5)), "0.0");
    }
}
