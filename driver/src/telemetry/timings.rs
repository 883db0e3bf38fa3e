//! How long the driver's own work takes, part by part.

use std::time::{Duration, Instant};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

type Label = (&'static str, &'static str);
type Durations = Family<[Label; 1], Histogram>;

/// A part of what preparing or attaching a device takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Getting a claim from the API server.
    Fetch,
    /// Reading its configuration, all devices of a claim together.
    Parse,
    /// Looking at the node, one look.
    Observe,
    /// Compiling a filter, which is part of loading.
    Compile,
    /// Loading programs and maps into the kernel, the verifier's work included.
    Load,
    /// Attaching and pinning them.
    Attach,
    /// Writing the checkpoint, once.
    Checkpoint,
}

impl Part {
    fn label(self) -> Label {
        let part = match self {
            Self::Fetch => "fetch",
            Self::Parse => "parse",
            Self::Observe => "observe",
            Self::Compile => "compile",
            Self::Load => "load",
            Self::Attach => "attach",
            Self::Checkpoint => "checkpoint",
        };
        ("part", part)
    }
}

/// Where parts and steps report how long they took. Clones share everything; one that is in no
/// registry is shown to nobody.
#[derive(Clone, Debug)]
pub struct Timings {
    parts: Durations,
    steps: Durations,
}

impl Default for Timings {
    fn default() -> Self {
        // From 50 µs, which one request to the kernel takes, to 1.6 s, which is most of a hook's time.
        let histogram = || Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        let durations = || Durations::new_with_constructor(histogram as fn() -> Histogram);
        Self { parts: durations(), steps: durations() }
    }
}

impl Timings {
    /// Timings that `registry` shows.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let timings = Self::default();
        registry.register_with_unit(
            "weir_part_duration",
            "Time that a part of preparing or attaching took; a step may have several",
            Unit::Seconds,
            timings.parts.clone(),
        );
        registry.register_with_unit(
            "weir_step_duration",
            "Time that a change to the node took, also one that failed",
            Unit::Seconds,
            timings.steps.clone(),
        );
        timings
    }

    /// Does a part of the work, and notes how long it took.
    pub fn of<T>(&self, part: Part, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let outcome = work();
        self.took(part, begun.elapsed());
        outcome
    }

    pub fn took(&self, part: Part, duration: Duration) {
        self.parts.get_or_create(&[part.label()]).observe(duration.as_secs_f64());
    }

    /// Notes how long a step took, by its kind.
    pub fn step_took(&self, kind: &'static str, duration: Duration) {
        self.steps.get_or_create(&[("step", kind)]).observe(duration.as_secs_f64());
    }
}
