//! Records and traffic for the tests of this room and of `cli`.

use crate::model::{
    AttachmentId, BuildId, ClaimRef, DatapathSpec, Device, DirectionTraffic, EbpfAbilities,
    IfIndex, IngressHook, InterfaceState, NetnsId, NetnsRef, PacketCount, Phase, PodRef, Record,
    Telemetry, Traffic, Wishes,
};

pub(crate) fn device(name: &str) -> Device {
    Device {
        name: name.parse().unwrap(),
        interface: name.parse().unwrap(),
        index: IfIndex(7),
        mac: Some("02:00:00:00:00:07".parse().unwrap()),
        mtu: 1500,
        state: "up".to_owned(),
        kind: "veth".to_owned(),
        encapsulation: "ether".to_owned(),
        is_virtual: true,
        addresses: vec!["192.0.2.7/24".parse().unwrap()],
        pci: None,
        numa_node: None,
        driver: Some("veth".to_owned()),
        speed_mbps: Some(10_000),
        sriov: None,
        is_sriov_vf: false,
        rdma_device: None,
        ebpf: EbpfAbilities { tcx: true, ..EbpfAbilities::default() },
    }
}

/// `device`, attached to pod `default/web` as `net1` for claim `default/nic`, with a datapath.
pub(crate) fn record(name: &str) -> Record {
    let device = device(name);
    let claim = ClaimRef {
        namespace: "default".to_owned(),
        name: "nic".to_owned(),
        uid: "c1a1-01".parse().unwrap(),
    };
    let id = AttachmentId { claim: claim.uid.clone(), device: device.name.clone() };
    let mut wishes = Wishes::default();
    wishes.interface.name = Some("net1".parse().unwrap());
    Record {
        pod: PodRef {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uid: "b0d-01".parse().unwrap(),
        },
        requests: vec!["nic".to_owned()],
        pool: "node-a".to_owned(),
        wishes,
        datapath: Some(DatapathSpec {
            id,
            ingress: IngressHook::Xdp,
            telemetry: Telemetry::Counters,
            filter: None,
        }),
        build: BuildId("0123abcd".to_owned()),
        before: InterfaceState {
            name: device.interface.clone(),
            index: device.index,
            mac: device.mac,
            mtu: device.mtu,
            up: true,
            addresses: device.addresses.clone(),
        },
        phase: Phase::Attached {
            netns: NetnsRef {
                path: "/run/netns/web".into(),
                id: NetnsId { device: 4, inode: 4_026_532_000 },
            },
            inside: IfIndex(3),
        },
        claim,
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
