//! A record and traffic for the tests of this room and of `cli`.

use crate::model::{
    AttachmentId, BuildId, DirectionTraffic, IfIndex, IngressHook, Origin, PacketCount, Phase,
    Record, RuleTraffic, Traffic, Wishes,
};
use crate::testing::{claim, device, netns, pod};

/// `device_name`, attached to pod `default/web` as `net1` for claim `default/nic`, with a datapath.
pub(crate) fn record(device_name: &str) -> Record {
    let (claim, device) = (claim("nic"), device(device_name));
    let mut wishes = Wishes::default();
    wishes.interface.name = Some("net1".parse().unwrap());
    let id = AttachmentId { claim: claim.uid.clone(), device: device.name.clone(), share: None };
    let datapath = crate::testing::spec(id, IngressHook::Xdp);
    let phase = Phase::Attached { netns: netns(4_026_532_000), inside: IfIndex(3) };
    let mut sample = crate::testing::record(device_name, None, phase);
    sample.before.addresses = vec!["192.0.2.7/24".parse().unwrap()];
    Record {
        claim,
        pod: pod("web"),
        requests: vec!["nic".to_owned()],
        wishes,
        datapath: Some(datapath),
        build: BuildId("0123abcd".to_owned()),
        ..sample
    }
}

/// `allowed` packets in and out of 100 bytes each, and `denied` more in.
pub(crate) fn traffic(allowed: u64, denied: u64) -> Traffic {
    let count = |packets| PacketCount { packets, bytes: packets * 100 };
    let direction = |allowed, denied| DirectionTraffic {
        total: count(allowed + denied),
        verdicts: vec![
            ("allowed", count(allowed)),
            ("denied_rule", count(denied)),
            ("denied_default", count(0)),
            ("denied_rate", count(0)),
            ("malformed", count(0)),
        ],
        protocols: vec![("tcp", count(allowed)), ("udp", count(denied))],
        sizes: vec![(Some(64), 0), (Some(128), allowed + denied), (None, 0)],
        tcp_events: vec![("syn", 1), ("rst", 0)],
        fragments: 2,
        tagged: 3,
        replies: 4,
        flows_evicted: 30,
        flows_exported: 20,
        flows_lost: 10,
        generation: 1,
    };
    Traffic { ingress: direction(allowed, denied), egress: direction(allowed, 0) }
}

/// An ingress rule of each origin, both called `web`.
pub(crate) fn rules() -> Vec<RuleTraffic> {
    let rule = |origin, packets| RuleTraffic {
        direction: "ingress",
        origin,
        rule: "web".to_owned(),
        matched: PacketCount { packets, bytes: packets * 100 },
    };
    vec![rule(Origin::Operator, 2), rule(Origin::Claim, 5)]
}
