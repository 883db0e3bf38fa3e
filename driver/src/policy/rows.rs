//! Tables to rows: up to 4096 entries.

use std::collections::HashMap;

use common::{Page, Row, WIDE, pages, rows};

use super::entries::Entry;
use super::narrow;
use super::tables::{PortTable, Set, Tables};
use crate::model::{Action, Problems};

/// Rows and pages of both directions, as they are made.
#[derive(Default)]
pub(super) struct Rows {
    /// The rows and pages that have fixed places, and those behind them.
    made: Vec<Row>,
    pages: Vec<Page>,
    numbers: HashMap<Set, u16>,
}

const NO_ROW: Row = Row { summary: 0, words: [0; WIDE / 64] };
const NO_PAGE: Page = Page([0; 256]);

impl Rows {
    /// Adds direction `number`.
    pub(super) fn add(
        &mut self,
        number: usize,
        entries: &[Entry<'_>],
        tables: &Tables,
        problems: &mut Problems,
    ) {
        if self.made.is_empty() {
            self.made = vec![NO_ROW; 2 * rows::OF_DIRECTION as usize];
            self.pages = vec![NO_PAGE; 2 * pages::OF_DIRECTION as usize];
        }
        self.masks(number * rows::OF_DIRECTION as usize, entries);
        let first = number * pages::OF_DIRECTION as usize;
        for (class, set) in tables.classes.iter().enumerate() {
            self.pages[first + pages::CLASSES as usize + class / 256].0[class % 256] =
                self.row(set);
        }
        for (base, octets) in [(pages::V4, &tables.v4), (pages::V6, &tables.v6)] {
            for (octet, table) in octets.iter().enumerate() {
                for (value, set) in table.iter().enumerate() {
                    self.pages[first + base as usize + octet].0[value] = self.row(set);
                }
            }
        }
        self.ports(first + pages::SOURCE_PORTS as usize, &tables.source_ports);
        self.ports(first + pages::DESTINATION_PORTS as usize, &tables.destination_ports);
        for (n, entry) in entries.iter().enumerate() {
            self.pages[first + pages::RULES as usize + n / 256].0[n % 256] = entry.rule;
        }
        let most = usize::from(u16::MAX);
        if self.made.len() > most || self.pages.len() > most {
            problems.add("rules", "have more different port ranges and networks than fit");
        }
    }

    pub(super) fn finish(self) -> (Vec<Page>, Vec<Row>) {
        (self.pages, self.made)
    }

    fn masks(&mut self, first: usize, entries: &[Entry<'_>]) {
        for (n, entry) in entries.iter().enumerate() {
            let row = match entry.terms.action {
                Action::Allow => rows::ALLOW,
                Action::RateLimit(_) => rows::LIMIT,
                Action::Count => rows::COUNT,
                Action::Deny => continue,
            };
            let row = &mut self.made[first + row as usize];
            row.words[n / 64] |= 1 << (n % 64);
            row.summary |= 1 << (n / 64);
        }
    }

    fn ports(&mut self, directory: usize, table: &PortTable) {
        let (leaves, by_upper) = narrow::pages(table);
        let first = self.pages.len();
        for leaf in leaves {
            let mut page = NO_PAGE;
            for (row, number) in page.0.iter_mut().zip(leaf) {
                *row = self.row(&table.sets[usize::from(*number)]);
            }
            self.pages.push(page);
        }
        for (upper, leaf) in by_upper.into_iter().enumerate() {
            self.pages[directory].0[upper] = u16::try_from(first + leaf).unwrap_or(u16::MAX);
        }
    }

    /// The number of a row with these entries.
    fn row(&mut self, set: &Set) -> u16 {
        if let Some(&number) = self.numbers.get(set) {
            return number;
        }
        let mut row = NO_ROW;
        for (n, (word, bits)) in row.words.iter_mut().zip(set).enumerate() {
            *word = *bits;
            row.summary |= u64::from(*bits != 0) << n;
        }
        // More than fit are refused in `add`.
        let number = u16::try_from(self.made.len()).unwrap_or(u16::MAX);
        self.made.push(row);
        self.numbers.insert(set.clone(), number);
        number
    }
}
