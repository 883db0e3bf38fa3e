//! Compiled tables in plain memory, for tests that judge packets on the host.

use common::{Addresses, Counting, Decided, Direction, Ground, Packet, Page, Row, Ruleset, Used};

use super::{Compiled, CompiledDirection};

/// One direction of a compiled filter, and what judging by it did.
#[derive(Debug)]
pub struct MemoryGround<'a> {
    compiled: &'a Compiled,
    direction: Direction,
    /// Rules that matched, in order, counted from the direction's first.
    pub hits: Vec<u32>,
    /// What the table of conversations shall answer.
    pub is_reply: bool,
    /// Whether limits let packets through.
    pub is_within: bool,
}

impl<'a> MemoryGround<'a> {
    pub fn new(compiled: &'a Compiled, direction: Direction) -> Self {
        Self { compiled, direction, hits: Vec::new(), is_reply: false, is_within: true }
    }

    /// The direction that is judged by.
    pub fn of(&self) -> &'a CompiledDirection {
        match self.direction {
            Direction::Ingress => &self.compiled.ingress,
            Direction::Egress => &self.compiled.egress,
        }
    }
}

impl Ground for MemoryGround<'_> {
    fn ruleset(&self, _: Direction) -> Option<&Ruleset> {
        self.of().ruleset.as_deref()
    }

    fn page(&self, number: u32) -> Option<&Page> {
        self.compiled.pages.get(number as usize)
    }

    fn row(&self, number: u32) -> Option<&Row> {
        self.compiled.rows.get(number as usize)
    }

    fn hit(&mut self, rule: u32) {
        self.hits.push(rule);
    }

    fn hit_each(&mut self, counting: Counting) {
        common::count_each(counting, self.direction, self.of().used, self);
    }

    fn admits(&mut self, _: u32) -> bool {
        self.is_within
    }

    fn is_reply(&mut self, _: &Packet, _: &Addresses) -> bool {
        self.is_reply
    }

    fn by_rows(
        &mut self,
        packet: &Packet,
        addresses: &Addresses,
        direction: Direction,
        used: Used,
    ) -> Option<Decided> {
        common::by_rows(packet, addresses, direction, used, self)
    }
}
