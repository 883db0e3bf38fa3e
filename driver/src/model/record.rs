//! What is remembered of an attachment: the checkpoint's content, and what others may know of it.

use serde::{Deserialize, Serialize};

use super::{
    AttachmentId, Belongings, ClaimRef, Device, DeviceName, EgressHook, EthtoolState, Filter,
    FlowWishes, Form, HookReason, IfIndex, IfName, IngressHook, InterfaceState, Lease, MacAddr,
    NetnsRef, OperatorPolicy, PodRef, RdmaPlace, ShareId, SubinterfaceSpec, Telemetry, VfRecord,
    Wishes,
};

/// One prepared device, from prepare to unprepare.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub claim: ClaimRef,
    /// The pod that the claim was reserved for when it was prepared.
    pub pod: PodRef,
    /// Names of the requests that this device answers.
    pub requests: Vec<String>,
    pub pool: String,
    /// Which of its shares, where the device can be shared.
    #[serde(default)]
    pub share: Option<ShareId>,
    /// The device as it was published when it was prepared.
    pub device: Device,
    pub wishes: Wishes,
    /// `None` when the claim wants no program.
    pub datapath: Option<DatapathSpec>,
    /// What `weir policy apply` laid over the claim's filter.
    #[serde(default)]
    pub policy: Option<OperatorPolicy>,
    /// Which build of the programs is attached; none while they are being replaced.
    pub build: BuildId,
    /// What is made upon the device and moved in its stead.
    #[serde(default)]
    pub subinterface: Option<SubinterfaceSpec>,
    /// What the interface was like on the host before it was first touched;
    /// [`InterfaceState::none`] of what has none.
    pub before: InterfaceState,
    /// What the host had on it when it last left.
    #[serde(default)]
    pub belongings: Belongings,
    /// What its driver was set to before prepare changed that.
    #[serde(default)]
    pub ethtool: EthtoolState,
    /// What its physical function was told, where it is a virtual one.
    #[serde(default)]
    pub vf: Option<VfRecord>,
    /// The RDMA device that moves along; none where all namespaces share RDMA devices.
    #[serde(default)]
    pub rdma: Option<RdmaPlace>,
    /// What a DHCP server gave it, where the claim wishes that.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// Prepare set the interface up to ask a DHCP server, and unprepare sets it down again.
    #[serde(default)]
    pub was_raised: bool,
    /// The runtime's name of the sandbox that the device is in, or on its way into or out of.
    pub sandbox: Option<String>,
    /// What of `before` could not be put back when the interface came home last.
    #[serde(default)]
    pub residue: Vec<String>,
    pub phase: Phase,
}

impl Record {
    /// A record that says nothing yet but whose device it is.
    pub fn of(
        claim: ClaimRef,
        pod: PodRef,
        device: Device,
        before: InterfaceState,
        build: BuildId,
    ) -> Self {
        Self {
            claim,
            pod,
            requests: Vec::new(),
            pool: String::new(),
            share: None,
            device,
            wishes: Wishes::default(),
            datapath: None,
            policy: None,
            build,
            subinterface: None,
            before,
            belongings: Belongings::default(),
            ethtool: EthtoolState::default(),
            vf: None,
            rdma: None,
            lease: None,
            was_raised: false,
            sandbox: None,
            residue: Vec::new(),
            phase: Phase::Preparing,
        }
    }

    pub fn id(&self) -> AttachmentId {
        AttachmentId {
            claim: self.claim.uid.clone(),
            device: self.device.name.clone(),
            share: self.share.clone(),
        }
    }

    /// Whether the pod gets a network interface, rather than an RDMA device or a PCI function alone.
    pub fn has_interface(&self) -> bool {
        self.device.form() == Form::Interface
    }

    /// What people know it by in the pod: its interface there, or else what the device is called.
    pub fn called(&self) -> &str {
        if self.has_interface() { self.pod_interface().as_str() } else { self.device.called() }
    }

    /// What the interface is called inside the pod. Means nothing where there is none.
    pub fn pod_interface(&self) -> &IfName {
        self.wishes.interface.name.as_ref().unwrap_or(&self.before.name)
    }

