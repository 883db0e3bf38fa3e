//! Interfaces that are made of software: upon another one, or as a VRF.

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoIpVlan, InfoMacVlan, InfoVlan, InfoVrf, IpVlanMode, LinkInfo, LinkMessage,
    MacVlanMode,
};
use rtnetlink::{LinkIpVlan, LinkMacVlan, LinkUnspec, LinkVlan, LinkVrf};

use super::{Netlink, NetlinkError};
use crate::model::{
    IfIndex, IpvlanMode, MacvlanMode, SubinterfaceKind, SubinterfaceSpec, TableId, Vrf,
};

impl Netlink {
    /// Makes an interface upon another one, down.
    pub fn add_subinterface(&self, spec: &SubinterfaceSpec) -> Result<(), NetlinkError> {
        let request = format_args!(
            "add {} {} upon interface {}",
            spec.kind.name(),
            spec.name,
            spec.parent_index
        );
        let (name, parent) = (spec.name.as_str(), spec.parent_index.0);
        let message = match spec.kind {
            SubinterfaceKind::Macvlan { mode } => {
                LinkMacVlan::new(name, parent, macvlan(mode)).build()
            }
            SubinterfaceKind::Ipvlan { mode } => {
                LinkIpVlan::new(name, parent, ipvlan(mode)).build()
            }
            SubinterfaceKind::Vlan { vlan_id } => LinkVlan::new(name, parent, vlan_id).build(),
        };
        self.make(&request, message)
    }

    /// Makes a VRF, up.
    pub fn add_vrf(&self, vrf: &Vrf) -> Result<(), NetlinkError> {
        let request = format_args!("add VRF {} of table {}", vrf.name, vrf.table.0);
        let message = LinkVrf::new(vrf.name.as_str(), vrf.table.0).up().build();
        self.make(&request, message)
    }

    /// Makes the interface a member of another one, or of none.
    pub fn set_controller(
        &self,
        index: IfIndex,
        controller: Option<IfIndex>,
    ) -> Result<(), NetlinkError> {
        let link = LinkUnspec::new_with_index(index.0);
        match controller {
            Some(controller) => self.change(
                &format_args!("make interface {index} a member of interface {controller}"),
                link.controller(controller.0).build(),
            ),
            None => self.change(
                &format_args!("make interface {index} a member of nothing"),
                link.nocontroller().build(),
            ),
        }
    }

    fn make(
        &self,
        request: &dyn std::fmt::Display,
        message: LinkMessage,
    ) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewLink(message);
        self.socket.ask(request, message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }
}

fn macvlan(mode: MacvlanMode) -> MacVlanMode {
    match mode {
        MacvlanMode::Bridge => MacVlanMode::Bridge,
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
    }
}

fn ipvlan(mode: IpvlanMode) -> IpVlanMode {
    match mode {
        IpvlanMode::L2 => IpVlanMode::L2,
        IpvlanMode::L3 => IpVlanMode::L3,
        IpvlanMode::L3s => IpVlanMode::L3S,
    }
}

/// What a link of software is, where it is one of those that we make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Made {
    Subinterface(SubinterfaceKind),
    Vrf(TableId),
}

/// `None` for what we never make, in kind or in mode.
pub(super) fn made(infos: &[LinkInfo]) -> Option<Made> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    })?;
    match data {
        InfoData::MacVlan(parts) => parts.iter().find_map(|part| match part {
            InfoMacVlan::Mode(mode) => {
                let modes = [
                    MacvlanMode::Bridge,
                    MacvlanMode::Private,
                    MacvlanMode::Vepa,
                    MacvlanMode::Passthru,
                ];
                let mode = modes.into_iter().find(|ours| macvlan(*ours) == *mode)?;
                Some(Made::Subinterface(SubinterfaceKind::Macvlan { mode }))
            }
            _ => None,
        }),
        InfoData::IpVlan(parts) => parts.iter().find_map(|part| match part {
            InfoIpVlan::Mode(mode) => {
                let modes = [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s];
                let mode = modes.into_iter().find(|ours| ipvlan(*ours) == *mode)?;
                Some(Made::Subinterface(SubinterfaceKind::Ipvlan { mode }))
            }
            _ => None,
        }),
        InfoData::Vlan(parts) => parts.iter().find_map(|part| match part {
            InfoVlan::Id(vlan_id) => {
                Some(Made::Subinterface(SubinterfaceKind::Vlan { vlan_id: *vlan_id }))
            }
            _ => None,
        }),
        InfoData::Vrf(parts) => parts.iter().find_map(|part| match part {
            InfoVrf::TableId(table) => Some(Made::Vrf(TableId(*table))),
            _ => None,
        }),
        _ => None,
    }
}
