//! Three readings of the same packets under the same filters: the oracle's, that of `common` on the
//! host, and that of the loaded programs.

use std::collections::HashMap;
use std::thread;

use common::Used;
use driver::model::{DatapathSpec, DefaultAction, DirectionFilter, Filter, IngressHook, Telemetry};
use driver::policy::{self, Compiled, CompiledDirection};
use driver::sys::clock;
use fastrand::Rng;
use tests::oracle::random::{self, Size};

use super::cases::{Case, PACKETS, Tally};
use super::loaded::Loaded;
use super::spec;

/// Of all filters, one in so many is also given programs of its own.
const EXACT: usize = 20;

/// Programs are loaded for each form of filter once, and look at every field of a packet.
#[test]
fn a_million_packets_fare_alike_under_a_thousand_filters() {
    let hz = clock::ticks_per_second().unwrap();
    let numbers: Vec<_> = (0..random::filters()).collect();
    let tally = on_all_processors(&numbers, &|nth, stages| {
        let mut rng = Rng::with_seed(random::seed() + nth);
        let mut form = Form::of(nth);
        let filter = form.filter(&mut rng);
        let compiled = form.compile(&filter, hz);
        let general = policy::generalise(&compiled);
        let loaded = stages
            .0
            .entry(form)
            .or_insert_with(|| Loaded::on_stage(&spec(IngressHook::Tcx, None), &general));
        loaded.put(&general);
        let case = Case { nth, filter, compiled };
        case.agree(&case.packets(rng), loaded)
    });

    // That the packets were such that something could be learned from them.
    println!("{tally:?}");
    assert_eq!(tally.packets, random::filters() * PACKETS as u64);
    for (what, count) in tally.learned() {
        assert!(count > tally.packets / 1000, "only {count} packets of {}: {what}", tally.packets);
    }
}

/// Programs as the driver loads them: what the filter does not ask for is not in them.
#[test]
fn programs_made_for_one_filter_agree_too() {
    let hz = clock::ticks_per_second().unwrap();
    let numbers: Vec<_> = (0..random::filters()).step_by(EXACT).collect();
    let tally = on_all_processors(&numbers, &|nth, _| {
        let mut rng = Rng::with_seed(random::seed() + nth);
        let size = Size::random(&mut rng);
        let mut filter = random::filter(&mut rng, size);
        if rng.u32(..3) == 0 {
            random::remembering(&mut rng, &mut filter);
        }
        let telemetry = if rng.bool() { Telemetry::Flows } else { Telemetry::Counters };
        let spec = DatapathSpec { telemetry, ..spec(IngressHook::Tcx, Some(filter.clone())) };
        let compiled = policy::compile(&filter, hz).unwrap();
        let case = Case { nth, filter, compiled };
        case.agree(&case.packets(rng), &mut Loaded::exact(&spec))
    });
    println!("{tally:?}");
    assert_eq!(tally.packets, (numbers.len() * PACKETS) as u64);
}

/// What one thread has loaded.
#[derive(Default)]
struct Stages(HashMap<Form, Loaded>);

/// Tries filters, by their numbers.
fn on_all_processors(numbers: &[u64], one: &(impl Fn(u64, &mut Stages) -> Tally + Sync)) -> Tally {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let share = |first: usize| {
            move || {
                let mut stages = Stages::default();
                let mine = numbers.iter().skip(first).step_by(threads);
                mine.map(|&nth| one(nth, &mut stages)).sum::<Tally>()
            }
        };
        let started: Vec<_> = (0..threads).map(|thread| scope.spawn(share(thread))).collect();
        started.into_iter().map(|thread| thread.join().expect("a disagreement")).sum()
    })
}

/// What programs know of a filter, where they look at every field.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Form {
    remembers: bool,
    denies: bool,
    is_wide: bool,
}

impl Form {
    /// Those of one thread have little in common with those of another, where there are two.
    fn of(nth: u64) -> Self {
        Self { remembers: nth % 2 == 1, denies: nth / 2 % 2 == 1, is_wide: nth / 4 % 4 == 3 }
    }

    fn filter(self, rng: &mut Rng) -> Filter {
        let size = match (self.is_wide, rng.u32(..10)) {
            (false, _) => Size(rng.usize(..40)),
            (true, 0) => Size(rng.usize(400..=4096)),
            (true, _) => Size(rng.usize(66..200)),
        };
        let mut direction = || DirectionFilter {
            default_action: if self.denies { DefaultAction::Deny } else { DefaultAction::Allow },
            ..random::direction(rng, size)
        };
        let mut filter = Filter { ingress: Some(direction()), egress: Some(direction()) };
        if self.remembers {
            random::remembering(rng, &mut filter);
        }
        filter
    }

    /// The form is kept also by a filter that would do with less, or that happens to ask for more.
    fn compile(&mut self, filter: &Filter, hz: u64) -> Compiled {
        let compiled = policy::compile(filter, hz).unwrap();
        let is_wide = |direction: &CompiledDirection| direction.used.has(Used::WIDE);
        self.is_wide |= is_wide(&compiled.ingress) || is_wide(&compiled.egress);
        if self.is_wide { policy::compile_to(filter, hz, 0).unwrap() } else { compiled }
    }
}
