//! The law of a damaged checkpoint: the driver starts, and nothing that was written is thrown away.

use std::fs;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::{Checkpoint, Found, file};
use crate::model::{IfIndex, IngressHook, OperatorPolicy, Phase, Record};
use crate::testing::{netns, record};

const CASES: u32 = 1000;
const BOOT: &str = "boot-1";

/// What became of the bytes.
#[derive(Clone, Debug)]
enum Damage {
    CutShort(Index),
    Flipped(Vec<(Index, u8)>),
    Overwritten(Index, Vec<u8>),
    Inserted(Index, Vec<u8>),
    Removed(Index, Index),
    /// As a disk does that has lost a block.
    Zeroed(Index, Index),
    Doubled,
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        at().prop_map(Damage::CutShort),
        vec((at(), 1..=u8::MAX), 1..8).prop_map(Damage::Flipped),
        (at(), vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Damage::Overwritten(at, bytes)),
        (at(), vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Damage::Inserted(at, bytes)),
        (at(), vec(b' '..=b'~', 1..3)).prop_map(|(at, bytes)| Damage::Inserted(at, bytes)),
        (at(), at()).prop_map(|(one, other)| Damage::Removed(one, other)),
        (at(), at()).prop_map(|(one, other)| Damage::Zeroed(one, other)),
        Just(Damage::Doubled),
    ]
}

impl Damage {
    fn done_to(&self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        let between = |one: &Index, other: &Index| {
            let (one, other) = (one.index(good.len()), other.index(good.len()));
            one.min(other)..=one.max(other)
        };
        match self {
            Self::CutShort(at) => bytes.truncate(at.index(good.len())),
            Self::Flipped(places) => {
                for (at, mask) in places {
                    bytes[at.index(good.len())] ^= mask;
                }
            }
            Self::Overwritten(at, with) => {
                let at = at.index(good.len());
                let end = good.len().min(at + with.len());
                bytes.splice(at..end, with.iter().copied());
            }
            Self::Inserted(at, with) => {
                let at = at.index(good.len() + 1);
                bytes.splice(at..at, with.iter().copied());
            }
            Self::Removed(one, other) => drop(bytes.drain(between(one, other))),
            Self::Zeroed(one, other) => bytes[between(one, other)].fill(0),
            Self::Doubled => bytes.extend_from_slice(good),
        }
        bytes
    }
}

fn records() -> Vec<Record> {
    let inside = IfIndex(7);
    vec![
        record("eth1", Some(IngressHook::Xdp), Phase::Attached { netns: netns(7), inside }),
        Record {
            policy: Some(OperatorPolicy::default()),
            ..record("eth2", Some(IngressHook::Tcx), Phase::Prepared)
        },
        record("eth3", None, Phase::Attaching { netns: netns(8) }),
    ]
}

/// What a driver would have written.
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    Checkpoint::open(directory.path(), BOOT).unwrap().0.put(records()).unwrap();
    fs::read(directory.path().join(file::NAME)).unwrap()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn no_damage_keeps_the_driver_from_starting_or_makes_it_believe_what_nobody_wrote(
        damage in damage(),
    ) {
        let (directory, bytes) = (TempDir::new().unwrap(), damage.done_to(&GOOD));
        let path = directory.path().join(file::NAME);
        fs::write(&path, &bytes).unwrap();
        let (checkpoint, found) = Checkpoint::open(directory.path(), BOOT).unwrap();
        let held: Vec<_> = checkpoint.records().cloned().collect();
        match found {
            Found::SetAside { to, .. } => {
                prop_assert!(held.is_empty() && !path.exists());
                prop_assert_eq!(fs::read(&to).unwrap(), bytes, "it is kept as it was found");
            }
            // White space between two words is no damage.
            Found::Records(_) => prop_assert_eq!(held, records()),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn that_records_were_lost_is_known_until_the_node_restarts() {
    let directory = TempDir::new().unwrap();
    let is_partial = |boot: &str| {
        let (mut checkpoint, _) = Checkpoint::open(directory.path(), boot).unwrap();
        checkpoint.put(records()).unwrap();
        checkpoint.is_partial()
    };
    assert!(!is_partial(BOOT));
    fs::write(directory.path().join(file::NAME), "{").unwrap();
    assert!(!is_partial(BOOT), "the mirror has them");
    for name in [file::NAME, file::MIRROR] {
        fs::write(directory.path().join(name), "{").unwrap();
    }
    assert!(is_partial(BOOT));
    assert!(is_partial(BOOT), "the next start knows no more");
    assert!(!is_partial("boot-2"));
}

#[test]
fn the_next_checkpoint_is_written_beside_the_damaged_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(file::NAME);
    let mut kept = Vec::new();
    for damage in ["{", "not ours", ""] {
        fs::write(&path, damage).unwrap();
        // Of the round before, which has nothing to do with this one.
        let _ = fs::remove_file(directory.path().join(file::MIRROR));
        let (mut checkpoint, found) = Checkpoint::open(directory.path(), BOOT).unwrap();
        let Found::SetAside { to, .. } = found else { panic!("{found:?}") };
        kept.push((to, damage));
        checkpoint.put(records()).unwrap();
        drop(checkpoint);
        let (_, found) = Checkpoint::open(directory.path(), BOOT).unwrap();
        assert_eq!(found, Found::Records(records().len()));
    }
    for (to, damage) in kept {
        assert_eq!(fs::read_to_string(&to).unwrap(), damage);
    }
}
