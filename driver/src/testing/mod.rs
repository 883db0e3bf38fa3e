//! The node that only exists in memory, and small builders, for tests of every room.

mod fake;
pub mod fuzz;

pub use self::fake::{Death, FakeInterface, FakeNode, FakeRdma, FakeVf, Fault, World};

use std::collections::BTreeMap;

use crate::model::{
    Action, AttachmentId, BuildId, ClaimRef, DatapathSpec, Device, EbpfAbilities, EgressHook,
    FilterRule, FlowWishes, HookReason, IfIndex, IngressHook, InterfaceState, MacAddr, NetnsId,
    NetnsRef, Origin, Phase, PodRef, PortFacts, Record, Sandbox, Segments, Telemetry, XdpFeatures,
};

/// What a test names must be well-formed; anything else is a mistake in the test.
fn well_formed<T, E: std::fmt::Debug>(parsed: Result<T, E>) -> T {
    #[expect(clippy::expect_used, reason = "a malformed name in a test ends the test")]
    parsed.expect("a well-formed name")
}

/// A veth called `name`, published under the same name.
pub fn device(name: &str) -> Device {
    Device {
        name: well_formed(name.parse()),
        interface: Some(well_formed(name.parse())),
        index: Some(IfIndex(7)),
        altnames: Vec::new(),
        alias: None,
        mac: Some(MacAddr([2, 0, 0, 0, 0, 7])),
        mtu: 1500,
        is_up: true,
        state: "up".to_owned(),
        kind: "veth".to_owned(),
        carrier: Some(true),
        encapsulation: "ether".to_owned(),
        parent: None,
        controller: None,
        is_virtual: true,
        addresses: Vec::new(),
        pci: None,
        parent_pcie_root: None,
        numa_node: None,
        local_cpus: None,
        driver: Some("veth".to_owned()),
        firmware: None,
        queues: None,
        speed_mbps: Some(10_000),
        port: PortFacts::default(),
        iommu_group: None,
        iommu_group_held_up_by: Vec::new(),
        sriov: None,
        is_sriov_vf: false,
        vf: None,
        rdma_device: None,
        rdma_nodes: Vec::new(),
        rdma: None,
        ebpf: EbpfAbilities {
            xdp: Some(XdpFeatures(0x23)),
            xdp_in_use: false,
            tcx: true,
            ..EbpfAbilities::default()
        },
        provided: BTreeMap::new(),
    }
}

/// Claim `default/NAME` with the UID `uid-NAME`.
pub fn claim(name: &str) -> ClaimRef {
    ClaimRef {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: well_formed(format!("uid-{name}").parse()),
    }
}

/// Pod `default/NAME` with the UID `uid-NAME`.
pub fn pod(name: &str) -> PodRef {
    PodRef {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: well_formed(format!("uid-{name}").parse()),
    }
}

/// The namespace with this inode, at a path that says so.
pub fn netns(inode: u64) -> NetnsRef {
    NetnsRef { path: format!("/run/netns/{inode}").into(), id: NetnsId { device: 4, inode } }
}

/// The sandbox of pod `default/POD` in the namespace `inode`.
pub fn sandbox(id: &str, pod_name: &str, inode: u64) -> Sandbox {
    Sandbox { id: id.to_owned(), pod: pod(pod_name), netns: Some(netns(inode)) }
}

/// Counters without a filter. Where one direction is by `clsact`, so is the other.
pub fn spec(id: AttachmentId, ingress: IngressHook) -> DatapathSpec {
    let egress = match ingress {
        IngressHook::Clsact => EgressHook::Clsact,
        IngressHook::Xdp | IngressHook::XdpFrags | IngressHook::Tcx => EgressHook::Tcx,
    };
    DatapathSpec {
        id,
        ingress,
        why: HookReason::Wished,
        egress,
        telemetry: Telemetry::Counters,
        flows: FlowWishes::default(),
        filter: None,
        generation: 1,
    }
}

/// Device `NAME`, prepared by build `old` for pod `pod-a` under claim `claim-a`, with a datapath if a
/// hook is given, and as far as `phase` says.
pub fn record(name: &str, ingress: Option<IngressHook>, phase: Phase) -> Record {
    let device = device(name);
    let before = InterfaceState {
        name: well_formed(name.parse()),
        index: IfIndex(7),
        mac: device.mac,
        mtu: device.mtu,
        up: true,
        addresses: Vec::new(),
        controller: None,
        segments: Segments::default(),
    };
    let build = BuildId("old".to_owned());
    let mut record = Record {
        pool: "node-a".to_owned(),
        sandbox: phase.netns().map(|_| "sandbox-1".to_owned()),
        phase,
        ..Record::of(claim("claim-a"), pod("pod-a"), device, before, build)
    };
    record.datapath = ingress.map(|ingress| spec(record.id(), ingress));
    record
}

/// A rule that every packet matches.
pub fn rule(name: &str, action: Action) -> FilterRule {
    FilterRule {
        name: name.to_owned(),
        origin: Origin::Claim,
        action,
        sources: Vec::new(),
        destinations: Vec::new(),
        protocol: None,
        source_ports: Vec::new(),
        destination_ports: Vec::new(),
        established: false,
        icmp_types: Vec::new(),
        fragment: None,
    }
}
