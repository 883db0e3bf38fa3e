//! What is kept of an earlier boot: the operators' policies, and nothing else.

use std::collections::BTreeMap;

use super::file::{Content, Durability};
use crate::model::{AttachmentId, KeptPolicy, Phase, Record};

type Records = BTreeMap<AttachmentId, Record>;

/// How many are kept. A claim that nobody prepares or unprepares again leaves one for each device;
/// the oldest go first.
const MOST: usize = 1024;

/// The policies of an earlier boot's checkpoint, and how many more there were.
pub(super) fn keep(content: Content) -> (Vec<KeptPolicy>, usize) {
    let Content { records, mut kept, .. } = content;
    for Record { claim, pod, device, share, policy, phase, .. } in records {
        // A claim on its way out has no further use for it.
        let Some(policy) = policy.filter(|_| phase != Phase::Unpreparing) else { continue };
        let next = KeptPolicy { claim, pod, device: device.name, share, policy };
        kept.retain(|former| former.id() != next.id());
        kept.push(next);
    }
    let lost = kept.len().saturating_sub(MOST);
    (kept.split_off(lost), lost)
}

/// How much of a change has to be on the disk before it is answered. A hook's changes are about phases,
/// which end with the boot: on a disk that takes its time they would hold up every pod.
pub(super) fn durability(
    (records, kept): (&Records, &[KeptPolicy]),
    (new_records, new_kept): (&Records, &[KeptPolicy]),
) -> Durability {
    let (before, after) = (outlasting(records, kept), outlasting(new_records, new_kept));
    if before != after {
        Durability::Lasting
    } else if after.is_empty() {
        Durability::ThisBoot
    } else {
        Durability::OneOfBoth
    }
}

/// What the next boot would keep.
fn outlasting(records: &Records, kept: &[KeptPolicy]) -> Vec<KeptPolicy> {
    let records = records.values().filter(|record| record.policy.is_some()).cloned().collect();
    keep(Content { boot_id: String::new(), records, kept: kept.to_vec() }).0
}

/// What is still to be kept beside `records`. A record that is only `Preparing` may go as it came,
/// with a prepare that fails; any other has the policy itself.
pub(super) fn without_what_is_back(kept: &[KeptPolicy], records: &Records) -> Vec<KeptPolicy> {
    let is_back = |id| records.get(&id).is_some_and(|record| record.phase != Phase::Preparing);
    kept.iter().filter(|kept| !is_back(kept.id())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OperatorPolicy;
    use crate::testing::{claim, pod};

    fn content(count: usize) -> Content {
        let kept = (0..count).map(|number| KeptPolicy {
            claim: claim(&format!("claim-{number}")),
            pod: pod("pod-a"),
            device: "eth1".parse().unwrap(),
            share: None,
            policy: OperatorPolicy::default(),
        });
        Content { boot_id: "boot-1".to_owned(), records: Vec::new(), kept: kept.collect() }
    }

    #[test]
    fn a_disk_is_waited_for_only_where_something_outlasts_the_boot() {
        let map = |phase: Phase, policy: Option<OperatorPolicy>| {
            let record = Record { policy, ..crate::testing::record("eth1", None, phase) };
            BTreeMap::from([(record.id(), record)])
        };
        let attaching = || Phase::Attaching { netns: crate::testing::netns(7) };
        let bare = |phase| map(phase, None);
        let ordered = |phase| map(phase, Some(OperatorPolicy::default()));
        let kept = content(1).kept;
        let of = |before: Records, after: Records| durability((&before, &[]), (&after, &[]));

        assert_eq!(of(bare(Phase::Prepared), bare(attaching())), Durability::ThisBoot);
        assert_eq!(of(ordered(Phase::Prepared), ordered(attaching())), Durability::OneOfBoth);
        assert_eq!(of(bare(Phase::Prepared), ordered(Phase::Prepared)), Durability::Lasting);
        assert_eq!(of(ordered(Phase::Prepared), bare(Phase::Prepared)), Durability::Lasting);
        assert_eq!(of(ordered(Phase::Prepared), ordered(Phase::Unpreparing)), Durability::Lasting);
        let (none, after) = (Records::new(), bare(attaching()));
        assert_eq!(durability((&none, &kept), (&after, &kept)), Durability::OneOfBoth);
        assert_eq!(durability((&none, &kept), (&none, &[])), Durability::Lasting);
    }

    #[test]
    fn the_oldest_go_first() {
        let (kept, lost) = keep(content(MOST + 2));
        assert_eq!((kept.len(), lost), (MOST, 2));
        assert_eq!(kept[0].claim, claim("claim-2"));
        assert_eq!(keep(content(3)), (content(3).kept, 0));
    }
}
