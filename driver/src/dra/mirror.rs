//! Our slices as the API server has them, by watching it and by remembering our own writes.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::runtime::watcher::Event;

/// What the API server has.
///
/// A write answers sooner than the watch tells of it. Until the watch has shown a write of ours,
/// whatever it tells of that object is older and is left aside; else each write would look undone
/// for a moment and be written again.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    slices: BTreeMap<String, Seen>,
    /// Objects of a list that has not ended yet.
    arriving: BTreeMap<String, Seen>,
    complete: bool,
}

#[derive(Debug)]
struct Seen {
    slice: ResourceSlice,
    /// The version that our own write made, as long as the watch has not shown it.
    unseen: Option<String>,
}

impl Mirror {
    /// Whether a first list has been read to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn slices(&self) -> Vec<&ResourceSlice> {
        self.slices.values().map(|seen| &seen.slice).collect()
    }

    /// Takes in what the watch tells. True if that may call for writing.
    pub(super) fn observe(&mut self, event: Event<ResourceSlice>) -> bool {
        match event {
            Event::Init => {
                self.arriving.clear();
                false
            }
            Event::InitApply(slice) => {
                insert(&mut self.arriving, slice, None);
                false
            }
            Event::InitDone => {
                self.slices = std::mem::take(&mut self.arriving);
                self.complete = true;
                true
            }
            Event::Apply(slice) => {
                let known = slice.metadata.name.as_ref().and_then(|name| self.slices.get_mut(name));
                match known {
                    Some(seen) if seen.unseen.is_some() => {
                        if seen.unseen == slice.metadata.resource_version {
                            seen.unseen = None;
                        }
                        false
                    }
                    _ => {
                        insert(&mut self.slices, slice, None);
                        true
                    }
                }
            }
            Event::Delete(slice) => {
                let name = slice.metadata.name.unwrap_or_default();
                let is_older = self.slices.get(&name).is_some_and(|seen| seen.unseen.is_some());
                !is_older && self.slices.remove(&name).is_some()
            }
        }
    }

    /// Takes in what a write of ours was answered with.
    pub(super) fn wrote(&mut self, slice: ResourceSlice) {
        let version = slice.metadata.resource_version.clone();
        insert(&mut self.slices, slice, version);
    }

    pub(super) fn deleted(&mut self, name: &str) {
        self.slices.remove(name);
    }
}

fn insert(slices: &mut BTreeMap<String, Seen>, slice: ResourceSlice, unseen: Option<String>) {
    if let Some(name) = slice.metadata.name.clone() {
        slices.insert(name, Seen { slice, unseen });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, pool};
    use crate::dra::slices::{Terms, render};

    fn slice(version: &str) -> ResourceSlice {
        let mut slice = render(&[device("eth1")], &Terms::of(&pool()), 1).remove(0);
        slice.metadata.resource_version = Some(version.to_owned());
        slice
    }

    fn versions(mirror: &Mirror) -> Vec<Option<&str>> {
        mirror.slices().iter().map(|s| s.metadata.resource_version.as_deref()).collect()
    }

    #[test]
    fn a_list_replaces_what_was_known_when_it_ends() {
        let mut mirror = Mirror::default();
        mirror.observe(Event::Init);
        mirror.observe(Event::InitApply(slice("1")));
        assert!(!mirror.is_complete());
        assert!(mirror.observe(Event::InitDone));
        assert_eq!(versions(&mirror), [Some("1")]);
        mirror.observe(Event::Init);
        assert!(mirror.observe(Event::InitDone));
        assert_eq!(versions(&mirror), [None::<&str>; 0]);
    }

    #[test]
    fn our_own_write_is_no_news() {
        let mut mirror = Mirror::default();
        mirror.wrote(slice("5"));
        assert!(!mirror.observe(Event::Apply(slice("4"))), "older than our write");
        assert!(!mirror.observe(Event::Delete(slice("4"))), "older than our write");
        assert!(!mirror.observe(Event::Apply(slice("5"))), "our write");
        assert_eq!(versions(&mirror), [Some("5")]);
    }

    #[test]
    fn what_others_do_after_our_write_is_news() {
        let mut mirror = Mirror::default();
        mirror.wrote(slice("5"));
        mirror.observe(Event::Apply(slice("5")));
        assert!(mirror.observe(Event::Apply(slice("6"))));
        assert!(mirror.observe(Event::Delete(slice("7"))));
        assert!(!mirror.observe(Event::Delete(slice("7"))), "there is nothing left to lose");
    }
}
