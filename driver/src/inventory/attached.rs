//! Finds out on which interfaces programs came and went, whoever put them there.
//!
//! Only XDP that is attached by netlink makes the kernel tell of the interface. So what links and
//! programs there are is listed, which takes a call for each and no lock; only what is new, or may
//! have been exchanged, is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;

use crate::model::IfIndex;
use crate::sys::bpf::{self, Kind, LinkFacts};

/// Programs and links, as they were when they were last listed.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// Every link's id. What it holds, where that is something on an interface.
    links: BTreeMap<u32, Option<LinkFacts>>,
    /// Every program's id, and its kind.
    programs: BTreeMap<u32, u32>,
    /// What links hold has to be asked again.
    is_stale: bool,
}

/// What was found since the last time.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Interfaces whose links are others than before.
    pub(super) interfaces: BTreeSet<IfIndex>,
    /// Programs or links came or went, wherever that may be.
    pub(super) came_or_went: bool,
}

impl Attached {
    /// Lists anew. A link names its interface by index and not the namespace, so some of them may be
    /// elsewhere.
    pub(super) fn look(&mut self) -> io::Result<News> {
        let (links, programs) = (bpf::link_ids()?, bpf::program_ids()?);
        let were_exchanged = !programs.iter().eq(self.programs.keys());
        let has_to_ask = were_exchanged || self.is_stale;
        let mut now = BTreeMap::new();
        for id in links {
            let link = match self.links.get(&id) {
                // A link on no interface never comes onto one; another one may have got another
                // program, which would be new.
                Some(known) if known.is_none() || !has_to_ask => *known,
                _ => bpf::link(id)?.filter(is_on_interface),
            };
            now.insert(id, link);
        }
        let interfaces = differences(&self.links, &now);
        let came_or_went = were_exchanged || !now.keys().eq(self.links.keys());
        (self.links, self.is_stale) = (now, false);
        if were_exchanged {
            self.note(&programs)?;
        }
        Ok(News { interfaces, came_or_went })
    }

    fn note(&mut self, ids: &[u32]) -> io::Result<()> {
        let mut programs = BTreeMap::new();
        for &id in ids {
            let kind = match self.programs.get(&id) {
                Some(kind) => Some(*kind),
                None => bpf::program_kind(id)?,
            };
            programs.extend(kind.map(|kind| (id, kind)));
        }
        self.programs = programs;
        Ok(())
    }

    /// Has the next look ask about every link again. A link follows its interface into another
    /// namespace, where that may have another index.
    pub(super) fn forget(&mut self) {
        self.is_stale = true;
    }

    /// The programs that links hold.
    pub(super) fn programs_of_links(&self) -> BTreeSet<u32> {
        self.links.values().flatten().map(|link| link.program).collect()
    }

    /// Whether there is a program that TCX would take and no link holds: nothing tells where that is.
    pub(super) fn has_loose(&self) -> bool {
        let held = self.programs_of_links();
        let mut classifiers = self.programs.iter().filter(|(_, kind)| **kind == Kind::CLASSIFIER);
        classifiers.any(|(id, _)| !held.contains(id))
    }

    /// Interfaces that have a TCX link, in whichever namespace.
    pub(super) fn with_tcx(&self) -> BTreeSet<IfIndex> {
        let links = self.links.values().flatten();
        links.filter(|link| link.kind == Kind::TCX_LINK).filter_map(|link| link.interface).collect()
    }
}

/// Which devices to ask for programs that no link holds and of which nobody tells.
///
/// Cilium keeps classifiers that only other programs jump to, so that on its nodes there is always one
/// that no link holds, and the kernel takes its lock on all interfaces for each question. Whoever
/// attaches a program has loaded it just before, as a rule: so all devices are asked for some looks after
/// programs came or went, and else those that have such a program, and of the others one half after the
/// other, so that nothing is seen later than two looks after it happened.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// How many looks still ask all.
    all: u32,
    /// The last one that was asked in turn.
    last: Option<IfIndex>,
}

/// Looks that ask all devices once programs came or went: there is a second from one to the next.
const AFTER_NEWS: u32 = 3;

/// So few devices are all asked at once.
const FEW: usize = 8;

