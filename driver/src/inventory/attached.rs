//! Finds out on which interfaces programs came and went, whoever put them there.
//!
//! Only XDP that is attached by netlink makes the kernel tell of the interface. So what links and
//! programs there are is listed, which takes a call for each and no lock; only what is new, or may
//! have been exchanged, is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::model::IfIndex;
use crate::sys::bpf::{self, Kind, LinkFacts};

/// Programs and links, as they were when they were last listed.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// Every link's id. What it holds, where that is something on an interface.
    links: BTreeMap<u32, Option<LinkFacts>>,
    /// Every program's id, and its kind.
    programs: BTreeMap<u32, u32>,
}

impl Attached {
    /// Lists anew. Answers the interfaces whose links are others than before. A link names its
    /// interface by index and not the namespace, so some of them may be elsewhere.
    pub(super) fn look(&mut self) -> io::Result<BTreeSet<IfIndex>> {
        let (links, programs) = (bpf::link_ids()?, bpf::program_ids()?);
        let were_exchanged = !programs.iter().eq(self.programs.keys());
        let mut now = BTreeMap::new();
        for id in links {
            let link = match self.links.get(&id) {
                // A link on no interface never comes onto one; another one may have got another
                // program, which would be new.
                Some(known) if known.is_none() || !were_exchanged => *known,
                _ => bpf::link(id)?.filter(is_on_interface),
            };
            now.insert(id, link);
        }
        let changed = differences(&self.links, &now);
        self.links = now;
        if were_exchanged {
            self.note(&programs)?;
        }
        Ok(changed)
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
        self.links.retain(|_, link| link.is_none());
    }

    /// Whether there is a program that TCX would take and no link holds: nothing tells where that is.
    pub(super) fn has_loose(&self) -> bool {
        let held: BTreeSet<u32> = self.links.values().flatten().map(|link| link.program).collect();
        let mut classifiers = self.programs.iter().filter(|(_, kind)| **kind == Kind::CLASSIFIER);
        classifiers.any(|(id, _)| !held.contains(id))
    }

    /// Interfaces that have a TCX link, in whichever namespace.
    pub(super) fn with_tcx(&self) -> BTreeSet<IfIndex> {
        let links = self.links.values().flatten();
        links.filter(|link| link.kind == Kind::TCX_LINK).filter_map(|link| link.interface).collect()
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
    fn a_classifier_that_no_link_holds_is_loose() {
        let mut attached = Attached {
            links: BTreeMap::from([link(1, Kind::TCX_LINK, 10, 100), (2, None)]),
            programs: BTreeMap::from([(10, Kind::CLASSIFIER), (11, 6)]),
        };
        assert!(!attached.has_loose());
        assert_eq!(attached.with_tcx(), BTreeSet::from([IfIndex(100)]));
        attached.programs.insert(12, Kind::CLASSIFIER);
        assert!(attached.has_loose());
    }
}
