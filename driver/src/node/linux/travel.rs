//! From one namespace into another.

use super::places::Places;
use super::{absent, observe};
use crate::model::{At, By, IfIndex, Place};
use crate::node::StepError;
use crate::plan::Was;
use crate::sys::netns::Netns;

/// One call to the kernel: out of one namespace, into another, under a new name.
pub(super) fn relocate(places: &mut Places, from: &At, to: &At) -> Result<Was, StepError> {
    if let Place::Pod(netns) = &to.place
        && netns.id == places.host().netns.id()
    {
        return Err(StepError { message: format!("{} is the host's own namespace", netns.id) });
    }
    places.forget_names();
    let index = match source(places, from) {
        Ok(Some(index)) => index,
        missing => {
            // Applied a second time, the interface is where it should be already.
            let there = observe::interface(places, &to.place, &By::Name(to.interface.clone()))?;
            return match (missing, there) {
                (_, Some(_)) => Ok(Was::Same),
                (Err(error), None) => Err(error),
                (Ok(_), None) => Err(absent(from)),
            };
        }
    };
    send(places, index, from, to)?;
    Ok(Was::Otherwise)
}

fn source(places: &mut Places, from: &At) -> Result<Option<IfIndex>, StepError> {
    let link = places.netlink(&from.place)?.link(&By::Name(from.interface.clone()))?;
    Ok(link.map(|link| link.index))
}

fn send(places: &mut Places, index: IfIndex, from: &At, to: &At) -> Result<(), StepError> {
    let name = &to.interface;
    match (&from.place, &to.place) {
        (here, there) if here == there => places.netlink(here)?.rename(index, name)?,
        (Place::Host, Place::Pod(_)) => {
            let (host, pod) = places.both(&to.place)?;
            host.netlink.move_between(index, &pod.netns, &pod.netlink, name)?;
        }
        (Place::Pod(_), Place::Host) => {
            let (host, pod) = places.both(&from.place)?;
            pod.netlink.move_between(index, &host.netns, &host.netlink, name)?;
        }
        (_, Place::Pod(netns)) => {
            places.netlink(&from.place)?.move_to(index, &Netns::open_ref(netns)?, name)?;
        }
        (Place::Host, Place::Host) => {}
    }
    Ok(())
}
