//! The filter of what is published: CEL over one device, as selectors of a DeviceClass have it.
//!
//! An expression is compiled and evaluated on a thread of its own, for two reasons. The parser
//! descends for each bracket and needs more stack than threads have; and nothing bounds what an
//! evaluation costs, so whoever asks waits for a bounded time and goes on with what there is until
//! then. A thread that a bug of the evaluator ends is followed by another one.

mod judge;

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::resource::v1;

use self::judge::Judge;

/// Enough for the longest chain of operators that an expression can be, in a build without
/// optimisation. It is address space, not memory.
const STACK: usize = 512 << 20;
/// How long compiling, or judging all devices, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A filter, compiled.
#[derive(Clone, Debug)]
pub struct Filter {
    source: Arc<str>,
    maker: Maker,
    /// How the thread is asked; another one's after the first has ended.
    jobs: Arc<Mutex<SyncSender<Job>>>,
}

/// What a filter says of a device.
pub type Verdict = Result<bool, Undecided>;

/// Why a filter says neither yes nor no.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Undecided {
    /// It was evaluated, and that failed for this device. It will the next time.
    #[error("{0}")]
    Failed(String),
    /// Nobody knows what it would have said.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// Why a filter was not evaluated to its end.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoAnswer {
    #[error("takes longer than {} s", PATIENCE.as_secs())]
    TooLong,
    #[error("an earlier evaluation has not ended yet")]
    Busy,
    #[error("its evaluation ended by a bug")]
    Ended,
    #[error("nothing to evaluate it on: {0}")]
    NoThread(String),
}

/// Why an expression was not compiled.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CompileError {
    /// What is wrong with it, in one line.
    #[error("{0}")]
    Text(String),
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

impl CompileError {
    /// Whether the same expression may be compiled another time: the machine had no room, or no time.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Text(_) | Self::NoAnswer(NoAnswer::Ended) => false,
            Self::NoAnswer(NoAnswer::TooLong | NoAnswer::Busy | NoAnswer::NoThread(_)) => true,
        }
    }
}

/// Makes of an expression what judges by it.
type Maker = fn(&str) -> Result<Judge, String>;

#[derive(Debug)]
struct Job {
    driver: String,
    devices: Vec<v1::Device>,
    deadline: Instant,
    /// Takes a verdict for each device, in their order.
    answers: mpsc::Sender<Verdict>,
}

impl Filter {
    /// Compiles an expression. Blocks for some milliseconds, and never much longer than five seconds.
    ///
    /// # Errors
    ///
    /// What is wrong with it: that it is no CEL, or that it is about something else than `device`. Or
    /// that nobody could find out.
    pub fn compile(source: &str) -> Result<Self, CompileError> {
        Self::made_by(Judge::new, source)
    }

    fn made_by(maker: Maker, source: &str) -> Result<Self, CompileError> {
        let source = Arc::from(source);
        let jobs = Arc::new(Mutex::new(start(maker, &source)?));
        Ok(Self { source, maker, jobs })
    }

    /// What the filter says of each device of `driver`, in their order. Blocks for about five seconds
    /// at most; what it said until then counts.
    pub fn judge(&self, driver: &str, devices: &[v1::Device]) -> Vec<Verdict> {
        let deadline = Instant::now() + PATIENCE;
        let mut verdicts = Vec::with_capacity(devices.len());
        while let Some(rest) = devices.get(verdicts.len()..).filter(|rest| !rest.is_empty()) {
            match self.ask(driver, rest, deadline, &mut verdicts) {
                Ok(()) => {}
                // One device may be too much for the evaluator, but not all those after it.
                Err(NoAnswer::Ended) => {
                    verdicts.push(Err(NoAnswer::Ended.into()));
                    if let Err(error) = self.restart() {
                        let why = match error {
                            CompileError::NoAnswer(why) => why,
                            CompileError::Text(error) => NoAnswer::NoThread(error),
                        };
                        verdicts.resize(devices.len(), Err(why.into()));
                    }
                }
                Err(other) => verdicts.resize(devices.len(), Err(other.into())),
            }
        }
        verdicts
    }

