//! A record and traffic for the tests of this room and of `cli`.

use crate::model::{
    AttachmentId, BuildId, DirectionTraffic, IfIndex, IngressHook, InterfaceState,
    PacketCount, Phase, Record, Traffic, Wishes,
};
use crate::testing::{claim, device, netns, pod};

/// `device_name`, attached to pod `default/web` as `net1` for claim `default/nic`, with a datapath.
pub(crate) fn record(device_name: &str) -> Record {
    let (claim, device) = (claim("nic"), device(device_name));
    let mut wishes = Wishes::default();
    wishes.interface.name = Some("net1".parse().unwrap());
    let id = AttachmentId { claim: claim.uid.clone(), device: device.name.clone() };
    let datapath = crate::testing::spec(id, IngressHook::Xdp);
    Record {
        claim,
        pod: pod("web"),
        requests: vec!["nic".to_owned()],
        pool: "node-a".to_owned(),
        wishes,
        datapath: Some(datapath),
        policy: None,
        build: BuildId("0123abcd".to_owned()),
        before: InterfaceState {
            name: device.interface.clone(),
            index: device.index,
            mac: device.mac,
            mtu: device.mtu,
            up: true,
            addresses: vec!["192.0.2.7/24".parse().unwrap()],
            controller: None,
        },
        sandbox: Some("sandbox-1".to_owned()),
        residue: Vec::new(),
        phase: Phase::Attached { netns: netns(4_026_532_000), inside: IfIndex(3) },
        device,
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
            ("malformed", count(0)),
        ],
        protocols: vec![("tcp", count(allowed)), ("udp", count(denied))],
    };
    Traffic { ingress: direction(allowed, denied), egress: direction(allowed, 0) }
}
