//! Settings of the network stack, and of drivers.

use super::observe::on_host;
use super::places::Places;
use crate::model::{At, EthtoolSetting, EthtoolState, IfName, Place};
use crate::node::StepError;
use crate::plan::Was;

pub(super) fn set_sysctl(
    places: &mut Places,
    place: &Place,
    name: &str,
    value: &str,
) -> Result<Was, StepError> {
    let sysctls = places.at(place)?.sysctls()?;
    let was = sysctls.read(name)?;
    if was == value {
        return Ok(Was::Same);
    }
    sysctls.write(name, value)?;
    Ok(Was::Value(was))
}

/// What ethtool tells of an interface of the host.
pub(super) fn ethtool(places: &mut Places, interface: &IfName) -> Result<EthtoolState, StepError> {
    let at = on_host(interface);
    let index = places.link(&at)?.1.index;
    Ok(places.at(&at.place)?.ethtool()?.state(index)?)
}

pub(super) fn set_ethtool(
    places: &mut Places,
    at: &At,
    setting: &EthtoolSetting,
) -> Result<Was, StepError> {
    let index = places.index(at)?.1;
    let was = places.at(&at.place)?.ethtool()?.set(index, setting)?;
    Ok(was.map_or(Was::Same, Was::Ethtool))
}
