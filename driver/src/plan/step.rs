//! The vocabulary of a plan: what can be looked at, what can be done, what it replaced.

use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::model::{
    At, AttachmentId, Belongings, By, CdiSpec, ClaimUid, Dad, DatapathSpec, EthtoolSetting,
    EthtoolState, IfIndex, IfName, InterfaceState, Lease, MacAddr, Neighbor, NetnsRef,
    OtherPrograms, PciAddress, PfState, Place, RdmaPlace, Route, Rule, Segments, SubinterfaceSpec,
    VfPlace, VfSettings, Vrf,
};

/// One change to the node.
///
/// Applied twice it leaves what applying it once leaves. What it replaced comes back as a [`Was`],
/// from which [`Step::undo`] makes the way back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Loads the programs, pins maps and links, attaches to an interface of the host. What the
    /// kernel only takes as a filter is pinned and waits for [`Step::AttachFilters`].
    InstallDatapath {
        spec: DatapathSpec,
        interface: IfName,
    },
    /// Swaps the attached programs for those of this build, one atomic exchange for each link; the
    /// maps, and so the counts, stay. Filters follow by [`Step::AttachFilters`].
    ReplaceDatapath {
        spec: DatapathSpec,
    },
    /// Detaches, and removes all pins. Wherever the interface is, and also when it is gone. Filters
    /// are not looked for: they went with the interface's last move.
    RemoveDatapath {
        id: AttachmentId,
    },
    /// Puts those programs of an installed datapath that have no link on the interface, as filters;
    /// in the place of their predecessors, where there are some.
    AttachFilters {
        spec: DatapathSpec,
        at: At,
    },
    DetachFilters {
        spec: DatapathSpec,
        at: At,
    },
    SetUp {
        at: At,
    },
    SetDown {
        at: At,
    },
    SetMtu {
        at: At,
        mtu: u32,
    },
    SetMac {
        at: At,
        mac: MacAddr,
    },
    AddAddress {
        at: At,
        address: IpNet,
        dad: Dad,
    },
    RemoveAddress {
        at: At,
        address: IpNet,
    },
    AddRoute {
        at: At,
        route: Route,
    },
    RemoveRoute {
        at: At,
        route: Route,
    },
    AddRule {
        place: Place,
        rule: Rule,
    },
    RemoveRule {
        place: Place,
        rule: Rule,
    },
    AddNeighbor {
        at: At,
        neighbor: Neighbor,
    },
    RemoveNeighbor {
        at: At,
        neighbor: Neighbor,
    },
    /// Sets those limits that are given.
    SetSegments {
        at: At,
        segments: Segments,
    },
    /// Writes `value` to `/proc/sys/net/NAME`, seen from that namespace.
    SetSysctl {
        place: Place,
        name: String,
        value: String,
    },
    /// Sets what is named, by one request to the driver; the rest stays as it is.
    SetEthtool {
        at: At,
        setting: EthtoolSetting,
    },
    /// Tells a physical function of the host what one of its virtual ones shall have; what is not
    /// named stays as it is.
    SetVf {
        vf: VfPlace,
        settings: VfSettings,
    },
    /// Moves an RDMA device into another namespace, away from whoever uses it, and gives it back its
    /// name on the host.
    MoveRdma {
        device: RdmaPlace,
        from: Place,
        to: Place,
    },
    /// Has a physical function that has `from` virtual ones have `to`; those that it has all go first.
    /// There is no way back for them.
    SetVfCount {
        pf: PciAddress,
        from: u32,
        to: u32,
    },
    /// Makes the VRF, up, unless there is one of this name and table.
    AddVrf {
        place: Place,
        vrf: Vrf,
    },
    RemoveVrf {
        place: Place,
        vrf: Vrf,
    },
    /// Makes the interface a member of another one, or of none.
    SetController {
        at: At,
        controller: Option<IfName>,
    },
    /// Detaches programs of others; those of `ours` stay. What is detached cannot be attached again
    /// by us, so there is no way back.
    DetachPrograms {
        at: At,
        programs: OtherPrograms,
        ours: AttachmentId,
    },
    /// Makes an interface upon a device of the host, down.
    AddSubinterface {
        spec: SubinterfaceSpec,
    },
    /// Removes it from the host, if it is there.
    RemoveSubinterface {
        name: IfName,
    },
    /// Lets containers in that name the claim's devices: writes the claim's CDI specification.
    WriteCdi {
        spec: CdiSpec,
    },
    /// Lets no more containers in.
    RemoveCdi {
        claim: ClaimUid,
    },
    /// Tells the DHCP server that an address is free again. It does not answer, so nobody knows whether
    /// it heard; the interface has to be up.
    ReleaseLease {
        at: At,
        lease: Lease,
    },
    /// Into another namespace under a new name, in one call to the kernel. The interface is down
    /// and without addresses and filters afterwards; MTU, MAC address and attached links stay.
    Move {
        from: At,
        to: At,
    },
}

