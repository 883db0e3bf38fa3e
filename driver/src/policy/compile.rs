//! The compiler.

use std::collections::HashSet;

use common::{JIFFY, Limit, NARROW, Used, WIDE};

use super::entries::{self, Entry};
use super::rows::Rows;
use super::{Compiled, CompiledDirection, CompiledRule, narrow, tables};
use crate::model::{
    Action, DefaultAction, DirectionFilter, Filter, FilterRule, Problems, Rate, RateLimit,
};

/// Compiles both directions, for a kernel whose clock has `hz` ticks in a second.
///
/// # Errors
///
/// All that is wrong, with paths from the filter on, such as `ingress.rules[3].ports[0]`: criteria
/// that cannot be met together, rules of one name, more entries than fit.
pub fn compile(filter: &Filter, hz: u64) -> Result<Compiled, Problems> {
    compile_to(filter, hz, NARROW)
}

/// The same with another bound for what is narrow.
#[cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "tests of other crates use it")
)]
pub fn compile_to(filter: &Filter, hz: u64, narrow: usize) -> Result<Compiled, Problems> {
    let mut problems = Problems::default();
    let mut rows = Rows::default();
    let mut direction = |number, name, filter: &Option<DirectionFilter>| {
        let Some(filter) = filter else { return CompiledDirection::default() };
        let mut found = Problems::default();
        let compiled = direction(filter, hz, narrow, (number, &mut rows), &mut found);
        problems.extend_below(name, found);
        compiled
    };
    let ingress = direction(0, "ingress", &filter.ingress);
    let egress = direction(1, "egress", &filter.egress);
    let (pages, rows) = rows.finish();
    problems.or(Compiled { ingress, egress, pages, rows })
}

fn direction(
    filter: &DirectionFilter,
    hz: u64,
    narrow: usize,
    (number, rows): (usize, &mut Rows),
    problems: &mut Problems,
) -> CompiledDirection {
    let entries = expand(&filter.rules, problems);
    let mut compiled = CompiledDirection {
        used: Used::FILTER,
        ruleset: None,
        rules: filter.rules.iter().map(|rule| compiled_rule(rule, hz)).collect(),
        entries: entries.len(),
    };
    if entries.len() > WIDE {
        problems.add("rules", format_args!("expand to more than {WIDE} entries"));
    }
    if !problems.is_empty() {
        return compiled;
    }
    let tables = tables::build(&entries);
    let is_narrow = entries.len() <= narrow && narrow::fits(&tables);
    if is_narrow {
        compiled.ruleset = Some(narrow::ruleset(&entries, &tables));
    } else {
        rows.add(number, &entries, &tables, problems);
    }
    let has = |is: fn(&Action) -> bool| filter.rules.iter().any(|rule| is(&rule.action));
    for (feature, is_used) in [
        (tables.used, true),
        (Used::WIDE, !is_narrow),
        (Used::COUNT, has(|action| matches!(action, Action::Count))),
        (Used::LIMIT, has(|action| matches!(action, Action::RateLimit(_)))),
        (Used::STATEFUL, filter.stateful),
        (Used::DENY, filter.default_action == DefaultAction::Deny),
    ] {
        if is_used {
            compiled.used = compiled.used.with(feature);
        }
    }
    compiled
}

fn expand<'a>(rules: &'a [FilterRule], problems: &mut Problems) -> Vec<Entry<'a>> {
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    if rules.len() > WIDE {
        problems.add("rules", format_args!("are {}, at most {WIDE} fit", rules.len()));
        return entries;
    }
    for (number, rule) in (0..).zip(rules) {
        let mut found = Problems::default();
        if !names.insert((rule.origin, rule.name.as_str())) {
            found.add("name", format_args!("{:?} is the name of an earlier rule", rule.name));
        }
        if entries.len() <= WIDE {
            entries.extend(entries::expand(number, rule, WIDE, &mut found));
        }
        problems.extend_below(&format!("rules[{number}]"), found);
    }
    entries
}

fn compiled_rule(rule: &FilterRule, hz: u64) -> CompiledRule {
    let limit = match rule.action {
        Action::RateLimit(limit) => compiled_limit(limit, hz),
        Action::Allow | Action::Deny | Action::Count => Limit::default(),
    };
    CompiledRule { origin: rule.origin, name: rule.name.clone(), limit }
}

/// A rate as time: how long one packet takes, or one byte.
fn compiled_limit(RateLimit { rate, burst }: RateLimit, hz: u64) -> Limit {
    let second = u128::from(hz) * u128::from(JIFFY);
    let (cost, burst, counts_bytes) = match rate {
        Rate::PacketsPerSecond(packets) => {
            (second / u128::from(packets.max(1)), burst.max(1) - 1, 0)
        }
        Rate::BitsPerSecond(bits) => (second * 8 / u128::from(bits.max(1)), burst / 8, 1),
    };
    // Half of what there is wraps to the past; a rate of a packet in an hour is far below.
    let bounded = |time: u128| u64::try_from(time).unwrap_or(u64::MAX).min(u64::MAX / 4);
    let cost = bounded(cost);
    Limit { cost, burst: bounded(u128::from(cost) * u128::from(burst)), counts_bytes, arrival: 0 }
}