    /// The interface's hardware address inside the pod.
    pub fn pod_mac(&self) -> Option<MacAddr> {
        self.wishes.interface.mac.or(self.before.mac)
    }
}

/// What is left of a record of an earlier boot: the operator's policy, for when the same device is
/// prepared for the same claim again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptPolicy {
    pub claim: ClaimRef,
    /// The pod that the claim was reserved for then.
    pub pod: PodRef,
    pub device: DeviceName,
    #[serde(default)]
    pub share: Option<ShareId>,
    pub policy: OperatorPolicy,
}

impl KeptPolicy {
    pub fn id(&self) -> AttachmentId {
        AttachmentId {
            claim: self.claim.uid.clone(),
            device: self.device.clone(),
            share: self.share.clone(),
        }
    }
}

/// Where one prepared device stands on its way into a sandbox and back.
///
/// ```text
///              sandbox started            done
///  Preparing ▶ Prepared ──────▶ Attaching ─────▶ Attached
///                 ▲  ▲             │    │            │
///                 │  └── undone ───┘    │            │ sandbox stopped
///                 │                     ▼            ▼
///                 └────── freed ──── Detaching ◀─────┘
/// ```
///
/// A phase is on disk before the node is touched. After a crash, `Preparing`, `Attaching`,
/// `Detaching` and `Unpreparing` thus mean "perhaps partly done", and the start settles them; the
/// other two mean what they say. A freed device is `Prepared` again, not gone: the runtime may start
/// the pod's sandbox a second time under the same claim. Only unprepare removes the record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "phase", rename_all = "camelCase")]
pub enum Phase {
    Preparing,
    Prepared,
    Attaching { netns: NetnsRef },
    Attached { netns: NetnsRef, inside: IfIndex },
    Detaching { netns: NetnsRef, inside: Option<IfIndex> },
    Unpreparing,
}

impl Phase {
    /// One word of a closed set, for labels and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Prepared => "prepared",
            Self::Attaching { .. } => "attaching",
            Self::Attached { .. } => "attached",
            Self::Detaching { .. } => "detaching",
            Self::Unpreparing => "unpreparing",
        }
    }

    /// The namespace that the device is in, or on its way into or out of.
    pub fn netns(&self) -> Option<&NetnsRef> {
        match self {
            Self::Attaching { netns }
            | Self::Attached { netns, .. }
            | Self::Detaching { netns, .. } => Some(netns),
            Self::Preparing | Self::Prepared | Self::Unpreparing => None,
        }
    }

    /// The interface's index in that namespace, where it is known.
    pub fn inside(&self) -> Option<IfIndex> {
        match self {
            Self::Attached { inside, .. } => Some(*inside),
            Self::Detaching { inside, .. } => *inside,
            _ => None,
        }
    }

    /// The phase in which the device leaves its namespace; the same where it is in none.
    #[must_use]
    pub fn leaving(self) -> Self {
        let inside = self.inside();
        match self.netns() {
            Some(netns) => Self::Detaching { netns: netns.clone(), inside },
            None => self,
        }
    }
}

/// Which build of the programs: changes whenever their object changes. The default is none that
/// there is: what runs is then not, or not surely, what the record says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct BuildId(pub String);

impl BuildId {
    /// Whether the recorded programs are known to be the attached ones.
    pub fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Everything that decides what is loaded and where it is attached.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatapathSpec {
    pub id: AttachmentId,
    pub ingress: IngressHook,
    #[serde(default)]
    pub why: HookReason,
    #[serde(default)]
    pub egress: EgressHook,
    pub telemetry: Telemetry,
    #[serde(default)]
    pub flows: FlowWishes,
    /// What is in force: the claim's filter with the operator's rules laid over it.
    pub filter: Option<Filter>,
    /// Counts the states of that filter, from [`Self::FIRST_GENERATION`]. No two states of one
    /// attachment have the same number.
    #[serde(default = "first_generation")]
    pub generation: u32,
}

impl DatapathSpec {
    /// What a filter has that nobody has changed since it was prepared.
    pub const FIRST_GENERATION: u32 = 1;
}

fn first_generation() -> u32 {
    DatapathSpec::FIRST_GENERATION
}