impl Step {
    /// What takes this step back, given what it replaced. `None` where nothing was changed, and
    /// for steps that only ever lead back themselves.
    pub fn undo(&self, was: &Was) -> Option<Self> {
        if matches!(was, Was::Same) {
            return None;
        }
        match (self, was) {
            (Self::InstallDatapath { spec, .. }, _) => {
                Some(Self::RemoveDatapath { id: spec.id.clone() })
            }
            (Self::AttachFilters { spec, at }, _) => {
                Some(Self::DetachFilters { spec: spec.clone(), at: at.clone() })
            }
            (Self::DetachFilters { spec, at }, _) => {
                Some(Self::AttachFilters { spec: spec.clone(), at: at.clone() })
            }
            (Self::SetUp { at }, _) => Some(Self::SetDown { at: at.clone() }),
            (Self::SetDown { at }, _) => Some(Self::SetUp { at: at.clone() }),
            (Self::SetMtu { at, .. }, Was::Mtu(mtu)) => {
                Some(Self::SetMtu { at: at.clone(), mtu: *mtu })
            }
            (Self::SetMac { at, .. }, Was::Mac(mac)) => {
                Some(Self::SetMac { at: at.clone(), mac: *mac })
            }
            (Self::SetSegments { at, .. }, Was::Segments(segments)) => {
                Some(Self::SetSegments { at: at.clone(), segments: *segments })
            }
            (Self::SetSysctl { place, name, .. }, Was::Value(value)) => Some(Self::SetSysctl {
                place: place.clone(),
                name: name.clone(),
                value: value.clone(),
            }),
            (Self::SetEthtool { at, .. }, Was::Ethtool(setting)) => {
                Some(Self::SetEthtool { at: at.clone(), setting: setting.clone() })
            }
            (Self::SetVf { vf, .. }, Was::Vf(settings)) => {
                Some(Self::SetVf { vf: vf.clone(), settings: settings.clone() })
            }
            (Self::MoveRdma { device, from, to }, _) => {
                Some(Self::MoveRdma { device: device.clone(), from: to.clone(), to: from.clone() })
            }
            (Self::SetController { at, .. }, Was::Controller(controller)) => {
                Some(Self::SetController { at: at.clone(), controller: controller.clone() })
            }
            (
                Self::ReplaceDatapath { .. }
                | Self::RemoveDatapath { .. }
                | Self::SetMtu { .. }
                | Self::SetMac { .. }
                | Self::SetSegments { .. }
                | Self::SetSysctl { .. }
                | Self::SetEthtool { .. }
                | Self::SetVf { .. }
                | Self::SetVfCount { .. }
                | Self::SetController { .. }
                | Self::DetachPrograms { .. }
                | Self::RemoveSubinterface { .. }
                | Self::RemoveCdi { .. }
                | Self::ReleaseLease { .. },
                _,
            ) => None,
            (Self::AddAddress { at, address, .. }, _) => {
                Some(Self::RemoveAddress { at: at.clone(), address: *address })
            }
            (Self::RemoveAddress { at, address }, _) => {
                Some(Self::AddAddress { at: at.clone(), address: *address, dad: Dad::Skip })
            }
            (Self::AddRoute { at, route }, _) => {
                Some(Self::RemoveRoute { at: at.clone(), route: route.clone() })
            }
            (Self::RemoveRoute { at, route }, _) => {
                Some(Self::AddRoute { at: at.clone(), route: route.clone() })
            }
            (Self::AddRule { place, rule }, _) => {
                Some(Self::RemoveRule { place: place.clone(), rule: rule.clone() })
            }
            (Self::RemoveRule { place, rule }, _) => {
                Some(Self::AddRule { place: place.clone(), rule: rule.clone() })
            }
            (Self::AddNeighbor { at, neighbor }, _) => {
                Some(Self::RemoveNeighbor { at: at.clone(), neighbor: *neighbor })
            }
            (Self::RemoveNeighbor { at, neighbor }, _) => {
                Some(Self::AddNeighbor { at: at.clone(), neighbor: *neighbor })
            }
            (Self::AddVrf { place, vrf }, _) => {
                Some(Self::RemoveVrf { place: place.clone(), vrf: vrf.clone() })
            }
            (Self::RemoveVrf { place, vrf }, _) => {
                Some(Self::AddVrf { place: place.clone(), vrf: vrf.clone() })
            }
            (Self::AddSubinterface { spec }, _) => {
                Some(Self::RemoveSubinterface { name: spec.name.clone() })
            }
            (Self::WriteCdi { spec }, _) => Some(Self::RemoveCdi { claim: spec.claim.clone() }),
            (Self::Move { from, to }, _) => Some(Self::Move { from: to.clone(), to: from.clone() }),
        }
    }