impl Turn {
    /// Has the next looks ask all.
    pub(super) fn begin(&mut self) {
        self.all = AFTER_NEWS;
    }

    /// Those to ask now.
    pub(super) fn next(
        &mut self,
        devices: &BTreeSet<IfIndex>,
        has_one: impl Fn(&IfIndex) -> bool,
    ) -> BTreeSet<IfIndex> {
        if self.all > 0 {
            self.all -= 1;
            return devices.clone();
        }
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let count = devices.len().div_ceil(2).max(FEW).min(devices.len());
        let upwards = devices.range((after, Bound::Unbounded));
        let turn: Vec<_> = upwards.chain(devices).take(count).collect();
        self.last = turn.last().map(|index| **index).or(self.last);
        turn.into_iter().chain(devices.iter().filter(|index| has_one(index))).copied().collect()
    }
}

fn is_on_interface(link: &LinkFacts) -> bool {
    matches!(link.kind, Kind::XDP_LINK | Kind::TCX_LINK)
}

/// The interfaces of links that are gone, new, or not what they were.
fn differences(
    before: &BTreeMap<u32, Option<LinkFacts>>,
    now: &BTreeMap<u32, Option<LinkFacts>>,
) -> BTreeSet<IfIndex> {
    let is_other = |(id, link): &(&u32, &Option<LinkFacts>)| before.get(id) != Some(*link);
    let is_gone = |(id, link): &(&u32, &Option<LinkFacts>)| now.get(id) != Some(*link);
    let changed = now.iter().filter(is_other).chain(before.iter().filter(is_gone));
    changed.filter_map(|(_, link)| link.as_ref()?.interface).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: u32, kind: u32, program: u32, interface: u32) -> (u32, Option<LinkFacts>) {
        (id, Some(LinkFacts { kind, id, program, interface: Some(IfIndex(interface)) }))
    }

    #[test]
    fn what_came_went_or_was_exchanged_names_its_interface() {
        let before = BTreeMap::from([
            link(1, Kind::TCX_LINK, 10, 100),
            link(2, Kind::XDP_LINK, 11, 101),
            link(3, Kind::TCX_LINK, 12, 102),
            (4, None),
        ]);
        let now = BTreeMap::from([
            link(1, Kind::TCX_LINK, 10, 100),
            link(3, Kind::TCX_LINK, 99, 102),
            (5, None),
            link(6, Kind::XDP_LINK, 13, 103),
        ]);
        let changed: Vec<u32> = differences(&before, &now).iter().map(|index| index.0).collect();
        assert_eq!(changed, [101, 102, 103]);
        assert_eq!(differences(&now, &now), BTreeSet::new());
    }

    #[test]
    fn while_all_is_quiet_half_are_asked_in_turn_and_who_has_something() {
        let devices: BTreeSet<_> = (1..=20).map(IfIndex).collect();
        let mut turn = Turn::default();
        let next = |turn: &mut Turn| -> Vec<u32> {
            turn.next(&devices, |index| index.0 == 3).iter().map(|index| index.0).collect()
        };
        assert_eq!(next(&mut turn), (1..=10).collect::<Vec<_>>());
        assert_eq!(next(&mut turn), [3, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        turn.begin();
        for _ in 0..AFTER_NEWS {
            assert_eq!(next(&mut turn).len(), 20);
        }
        assert_eq!(next(&mut turn), (1..=10).collect::<Vec<_>>());
        let few = BTreeSet::from([IfIndex(1), IfIndex(30)]);
        assert_eq!(turn.next(&few, |_| false), few, "all of a few, each time");
        assert!(turn.next(&BTreeSet::new(), |_| true).is_empty());
    }

    #[test]
    fn a_classifier_that_no_link_holds_is_loose() {
        let mut attached = Attached {
            links: BTreeMap::from([link(1, Kind::TCX_LINK, 10, 100), (2, None)]),
            programs: BTreeMap::from([(10, Kind::CLASSIFIER), (11, 6)]),
            is_stale: false,
        };
        assert!(!attached.has_loose());
        assert_eq!(attached.with_tcx(), BTreeSet::from([IfIndex(100)]));
        attached.programs.insert(12, Kind::CLASSIFIER);
        assert!(attached.has_loose());
    }
}
