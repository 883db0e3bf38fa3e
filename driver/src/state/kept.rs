//! What is kept of an earlier boot: the operators' policies, and nothing else.

use std::collections::BTreeMap;

use super::file::Content;
use crate::model::{AttachmentId, KeptPolicy, Phase, Record};

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

/// What is still to be kept beside `records`. A record that is only `Preparing` may go as it came,
/// with a prepare that fails; any other has the policy itself.
pub(super) fn without_what_is_back(
    kept: &[KeptPolicy],
    records: &BTreeMap<AttachmentId, Record>,
) -> Vec<KeptPolicy> {
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
    fn the_oldest_go_first() {
        let (kept, lost) = keep(content(MOST + 2));
        assert_eq!((kept.len(), lost), (MOST, 2));
        assert_eq!(kept[0].claim, claim("claim-2"));
        assert_eq!(keep(content(3)), (content(3).kept, 0));
    }
}
