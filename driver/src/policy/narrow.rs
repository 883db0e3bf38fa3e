//! Tables to words: at most 64 entries.

use std::collections::HashMap;

use common::{NARROW, PORT_PAGES, PORT_SETS, Ports, Ruleset};

use super::entries::Entry;
use super::tables::{PortTable, Set, Tables};
use crate::model::Action;

/// Whether the tables are small enough for words. Few entries with very many port ranges are not.
pub(super) fn fits(tables: &Tables) -> bool {
    [&tables.source_ports, &tables.destination_ports]
        .into_iter()
        .all(|table| table.sets.len() <= PORT_SETS && pages(table).0.len() <= PORT_PAGES)
}

/// The value of the map `weir_rules`. The tables have to [fit](fits).
pub(super) fn ruleset(entries: &[Entry<'_>], tables: &Tables) -> Box<Ruleset> {
    let mut ruleset = Box::new(Ruleset::EMPTY);
    for (n, entry) in entries.iter().enumerate().take(NARROW) {
        ruleset.rules[n] = entry.rule;
        let mask = match entry.terms.action {
            Action::Allow => &mut ruleset.allow,
            Action::RateLimit(_) => &mut ruleset.limit,
            Action::Count => &mut ruleset.count,
            Action::Deny => continue,
        };
        *mask |= 1 << n;
    }
    for (word, set) in ruleset.classes.iter_mut().zip(&tables.classes) {
        *word = first(set);
    }
    for (table, octet) in ruleset.v4.iter_mut().zip(&tables.v4) {
        fill(table, octet);
    }
    for (table, octet) in ruleset.v6.iter_mut().zip(&tables.v6) {
        fill(table, octet);
    }
    fill_ports(&mut ruleset.source_ports, &tables.source_ports);
    fill_ports(&mut ruleset.destination_ports, &tables.destination_ports);
    ruleset
}

fn first(set: &Set) -> u64 {
    set.first().copied().unwrap_or(0)
}

fn fill(table: &mut [u64; 256], octet: &[Set]) {
    for (word, set) in table.iter_mut().zip(octet) {
        *word = first(set);
    }
}

fn fill_ports(ports: &mut Ports, table: &PortTable) {
    let (pages, by_upper) = pages(table);
    for (page, number) in ports.pages.iter_mut().zip(by_upper) {
        *page = low(number);
    }
    for (sets, page) in ports.sets.iter_mut().zip(pages) {
        for (set, number) in sets.iter_mut().zip(page) {
            *set = low(usize::from(*number));
        }
    }
    for (word, set) in ports.words.iter_mut().zip(&table.sets) {
        *word = first(set);
    }
}

/// What fits is far below 256.
fn low(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// The pages that differ, and which of them each upper half of a port has.
pub(super) fn pages(table: &PortTable) -> (Vec<&[u16]>, Vec<usize>) {
    let mut numbers = HashMap::new();
    let (mut pages, mut by_upper) = (Vec::new(), Vec::new());
    for page in table.ports.chunks(256) {
        by_upper.push(*numbers.entry(page).or_insert_with(|| {
            pages.push(page);
            pages.len() - 1
        }));
    }
    (pages, by_upper)
}
