//! Virtual functions by their physical one, and RDMA devices.

use std::sync::Once;

use super::places::Places;
use crate::inventory;
use crate::model::{By, PciAddress, PfState, Place, RdmaPlace, VfPlace, VfSettings};
use crate::node::StepError;
use crate::plan::{FunctionSeen, RdmaSeen, Step, Was};
use crate::sys::netlink::NetlinkError;
use crate::sys::netns::{Netns, NetnsError};
use crate::sys::rdma::{NetnsMode, Rdma, RdmaDevice};
use crate::sys::sysfs::Sysfs;

/// All physical functions, and what the host needs their interfaces for.
pub(super) fn physical(places: &mut Places, sysfs: &Sysfs) -> Result<Vec<PfState>, StepError> {
    let mut functions = sysfs.physical_functions()?;
    if functions.is_empty() {
        return Ok(functions);
    }
    let netlink = places.netlink(&Place::Host)?;
    let (links, routes) = (netlink.links()?, netlink.default_route_interfaces()?);
    for function in &mut functions {
        let mut names = function.interfaces.iter();
        function.needed = names.find_map(|name| inventory::needed_for(&links, &routes, name));
    }
    Ok(functions)
}

pub(super) fn set_vf_count(sysfs: Option<&Sysfs>, step: &Step) -> Result<Was, StepError> {
    let error = |message| StepError { message };
    let Step::SetVfCount { pf, from, to } = step else {
        return Err(error(format!("{step}: is not about a number of virtual functions")));
    };
    let changed = super::known(sysfs)?.set_vf_count(*pf, *from, *to)?;
    Ok(if changed { Was::Otherwise } else { Was::Same })
}

/// What a physical function tells of a virtual one; `None` where either is not there.
pub(super) fn vf(places: &mut Places, vf: &VfPlace) -> Result<Option<VfSettings>, StepError> {
    let netlink = places.netlink(&Place::Host)?;
    if netlink.link(&By::Index(vf.pf_index))?.is_none() {
        return Ok(None);
    }
    Ok(netlink.function(vf.pf_index, vf.number)?)
}

pub(super) fn set_vf(
    places: &mut Places,
    place: &VfPlace,
    settings: &VfSettings,
) -> Result<Was, StepError> {
    let absent = || StepError { message: format!("there is no {place}") };
    let now = vf(places, place)?.ok_or_else(absent)?;
    let lacking = settings.lacking(&now);
    if lacking.is_empty() {
        return Ok(Was::Same);
    }
    let netlink = places.netlink(&Place::Host)?;
    netlink.set_function(place.pf_index, place.number, &lacking, &now)?;
    let after = vf(places, place)?.ok_or_else(absent)?;
    let left = settings.lacking(&after);
    if !left.is_empty() {
        let message = format!("the driver of {} did not take {left:?}", place.pf);
        return Err(StepError { message });
    }
    Ok(Was::Vf(lacking.replacing(&now)))
}

/// A PCI function, as VFIO has it.
pub(super) fn seen(sysfs: &Sysfs, address: PciAddress) -> Result<Option<FunctionSeen>, StepError> {
    let found = sysfs.look().function(address)?;
    Ok(found.map(|facts| FunctionSeen {
        driver: facts.driver.clone(),
        iommu_group: facts.iommu_group,
        held_up_by: facts.held_up_by.clone(),
    }))
}

/// An RDMA device of the host; `None` where there is none, or no RDMA at all.
pub(super) fn rdma(
    place: &Place,
    name: &str,
    index: Option<u32>,
) -> Result<Option<RdmaSeen>, StepError> {
    Ok(visit(place, || rdma_here(name, index))?.transpose()?.flatten())
}

