//! Values that several tests of this room need.

use std::sync::LazyLock;

use super::{Names, Pool, Vocabulary};
use crate::model::{
    BuildId, ClaimRef, Device, EbpfAbilities, IfIndex, InterfaceState, NetnsId, NetnsRef, PciFacts,
    Phase, PodRef, PortFacts, Queues, RdmaFacts, RdmaLinkLayer, Record, Sriov, XdpFeatures,
};

pub(super) fn pool() -> Pool {
    Pool { driver: "weir.dev".to_owned(), node: "node-a".to_owned() }
}

pub(super) fn vocabulary() -> &'static Vocabulary {
    static OURS: LazyLock<Vocabulary> =
        LazyLock::new(|| Vocabulary { names: Names::Ours, domain: pool().driver });
    &OURS
}

/// A veth end of that name.
pub(super) fn device(name: &str) -> Device {
    // Nobody could tell what XDP can do on it.
    let ebpf = EbpfAbilities { tcx: true, ..EbpfAbilities::default() };
    Device { ebpf, ..crate::testing::device(name) }
}

/// `device` attached to a pod, for a claim that wished nothing.
pub(super) fn record(device: Device) -> Record {
    let netns = NetnsRef {
        path: "/run/netns/pod-a".into(),
        id: NetnsId { device: 4, inode: 4_026_532_000 },
    };
    let mut sample =
        crate::testing::record("eth1", None, Phase::Attached { netns, inside: IfIndex(2) });
    sample.before = InterfaceState {
        name: device.interface.clone().unwrap_or(sample.before.name),
        index: device.index.unwrap_or_default(),
        mac: device.mac,
        mtu: device.mtu,
        addresses: device.addresses.clone(),
        ..sample.before
    };
    Record {
        claim: ClaimRef {
            namespace: "default".to_owned(),
            name: "nics".to_owned(),
            uid: "c1".parse().unwrap(),
        },
        pod: PodRef {
            namespace: "default".to_owned(),
            name: "pod-a".to_owned(),
            uid: "0a".parse().unwrap(),
        },
        requests: vec!["a".to_owned()],
        pool: pool().node,
        build: BuildId::default(),
        lease: None,
        was_raised: false,
        sandbox: None,
        device,
        ..sample
    }
}

/// A physical function about which everything is known.
pub(super) fn everything(name: &str) -> Device {
    Device {
        kind: "device".to_owned(),
        is_virtual: false,
        addresses: ["10.1.2.3/24", "fd00::1/64"].map(|net| net.parse().unwrap()).to_vec(),
        pci: Some(PciFacts {
            address: "0000:3b:00.1".parse().unwrap(),
            root: "pci0000:3a".to_owned(),
            vendor: Some("8086".to_owned()),
            device: Some("1592".to_owned()),
            subsystem: Some("0002".to_owned()),
        }),
        numa_node: Some(1),
        driver: Some("ice".to_owned()),
        speed_mbps: Some(100_000),
        sriov: Some(Sriov { total_vfs: 128, num_vfs: 4 }),
        rdma_device: Some("irdma0".to_owned()),
        rdma: Some(RdmaFacts {
            link_layer: RdmaLinkLayer::RoCE,
            node_type: "CA".to_owned(),
            node_guid: Some("0200:00ff:fe00:0007".to_owned()),
        }),
        iommu_group: Some(42),
        port: PortFacts {
            name: Some("p0".to_owned()),
            id: Some("020000000007".to_owned()),
            switch_id: Some("0a0b".to_owned()),
        },
        firmware: Some("4.40 0x8001c967".to_owned()),
        queues: Some(Queues { rx: 64, tx: 64 }),
        alias: Some("rail 0".to_owned()),
        altnames: vec!["enp59s0f1".to_owned(), "ens3f1".to_owned()],
        ebpf: EbpfAbilities {
            xdp: Some(XdpFeatures(0b101_1011)),
            xdp_in_use: false,
            tcx: true,
            programs: vec!["other".to_owned()],
            tcx_programs: vec!["other".to_owned()],
            tc_filters: vec!["older".to_owned()],
            ..EbpfAbilities::default()
        },
        ..device(name)
    }
}
