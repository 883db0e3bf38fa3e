//! Times programs, in rounds, so that whatever disturbs the machine for a while disturbs all alike.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use aya::programs::{Program, TestRun as _, TestRunOptions, TestRunResult};
use nix::time::{ClockId, clock_gettime};

/// How often a program runs at a stretch.
const REPEAT: u32 = 1_000_000;

/// A loaded program.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) program: &'static str,
}

/// A program on a packet, and what its time is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) packet: &'a [u8],
    /// The number of the baseline that is taken off.
    pub(super) against: usize,
}

/// Nanoseconds for each packet, beyond what the baseline takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Net {
    /// The best run less the baseline's best run.
    pub(super) best: f64,
    /// Of the differences, run by run.
    pub(super) median: f64,
}

impl Loaded {
    pub(super) fn get(&self) -> Result<&Program> {
        self.ebpf.program(self.program).with_context(|| format!("no program {}", self.program))
    }

    /// What the program answers.
    pub(super) fn answer(&self, packet: &[u8]) -> Result<u32> {
        Ok(self.run(packet, 1)?.return_value)
    }

    /// Nanoseconds of this thread's processor time for one run. The kernel's own answer is the same
    /// time, but in whole nanoseconds, and with what others did on this CPU meanwhile.
    fn time(&self, packet: &[u8]) -> Result<f64> {
        let start = processor_time()?;
        self.run(packet, REPEAT)?;
        let spent = processor_time()?.saturating_sub(start);
        Ok(spent.as_secs_f64() * 1e9 / f64::from(REPEAT))
    }

    fn run(&self, packet: &[u8], repeat: u32) -> Result<TestRunResult> {
        let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::new() };
        let result = match self.get()? {
            Program::Xdp(program) => program.test_run(options),
            Program::SchedClassifier(program) => program.test_run(options),
            other => bail!("{} is no program for packets: {other:?}", self.program),
        };
        result.with_context(|| format!("run {}", self.program))
    }
}

/// What this thread has had of the processor.
pub(super) fn processor_time() -> Result<Duration> {
    let time =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read the thread's clock")?;
    Ok(time.into())
}

/// Times all subjects, each next to its baseline, in `rounds` rounds.
pub(super) fn measure(
    subjects: &[Subject<'_>],
    baselines: &[Subject<'_>],
    rounds: usize,
) -> Result<Vec<Net>> {
    ensure!(rounds > 0, "nothing is measured in no rounds");
    let mut gross = vec![Vec::new(); subjects.len()];
    let mut empty = vec![Vec::new(); subjects.len()];
    for _ in 0..rounds {
        for (n, subject) in subjects.iter().enumerate() {
            let baseline = baselines.get(subject.against).context("there is no such baseline")?;
            empty[n].push(baseline.loaded.time(baseline.packet)?);
            gross[n].push(subject.loaded.time(subject.packet)?);
        }
    }
    let mut best = vec![f64::INFINITY; baselines.len()];
    for (subject, times) in subjects.iter().zip(&empty) {
        best[subject.against] = best[subject.against].min(least(times));
    }
    let nets = subjects.iter().zip(gross.iter().zip(&empty)).map(|(subject, (gross, empty))| Net {
        best: least(gross) - best[subject.against],
        median: median(gross.iter().zip(empty).map(|(gross, empty)| gross - empty).collect()),
    });
    Ok(nets.collect())
}

fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The middle one, or the mean of the two in the middle. Not a number where there are none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle)) {
        (_, None) => f64::NAN,
        (0, Some(upper)) => f64::midpoint(values[middle - 1], *upper),
        (_, Some(value)) => *value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 9.0]).to_bits(), 3.0_f64.to_bits());
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]).to_bits(), 3.0_f64.to_bits());
        assert!(median(Vec::new()).is_nan());
    }
}