fn rdma_here(name: &str, index: Option<u32>) -> Result<Option<RdmaSeen>, NetlinkError> {
    static TOLD: Once = Once::new();
    let Some(rdma) = Rdma::open()? else {
        TOLD.call_once(|| tracing::info!("this kernel has no RDMA"));
        return Ok(None);
    };
    let Some(device) = pick(rdma.devices()?, name, index) else { return Ok(None) };
    Ok(Some(RdmaSeen {
        place: RdmaPlace { name: device.name, index: device.index },
        is_exclusive: rdma.netns_mode()? == NetnsMode::Exclusive,
    }))
}

/// By its index, which stays the same while it exists; else by its name, as after its driver was
/// loaded anew.
fn pick(devices: Vec<RdmaDevice>, name: &str, index: Option<u32>) -> Option<RdmaDevice> {
    let by_name = devices.iter().position(|device| device.name == name);
    let by_index = devices.iter().position(|device| Some(device.index) == index);
    devices.into_iter().nth(by_index.or(by_name)?)
}

pub(super) fn move_rdma(device: &RdmaPlace, from: &Place, to: &Place) -> Result<Was, StepError> {
    let target = match to {
        Place::Host => Netns::of_this_thread()?,
        Place::Pod(netns) => Netns::open_ref(netns)?,
    };
    let moved = visit(from, || send(device, &target))?;
    let has_moved = match moved {
        Some(sent) => sent?,
        // A namespace that is gone has given it back to the host, or soon will have.
        None => false,
    };
    let renamed = visit(to, || arrive(device, *to == Place::Host))?;
    match renamed {
        Some(Ok(Arrived::AsItWas)) if !has_moved => Ok(Was::Same),
        Some(Ok(Arrived::AsItWas | Arrived::Renamed)) => Ok(Was::Otherwise),
        Some(Ok(Arrived::Nowhere)) | None => Err(StepError {
            message: format!("there is no RDMA device {} in {from} nor in {to}", device.name),
        }),
        Some(Err(error)) => Err(error.into()),
    }
}

/// Runs in the namespace of the device, which the kernel takes from the caller. Answers whether the
/// device was there.
fn send(device: &RdmaPlace, target: &Netns) -> Result<bool, NetlinkError> {
    let Some(rdma) = Rdma::open()? else { return Ok(false) };
    let found = pick(rdma.devices()?, &device.name, Some(device.index));
    match found {
        Some(found) if Netns::of_this_thread().is_ok_and(|here| here.id() != target.id()) => {
            rdma.move_to(found.index, target).map(|()| true)
        }
        _ => Ok(false),
    }
}

enum Arrived {
    Nowhere,
    AsItWas,
    /// Somebody had given it another name.
    Renamed,
}

fn arrive(device: &RdmaPlace, is_home: bool) -> Result<Arrived, NetlinkError> {
    let Some(rdma) = Rdma::open()? else { return Ok(Arrived::Nowhere) };
    let Some(found) = pick(rdma.devices()?, &device.name, Some(device.index)) else {
        return Ok(Arrived::Nowhere);
    };
    if !is_home || found.name == device.name {
        return Ok(Arrived::AsItWas);
    }
    rdma.rename(found.index, &device.name)?;
    Ok(Arrived::Renamed)
}

/// Runs there, where the namespace still is; `None` where it is gone.
fn visit<T: Send>(place: &Place, work: impl FnOnce() -> T + Send) -> Result<Option<T>, NetnsError> {
    let Place::Pod(netns) = place else { return Ok(Some(work())) };
    match Netns::open_ref(netns) {
        Ok(netns) => netns.run(|_| work()).map(Some),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_its_index_and_else_by_its_name() {
        let device = |index, name: &str| RdmaDevice { index, name: name.to_owned(), node_guid: 0 };
        let all = || vec![device(1, "mlx5_0"), device(2, "renamed")];
        let index = |name, index| pick(all(), name, index).map(|device| device.index);
        assert_eq!(index("mlx5_1", Some(2)), Some(2));
        assert_eq!(index("mlx5_0", Some(7)), Some(1), "its driver was loaded anew");
        assert_eq!(index("mlx5_0", None), Some(1));
        assert_eq!(index("mlx5_1", Some(7)), None);
    }
}
