//! Settings of the network stack, and of drivers.

use super::places::Places;
use crate::model::Place;
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