    /// One word of a closed set, for labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InstallDatapath { .. } => "install_datapath",
            Self::ReplaceDatapath { .. } => "replace_datapath",
            Self::RemoveDatapath { .. } => "remove_datapath",
            Self::AttachFilters { .. } => "attach_filters",
            Self::DetachFilters { .. } => "detach_filters",
            Self::SetUp { .. } => "set_up",
            Self::SetDown { .. } => "set_down",
            Self::SetMtu { .. } => "set_mtu",
            Self::SetMac { .. } => "set_mac",
            Self::AddAddress { .. } => "add_address",
            Self::RemoveAddress { .. } => "remove_address",
            Self::AddRoute { .. } => "add_route",
            Self::RemoveRoute { .. } => "remove_route",
            Self::AddRule { .. } => "add_rule",
            Self::RemoveRule { .. } => "remove_rule",
            Self::AddNeighbor { .. } => "add_neighbor",
            Self::RemoveNeighbor { .. } => "remove_neighbor",
            Self::SetSegments { .. } => "set_segments",
            Self::SetSysctl { .. } => "set_sysctl",
            Self::SetEthtool { .. } => "set_ethtool",
            Self::SetVf { .. } => "set_vf",
            Self::MoveRdma { .. } => "move_rdma",
            Self::SetVfCount { .. } => "set_vf_count",
            Self::AddVrf { .. } => "add_vrf",
            Self::RemoveVrf { .. } => "remove_vrf",
            Self::SetController { .. } => "set_controller",
            Self::DetachPrograms { .. } => "detach_programs",
            Self::AddSubinterface { .. } => "add_subinterface",
            Self::RemoveSubinterface { .. } => "remove_subinterface",
            Self::WriteCdi { .. } => "write_cdi",
            Self::RemoveCdi { .. } => "remove_cdi",
            Self::ReleaseLease { .. } => "release_lease",
            Self::Move { .. } => "move",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstallDatapath { spec, interface } => {
                write!(f, "install datapath {} ({}) on {interface}", spec.id, spec.ingress)
            }
            Self::ReplaceDatapath { spec } => write!(f, "replace the programs of {}", spec.id),
            Self::RemoveDatapath { id } => write!(f, "remove datapath {id}"),
            Self::AttachFilters { spec, at } => write!(f, "attach filters of {} to {at}", spec.id),
            Self::DetachFilters { spec, at } => {
                write!(f, "detach filters of {} from {at}", spec.id)
            }
            Self::SetUp { at } => write!(f, "set {at} up"),
            Self::SetDown { at } => write!(f, "set {at} down"),
            Self::SetMtu { at, mtu } => write!(f, "set MTU {mtu} on {at}"),
            Self::SetMac { at, mac } => write!(f, "set MAC address {mac} on {at}"),
            Self::AddAddress { at, address, .. } => write!(f, "add address {address} to {at}"),
            Self::RemoveAddress { at, address } => write!(f, "remove address {address} from {at}"),
            Self::AddRoute { at, route } => write!(f, "add route {} to {at}", route.destination),
            Self::RemoveRoute { at, route } => {
                write!(f, "remove route {} from {at}", route.destination)
            }
            Self::AddRule { place, rule } => {
                write!(f, "add rule {} to table {} in {place}", rule.priority, rule.table.0)
            }
            Self::RemoveRule { place, rule } => {
                write!(f, "remove rule {} to table {} in {place}", rule.priority, rule.table.0)
            }
            Self::AddNeighbor { at, neighbor } => {
                write!(f, "add neighbour {} to {at}", neighbor.destination)
            }
            Self::RemoveNeighbor { at, neighbor } => {
                write!(f, "remove neighbour {} from {at}", neighbor.destination)
            }
            Self::SetSegments { at, .. } => write!(f, "set GSO and GRO sizes of {at}"),
            Self::SetSysctl { place, name, value } => {
                write!(f, "set net/{name} to {value:?} in {place}")
            }
            Self::SetEthtool { at, setting } => write!(f, "set {} of {at}", setting.noun()),
            Self::SetVf { vf, .. } => write!(f, "set {vf}"),
            Self::MoveRdma { device, from, to } => {
                write!(f, "move RDMA device {} from {from} to {to}", device.name)
            }
            Self::SetVfCount { pf, from, to } => {
                write!(f, "set {to} virtual functions of {pf} in place of {from}")
            }
            Self::AddVrf { place, vrf } => write!(f, "add VRF {} to {place}", vrf.name),
            Self::RemoveVrf { place, vrf } => write!(f, "remove VRF {} from {place}", vrf.name),
            Self::SetController { at, controller: Some(name) } => {
                write!(f, "make {at} a member of {name}")
            }
            Self::SetController { at, controller: None } => {
                write!(f, "make {at} a member of nothing")
            }
            Self::DetachPrograms { at, .. } => write!(f, "detach other programs from {at}"),
            Self::AddSubinterface { spec } => {
                write!(f, "add {} {} upon {}", spec.kind.name(), spec.name, spec.parent)
            }
            Self::RemoveSubinterface { name } => write!(f, "remove {name}"),
            Self::WriteCdi { spec } => write!(f, "write the CDI specification of {}", spec.claim),
            Self::RemoveCdi { claim } => write!(f, "remove the CDI specification of {claim}"),
            Self::ReleaseLease { at, lease } => {
                write!(
                    f,
                    "release {} of {at} to DHCP server {}",
                    lease.address.addr(),
                    lease.server
                )
            }
            Self::Move { from, to } => write!(f, "move {from} to {to}"),
        }
    }
}

