//! The interface itself, and interfaces that are made.

use super::change::unless_gone;
use super::observe::on_host;
use super::places::Places;
use crate::model::{
    At, By, IfName, MacAddr, Place, SUBINTERFACE_PREFIX, Segments, SubinterfaceSpec, Vrf,
};
use crate::node::StepError;
use crate::plan::Was;
use crate::sys::netlink::{self, Made};

pub(super) fn set_up(places: &mut Places, at: &At) -> Result<Was, StepError> {
    let (netlink, link) = places.link(at)?;
    if link.up {
        return Ok(Was::Same);
    }
    netlink.set_up(link.index)?;
    Ok(Was::Otherwise)
}

pub(super) fn set_down(places: &mut Places, at: &At) -> Result<Was, StepError> {
    let (netlink, link) = places.link(at)?;
    if !link.up {
        return Ok(Was::Same);
    }
    netlink.set_down(link.index)?;
    Ok(Was::Otherwise)
}

pub(super) fn set_mtu(places: &mut Places, at: &At, mtu: u32) -> Result<Was, StepError> {
    let (netlink, link) = places.link(at)?;
    if link.mtu == mtu {
        return Ok(Was::Same);
    }
    netlink.set_mtu(link.index, mtu)?;
    Ok(Was::Mtu(link.mtu))
}

pub(super) fn set_mac(places: &mut Places, at: &At, mac: MacAddr) -> Result<Was, StepError> {
    let (netlink, link) = places.link(at)?;
    if link.mac == Some(mac) {
        return Ok(Was::Same);
    }
    netlink.set_mac(link.index, mac)?;
    Ok(link.mac.map_or(Was::Otherwise, Was::Mac))
}

pub(super) fn set_segments(
    places: &mut Places,
    at: &At,
    segments: &Segments,
) -> Result<Was, StepError> {
    let (netlink, link) = places.link(at)?;
    if let Some(limit) = segments.unknown_to(&link.segments) {
        return Err(StepError { message: format!("this kernel has no limit on {limit}") });
    }
    let Some(was) = netlink::replaced(&link.segments, segments) else { return Ok(Was::Same) };
    netlink.set_segments(link.index, segments)?;
    Ok(Was::Segments(was))
}

pub(super) fn set_controller(
    places: &mut Places,
    at: &At,
    controller: Option<&IfName>,
) -> Result<Was, StepError> {
    let (netlink, link) = places.link(at)?;
    let wished = match controller {
        None => None,
        Some(name) => {
            let found = netlink.link(&By::Name(name.clone()))?;
            let message = || format!("there is no {name} that {at} could be a member of");
            Some(found.ok_or_else(|| StepError { message: message() })?.index)
        }
    };
    if link.controller == wished {
        return Ok(Was::Same);
    }
    let former = match link.controller {
        None => None,
        Some(index) => netlink.link(&By::Index(index))?.map(|former| former.name),
    };
    netlink.set_controller(link.index, wished)?;
    Ok(Was::Controller(former))
}

pub(super) fn add_vrf(places: &mut Places, place: &Place, vrf: &Vrf) -> Result<Was, StepError> {
    let netlink = places.netlink(place)?;
    match netlink.link(&By::Name(vrf.name.clone()))? {
        None => netlink.add_vrf(vrf)?,
        Some(link) if link.made != Some(Made::Vrf(vrf.table)) => {
            return Err(taken(&vrf.name, &format!("VRF of table {}", vrf.table.0)));
        }
        Some(link) if link.up => return Ok(Was::Same),
        Some(link) => netlink.set_up(link.index)?,
    }
    Ok(Was::Otherwise)
}

pub(super) fn remove_vrf(places: &mut Places, place: &Place, vrf: &Vrf) -> Result<Was, StepError> {
    places.forget_names();
    let netlink = places.netlink(place)?;
    let Some(link) = netlink.link(&By::Name(vrf.name.clone()))? else { return Ok(Was::Same) };
    if link.made != Some(Made::Vrf(vrf.table)) {
        return Err(taken(&vrf.name, &format!("VRF of table {}", vrf.table.0)));
    }
    unless_gone(netlink.delete(link.index))
}

pub(super) fn add_subinterface(
    places: &mut Places,
    spec: &SubinterfaceSpec,
) -> Result<Was, StepError> {
    let netlink = places.netlink(&Place::Host)?;
    let Some(link) = netlink.link(&By::Name(spec.name.clone()))? else {
        netlink.add_subinterface(spec)?;
        return Ok(Was::Otherwise);
    };
    let is_it =
        link.made == Some(Made::Subinterface(spec.kind)) && link.parent == Some(spec.parent_index);
    if is_it { Ok(Was::Same) } else { Err(taken(&spec.name, &described(spec))) }
}

/// What is no longer upon that parent is removed all the same: a name like this is ours.
pub(super) fn remove_subinterface(places: &mut Places, name: &IfName) -> Result<Was, StepError> {
    places.forget_names();
    let at = on_host(name);
    let netlink = places.netlink(&at.place)?;
    let Some(link) = netlink.link(&By::Name(at.interface))? else { return Ok(Was::Same) };
    let is_ours = name.as_str().starts_with(SUBINTERFACE_PREFIX);
    if !is_ours || !["macvlan", "ipvlan", "vlan"].contains(&link.kind.as_str()) {
        return Err(taken(name, "sub-interface of ours"));
    }
    unless_gone(netlink.delete(link.index))
}

fn described(spec: &SubinterfaceSpec) -> String {
    format!("{} upon interface {}", spec.kind.name(), spec.parent_index)
}

fn taken(name: &IfName, wished: &str) -> StepError {
    StepError { message: format!("{name} is there and is no {wished}") }
}
