//! The vocabulary of a plan: what can be looked at, what can be done, what it replaced.

use std::fmt;

use ipnet::IpNet;

use crate::model::{
    At, AttachmentId, By, DatapathSpec, IfName, InterfaceState, MacAddr, Place, Route,
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
            (
                Self::ReplaceDatapath { .. }
                | Self::RemoveDatapath { .. }
                | Self::SetMtu { .. }
                | Self::SetMac { .. },
                _,
            ) => None,
            (Self::AddAddress { at, address }, _) => {
                Some(Self::RemoveAddress { at: at.clone(), address: *address })
            }
            (Self::RemoveAddress { at, address }, _) => {
                Some(Self::AddAddress { at: at.clone(), address: *address })
            }
            (Self::AddRoute { at, route }, _) => {
                Some(Self::RemoveRoute { at: at.clone(), route: route.clone() })
            }
            (Self::RemoveRoute { at, route }, _) => {
                Some(Self::AddRoute { at: at.clone(), route: route.clone() })
            }
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
            Self::AddAddress { at, address } => write!(f, "add address {address} to {at}"),
            Self::RemoveAddress { at, address } => write!(f, "remove address {address} from {at}"),
            Self::AddRoute { at, route } => write!(f, "add route {} to {at}", route.destination),
            Self::RemoveRoute { at, route } => {
                write!(f, "remove route {} from {at}", route.destination)
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
}

/// What was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Observed {
    /// `None`: no such interface there, or the namespace itself is gone. Both are normal.
    Interface(Option<InterfaceState>),
    Datapath(DatapathState),
    AllDatapaths(Vec<AttachmentId>),
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
