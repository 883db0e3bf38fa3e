//! Rules of policy routing. Those of filters are in `rule`.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::address::{family, network_of};
use super::dranet::{Dialect, Fields};
use super::reader::{Leaf, Object, Spot};
use super::route::writable_table;
use crate::model::{Family, Problems, Rule};

pub(super) const FIELDS: Fields = Fields::same(&["priority", "source", "destination", "table"]);
/// From that of the rule for the local table to that of the rule for the default one
/// (`fib_default_rules_init()` in `net/ipv4/fib_rules.c`, Linux 6.18); what is behind it would never
/// be asked.
pub(super) const PRIORITY: RangeInclusive<u32> = 0..=32_767;
pub(super) const MOST_RULES: usize = 256;

pub(super) fn list(
    spot: &Spot<'_>,
    dialect: Dialect,
    problems: &mut Problems,
) -> Option<Vec<Rule>> {
    let items = spot.list_up_to(MOST_RULES, "rules", problems)?;
    let (said, mut rules) = (items.len(), Vec::<Rule>::with_capacity(items.len()));
    for item in items {
        let Some(rule) = read(&item, dialect, problems) else {
            continue;
        };
        if let Some(nth) = rules.iter().position(|other| *other == rule) {
            problems.add(item.path, format_args!("is the same as rules[{nth}]"));
        }
        rules.push(rule);
    }
    (rules.len() == said).then_some(rules)
}

/// A rule of which one end at least is said: without any, nobody knows which family is meant. A
/// network that holds every address says no more than its family.
fn read(spot: &Spot<'_>, dialect: Dialect, problems: &mut Problems) -> Option<Rule> {
    let rule = dialect.object(spot, FIELDS, problems)?;
    let priority = priority(&rule, dialect, problems);
    let mut end =
        |field| Leaf::read(rule.field(field), |spot| network_of(spot, dialect, problems).map(Some));
    let (source, destination) = (end("source"), end("destination"));
    let table = rule.required("table", problems).and_then(|spot| writable_table(&spot, problems));
    if source.is_unsaid() && destination.is_unsaid() {
        return spot.refuse(
            "needs a source or a destination; 0.0.0.0/0 and ::/0 are any of their family",
            problems,
        );
    }
    let (source, destination) = (source.or(None)?, destination.or(None)?);
    if let (Some(source), Some(destination)) = (source, destination)
        && source.addr().is_ipv4() != destination.addr().is_ipv4()
    {
        let (ours, theirs) = (family(destination.addr()), family(source.addr()));
        let message = format!("{destination} is {ours} but the source {source} is {theirs}");
        problems.add(rule.path_of("destination"), message);
        return None;
    }
    let any_end = source.or(destination)?;
    let narrow = |net: &IpNet| net.prefix_len() > 0;
    Some(Rule {
        family: Family::of(any_end.addr()),
        priority: priority?,
        source: source.filter(narrow),
        destination: destination.filter(narrow),
        table: table?,
    })
}

/// Required, but that DraNet takes 0 where there is none.
fn priority(rule: &Object<'_>, dialect: Dialect, problems: &mut Problems) -> Option<u32> {
    let spot = match (rule.field("priority"), dialect) {
        (Some(spot), _) => spot,
        (None, Dialect::Dranet) => return Some(0),
        (None, Dialect::Ours) => rule.required("priority", problems)?,
    };
    spot.integer(PRIORITY, problems)
}