    /// Adds what the thread says of `devices` until it ends or the time does.
    fn ask(
        &self,
        driver: &str,
        devices: &[v1::Device],
        deadline: Instant,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), NoAnswer> {
        let (answers, answered) = mpsc::channel();
        let (driver, devices) = (driver.to_owned(), devices.to_vec());
        let count = devices.len();
        let job = Job { driver, devices, deadline, answers };
        self.jobs().try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => NoAnswer::Busy,
            TrySendError::Disconnected(_) => NoAnswer::Ended,
        })?;
        for _ in 0..count {
            let left = deadline.saturating_duration_since(Instant::now());
            let verdict = answered.recv_timeout(left).map_err(|error| match error {
                // The thread gives up by itself when the time is over.
                RecvTimeoutError::Disconnected if Instant::now() < deadline => NoAnswer::Ended,
                _ => NoAnswer::TooLong,
            })?;
            verdicts.push(verdict);
        }
        Ok(())
    }

    /// Has another thread evaluate from now on.
    fn restart(&self) -> Result<(), CompileError> {
        tracing::error!("the evaluation of publish.filter ended by a bug, and is started anew");
        *self.jobs() = start(self.maker, &self.source)?;
        Ok(())
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, SyncSender<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that evaluates `source`, for as long as somebody may ask it.
fn start(maker: Maker, source: &Arc<str>) -> Result<SyncSender<Job>, CompileError> {
    let (jobs, incoming) = mpsc::sync_channel::<Job>(1);
    let (compiled, outcome) = mpsc::sync_channel(1);
    let source = Arc::clone(source);
    let work = move || {
        let judge = match maker(&source) {
            Ok(judge) => judge,
            Err(error) => return drop(compiled.send(Err(error))),
        };
        let _ = compiled.send(Ok(()));
        while let Ok(job) = incoming.recv() {
            work_off(&judge, &job);
        }
    };
    thread::Builder::new()
        .name("filter".to_owned())
        .stack_size(STACK)
        .spawn(work)
        .map_err(|error| NoAnswer::NoThread(error.to_string()))?;
    let outcome = outcome.recv_timeout(PATIENCE).map_err(|error| match error {
        RecvTimeoutError::Timeout => NoAnswer::TooLong,
        RecvTimeoutError::Disconnected => NoAnswer::Ended,
    })?;
    outcome.map_err(CompileError::Text)?;
    Ok(jobs)
}

/// Whoever asked may have gone on meanwhile.
fn work_off(judge: &Judge, job: &Job) {
    for device in &job.devices {
        let verdict = judge.one(&job.driver, device);
        if job.answers.send(verdict).is_err() || Instant::now() > job.deadline {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, pool};
    use crate::dra::slices::{Terms, render};

    fn judge(source: &str) -> Verdict {
        let pool = pool();
        let slices = render(&[device("eth1")], &Terms::of(&pool), 1);
        let devices: Vec<_> =
            slices.into_iter().filter_map(|slice| slice.spec.devices).flatten().collect();
        let filter =
            Filter::compile(source).map_err(|error| Undecided::Failed(error.to_string()))?;
        filter.judge("weir.dev", &devices).remove(0)
    }

    /// What is wrong with a text that is refused for good.
    fn refused(source: &str) -> String {
        let error = Filter::compile(source).unwrap_err();
        assert!(!error.may_pass(), "{error}");
        error.to_string()
    }

    #[test]
    fn a_filter_sees_what_a_selector_sees() {
        for fits in [
            "device.driver == 'weir.dev'",
            "device.attributes[\"weir.dev\"].ifName == 'eth1'",
            "device.attributes['weir.dev'].kernelVersion.isGreaterThan(semver('6.6.0'))",
            "!has(device.attributes['gce.dra.net'].block)",
            "['eth0', 'eth1'].exists(name, device.attributes['weir.dev'].ifName == name)",
            "!device.allowMultipleAllocations",
        ] {
            assert_eq!(judge(fits), Ok(true), "{fits}");
        }
        assert_eq!(judge("device.attributes['weir.dev'].ifName == 'eth2'"), Ok(false));
    }

    #[test]
    fn what_cannot_be_decided_is_an_error() {
        for (source, said) in [
            ("device.attributes['weir.dev'].nothing", "nothing"),
            ("device.driver", "neither true nor false"),
            ("1 / 0 == 1", "zero"),
        ] {
            let error = judge(source).unwrap_err();
            assert!(matches!(error, Undecided::Failed(_)), "{source}: {error:?}");
            assert!(error.to_string().to_lowercase().contains(said), "{source}: {error}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_before_any_device_is_there() {
        for (source, said) in [
            ("device.driver ==", "error"),
            ("node.name == 'a'", "\"node\" is not known here"),
            ("attributes['a']", "\"attributes\" is not known here"),
        ] {
            let error = refused(source);
            assert!(error.to_lowercase().contains(said) && !error.contains('\n'), "{error}");
        }
        let nested = |depth| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
        assert!(Filter::compile(&nested(32)).is_ok());
        assert!(refused(&nested(33)).contains("deeper than 32"));
        assert!(Filter::compile(&nested(100_000)).is_err());
    }

    /// What is too much for the parser is for it to say, but must not end the process.
    #[test]
    fn no_filter_that_is_short_enough_overflows_the_stack() {
        let long = |part: &str, end: &str| part.repeat((10 * 1024 - end.len()) / part.len()) + end;
        for source in [
            long("1+", "1 == 1"),
            long("!", "true"),
            long("-", "1 == 1"),
            long("true ? true : ", "true"),
            long("true || ", "true"),
            format!("device{}", long(".a", "")),
            format!("'a'{}", long(".trim()", " == 'a'")),
        ] {
            if let Ok(filter) = Filter::compile(&source) {
                filter.judge("weir.dev", &[v1::Device::default()]);
            }
        }
    }

    #[test]
    fn a_filter_that_takes_too_long_is_given_up() {
        let list = format!("[{}]", vec!["0"; 1000].join(","));
        let filter = format!("{list}.all(a, {list}.all(b, a + b == 0))");
        let filter = Filter::compile(&filter).unwrap();
        let verdicts = filter.judge("weir.dev", &vec![v1::Device::default(); 10_000]);
        assert_eq!(verdicts.len(), 10_000);
        assert_eq!(verdicts.last(), Some(&Err(NoAnswer::TooLong.into())));
        assert_eq!(NoAnswer::TooLong.to_string(), "takes longer than 5 s");

        let deeper = "[0].all(a, [0].all(b, [0].all(c, a == b)))";
        assert!(refused(deeper).contains("nested deeper than 2"));
        assert!(Filter::compile("[0].map(a, a).map(a, a).all(a, a == 0)").is_ok());
    }

    #[test]
    fn what_would_end_the_evaluator_or_fill_the_memory_is_refused() {
        for (source, said) in [
            ("Foo{}", "Foo{}"),
            ("Foo{a: 1}.a == 1", "Foo{}"),
            ("[[0]].flatten().all(a, a == 0)", "flatten()"),
            ("lists.range(9).all(a, a >= 0)", "range()"),
        ] {
            let error = refused(source);
            assert!(error.starts_with(said), "{source}: {error}");
        }
        assert_eq!(
            judge("sets.contains(['eth1'], [device.attributes['weir.dev'].ifName])"),
            Ok(true)
        );
    }

    /// Ends the evaluator where the interface is called so.
    const DEADLY: &str = "device.attributes['weir.dev'].ifName == 'eth2' ? Foo{a: 1}.a == 1 : true";

    #[test]
    fn a_device_that_ends_the_evaluator_hides_no_other_one() {
        let filter = Filter::made_by(Judge::unchecked, DEADLY).unwrap();
        let pool = pool();
        let devices = ["eth1", "eth2", "eth3"].map(device);
        let slices = render(&devices, &Terms::of(&pool), 1);
        let seen: Vec<_> =
            slices.into_iter().filter_map(|slice| slice.spec.devices).flatten().collect();
        for _ in 0..2 {
            let verdicts = filter.judge("weir.dev", &seen);
            assert_eq!(verdicts, [Ok(true), Err(NoAnswer::Ended.into()), Ok(true)]);
        }
    }
}
