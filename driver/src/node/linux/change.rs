//! Addresses, routes, rules and neighbours; what can be added can be there already.

use ipnet::IpNet;

use super::places::Places;
use crate::model::{At, Dad, Neighbor, Place, Route, Rule};
use crate::node::StepError;
use crate::plan::Was;
use crate::sys::netlink::NetlinkError;

pub(super) fn add_address(
    places: &mut Places,
    at: &At,
    address: IpNet,
    dad: Dad,
) -> Result<Was, StepError> {
    let (netlink, index) = places.index(at)?;
    unless_there(netlink.add_address_with(index, address, dad), || Ok(true))
}

pub(super) fn remove_address(
    places: &mut Places,
    at: &At,
    address: IpNet,
) -> Result<Was, StepError> {
    let (netlink, index) = places.index(at)?;
    unless_gone(netlink.remove_address(index, address))
}

pub(super) fn add_route(places: &mut Places, at: &At, route: &Route) -> Result<Was, StepError> {
    let (netlink, index) = places.index(at)?;
    // The same destination may lead elsewhere; that is not ours.
    unless_there(netlink.add_route(index, route), || netlink.has_like(index, route))
}

pub(super) fn remove_route(places: &mut Places, at: &At, route: &Route) -> Result<Was, StepError> {
    let (netlink, index) = places.index(at)?;
    if !netlink.has_route(index, route)? {
        return Ok(Was::Same);
    }
    unless_gone(netlink.remove_route(index, route))
}

pub(super) fn add_rule(places: &mut Places, place: &Place, rule: &Rule) -> Result<Was, StepError> {
    let netlink = places.netlink(place)?;
    unless_there(netlink.add_rule(rule), || netlink.has_rule(rule))
}

pub(super) fn remove_rule(
    places: &mut Places,
    place: &Place,
    rule: &Rule,
) -> Result<Was, StepError> {
    unless_gone(places.netlink(place)?.remove_rule(rule))
}

pub(super) fn add_neighbor(
    places: &mut Places,
    at: &At,
    neighbor: &Neighbor,
) -> Result<Was, StepError> {
    let (netlink, index) = places.index(at)?;
    let is_there = || Ok(netlink.neighbors(index)?.contains(neighbor));
    unless_there(netlink.add_neighbor(index, neighbor), is_there)
}

pub(super) fn remove_neighbor(
    places: &mut Places,
    at: &At,
    neighbor: &Neighbor,
) -> Result<Was, StepError> {
    let (netlink, index) = places.index(at)?;
    if !netlink.neighbors(index)?.contains(neighbor) {
        return Ok(Was::Same);
    }
    unless_gone(netlink.remove_neighbor(index, neighbor.destination))
}

/// What is in the way of adding something may be that, or something else.
pub(super) fn unless_there(
    added: Result<(), NetlinkError>,
    is_there: impl FnOnce() -> Result<bool, NetlinkError>,
) -> Result<Was, StepError> {
    match added {
        Ok(()) => Ok(Was::Otherwise),
        Err(error) if error.is_exists() && is_there()? => Ok(Was::Same),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn unless_gone(removed: Result<(), NetlinkError>) -> Result<Was, StepError> {
    match removed {
        Ok(()) => Ok(Was::Otherwise),
        Err(error) if error.is_absent() => Ok(Was::Same),
        Err(error) => Err(error.into()),
    }
}