/// What a step replaced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Was {
    /// It was there already, nothing changed.
    Same,
    /// It was the other way round: down, absent, elsewhere.
    Otherwise,
    Mtu(u32),
    Mac(MacAddr),
    /// The limits that were changed, as they were.
    Segments(Segments),
    /// The text of a sysctl, without the end of its line.
    Value(String),
    /// What was changed of an [`EthtoolSetting`], as it was.
    Ethtool(EthtoolSetting),
    Controller(Option<IfName>),
    /// What was changed of a virtual function, as it was.
    Vf(VfSettings),
}

/// What to look at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    Interface {
        place: Place,
        by: By,
    },
    Datapath(AttachmentId),
    /// Everything that is pinned below our part of bpffs, recorded or not.
    AllDatapaths,
    /// What the host has on an interface of its own.
    Belongings(IfIndex),
    /// What ethtool tells of an interface of the host.
    Ethtool(IfName),
    /// What a physical function of the host tells of one of its virtual ones.
    Vf(VfPlace),
    /// An RDMA device, by its index where that is known, else by its name.
    Rdma {
        place: Place,
        name: String,
        index: Option<u32>,
    },
    /// The character devices of an RDMA device, in whichever namespace it is: on its function, where that
    /// is known.
    RdmaNodes {
        name: String,
        function: Option<PciAddress>,
    },
    /// A PCI function that user space is to have.
    Function(PciAddress),
    /// Whether a namespace is still there.
    Namespace(NetnsRef),
    /// Physical functions that can have virtual ones.
    PhysicalFunctions,
    /// The host's interfaces that a device may have come back as, under whichever name.
    Strays(Stray),
    /// The cookie of a namespace.
    Cookie(NetnsRef),
    /// Claims with a CDI specification of ours, recorded or not.
    AllCdi,
    /// Interfaces of the host that have names as we give them to sub-interfaces.
    AllSubinterfaces,
}

/// By what a device is known that fell back to the host when its namespace died.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stray {
    /// The address of the bus that the device is on; the surest sign.
    pub pci: Option<PciAddress>,
    /// The addresses that it may have.
    pub macs: Vec<MacAddr>,
}

/// What was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Observed {
    /// `None`: no such interface there, or the namespace itself is gone. Both are normal.
    Interface(Option<InterfaceState>),
    Datapath(DatapathState),
    AllDatapaths(Vec<AttachmentId>),
    Belongings(Box<Belongings>),
    Ethtool(Box<EthtoolState>),
    /// `None`: there is no such function.
    Vf(Option<VfSettings>),
    /// `None`: there is no such RDMA device there, or no RDMA at all.
    Rdma(Option<RdmaSeen>),
    RdmaNodes(Vec<PathBuf>),
    /// `None`: there is no such function.
    Function(Option<FunctionSeen>),
    Namespace(bool),
    PhysicalFunctions(Vec<PfState>),
    Strays(Vec<InterfaceState>),
    Cookie(u64),
    AllCdi(Vec<ClaimUid>),
    AllSubinterfaces(Vec<IfName>),
}

/// What there is of an RDMA device of the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RdmaSeen {
    pub place: RdmaPlace,
    /// Namespaces do not share RDMA devices: each has to be moved to where it is used.
    pub is_exclusive: bool,
}

/// Whether a PCI function can be given to user space.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FunctionSeen {
    pub driver: Option<String>,
    /// None also where VFIO has made one without an IOMMU.
    pub iommu_group: Option<u32>,
    /// Functions of the group that drivers of the kernel use.
    pub held_up_by: Vec<PciAddress>,
}

/// What is there of a datapath.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DatapathState {
    /// No pins at all.
    Absent,
    /// All links are pinned and attached to an interface.
    Attached,
    /// Something is missing or severed: an install died half-way, or the interface was deleted.
    Broken,
}

impl fmt::Display for DatapathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Attached => "attached",
            Self::Broken => "broken",
        })
    }
}
