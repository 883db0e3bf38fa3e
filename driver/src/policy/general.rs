//! Tables for programs that look at every field, whatever the filter asks for: so tests need not load
//! programs for each filter.

use common::{End, Limit, NARROW, Page, Row, Ruleset, Used, WIDE, pages};

use super::{Compiled, CompiledRule};
use crate::model::Origin;

/// All that the tables of a filter may be asked for.
const EVERYTHING: Used = Used::FILTER
    .with(Used::RULES)
    .with(Used::COUNT)
    .with(Used::LIMIT)
    .with(Used::SOURCE_PORTS)
    .with(Used::DESTINATION_PORTS)
    .with(Used::leading(End::SourceV4, V4))
    .with(Used::leading(End::DestinationV4, V4))
    .with(Used::leading(End::SourceV6, V6))
    .with(Used::leading(End::DestinationV6, V6));

/// Octets of an address.
const V4: usize = 4;
const V6: usize = 16;

/// Rows and pages that a wide filter may have, here.
const ROOM: usize = 1 << 14;

/// `compiled` with those tables filled in that its own programs never look at, and as many rules as
/// any filter of its form.
///
/// Two of them differ in nothing that programs know, if neither or both are wide, stateful and deny by
/// default, direction by direction.
pub fn generalise(compiled: &Compiled) -> Compiled {
    let mut general = compiled.clone();
    for direction in [&mut general.ingress, &mut general.egress] {
        if let Some(ruleset) = &mut direction.ruleset {
            narrow(ruleset, direction.used);
        }
        let most = if direction.used.has(Used::WIDE) { WIDE } else { NARROW };
        let rule =
            CompiledRule { origin: Origin::Claim, name: String::new(), limit: Limit::default() };
        direction.rules.resize(most, rule);
        direction.used = direction.used.with(EVERYTHING);
    }
    if !general.rows.is_empty() {
        let all = general.rows.len();
        general.rows.push(Row { summary: u64::MAX, words: [u64::MAX; WIDE / 64] });
        let every_port = general.pages.len();
        general.pages.push(filled(all));
        for (number, used) in [(0, compiled.ingress.used), (1, compiled.egress.used)] {
            let first = number * pages::OF_DIRECTION as usize;
            wide(&mut general.pages[first..], used, all, every_port);
        }
    }
    general
}

/// As large as any.
pub(crate) fn with_room(general: &Compiled) -> Compiled {
    let mut roomy = general.clone();
    if !general.rows.is_empty() {
        roomy.rows.resize(ROOM, Row { summary: 0, words: [0; WIDE / 64] });
        roomy.pages.resize(ROOM, filled(0));
    }
    roomy
}

fn narrow(ruleset: &mut Ruleset, used: Used) {
    for (octet, table) in ruleset.v4.iter_mut().enumerate() {
        if !is_looked_at(used, [End::SourceV4, End::DestinationV4], octet, V4) {
            *table = [u64::MAX; 256];
        }
    }
    for (octet, table) in ruleset.v6.iter_mut().enumerate() {
        if !is_looked_at(used, [End::SourceV6, End::DestinationV6], octet, V6) {
            *table = [u64::MAX; 256];
        }
    }
    if !used.has(Used::SOURCE_PORTS) {
        ruleset.source_ports.words.fill(u64::MAX);
    }
    if !used.has(Used::DESTINATION_PORTS) {
        ruleset.destination_ports.words.fill(u64::MAX);
    }
}

/// Of one direction: `all` is the row with every entry, `every_port` the page that has no other.
fn wide(tables: &mut [Page], used: Used, all: usize, every_port: usize) {
    let mut fill = |is_used: bool, page: usize, number| {
        if !is_used {
            tables[page] = filled(number);
        }
    };
    for octet in 0..2 * V4 {
        let is_used = is_looked_at(used, [End::SourceV4, End::DestinationV4], octet, V4);
        fill(is_used, pages::V4 as usize + octet, all);
    }
    for octet in 0..2 * V6 {
        let is_used = is_looked_at(used, [End::SourceV6, End::DestinationV6], octet, V6);
        fill(is_used, pages::V6 as usize + octet, all);
    }
    fill(used.has(Used::SOURCE_PORTS), pages::SOURCE_PORTS as usize, every_port);
    fill(used.has(Used::DESTINATION_PORTS), pages::DESTINATION_PORTS as usize, every_port);
}

/// Whether octet `n` of both addresses, each of which has `width`, is looked at.
fn is_looked_at(used: Used, [source, destination]: [End; 2], n: usize, width: usize) -> bool {
    let end = if n < width { source } else { destination };
    n % width < used.octets(end) as usize
}

fn filled(number: usize) -> Page {
    Page([u16::try_from(number).unwrap_or(u16::MAX); 256])
}
