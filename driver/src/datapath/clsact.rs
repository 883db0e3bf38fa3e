//! Filters of the qdisc `clsact`, where the kernel has no TCX (before 6.6).
//!
//! They stay behind when an interface moves into another namespace. So the programs are loaded and
//! pinned when links are made, and attached only when the interface is where it shall be: by
//! netlink, through a socket of that namespace. Our programs answer `TCX_NEXT` and `TCX_DROP`, which
//! are `TC_ACT_UNSPEC` (the next filter decides) and `TC_ACT_SHOT`, so they work as filters too.
//!
//! The qdisc is never removed: without filters it does nothing, somebody else may have put filters
//! into it, and it ends with the interface's next move.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::layout::{Pin, PinPath};
use super::{Datapath, DatapathError, Hook};
use crate::model::{AttachmentId, DatapathSpec, IfIndex};
use crate::plan::Was;
use crate::sys::bpf;
use crate::sys::netlink::{FilterFacts, Netlink, NetlinkError, Side};

impl Datapath {
    /// Puts the pinned programs of `spec` that have no link on the interface `index` of the namespace
    /// of `netlink`, each in the place of its predecessor if it has one.
    ///
    /// # Errors
    ///
    /// [`DatapathError::Occupied`] where somebody else's filter is in the place of one of ours.
    /// Filters that were put before stay; doing it again is safe.
    pub fn attach_filters(
        &self,
        spec: &DatapathSpec,
        netlink: &Netlink,
        index: IfIndex,
    ) -> Result<Was, DatapathError> {
        let mut was = Was::Same;
        for (hook, side) in filters(spec) {
            let pin = self.layout.pin(&spec.id, Pin::Program(hook));
            let program = program_at(&pin, &spec.id)?;
            let id = program.id().map_err(|source| DatapathError::Open {
                path: pin.as_path().to_owned(),
                source,
            })?;
            let failed = |source| DatapathError::Filters { hook, interface: index, source };
            match netlink.filter(index, side).map_err(failed)? {
                Some(filter) if filter.name != name(side) => {
                    let name = filter.name;
                    return Err(DatapathError::Occupied { hook, interface: index, name });
                }
                Some(FilterFacts { program, .. }) if program == id => continue,
                Some(_) => {}
                None => unless_there(netlink.add_clsact(index)).map_err(failed)?,
            }
            netlink.put_filter(index, side, name(side), program.as_fd()).map_err(failed)?;
            was = Was::Otherwise;
        }
        Ok(was)
    }

    /// Removes what [`Datapath::attach_filters`] put; what is not there is no error.
    pub fn detach_filters(
        &self,
        spec: &DatapathSpec,
        netlink: &Netlink,
        index: IfIndex,
    ) -> Result<Was, DatapathError> {
        let mut was = Was::Same;
        for (hook, side) in filters(spec) {
            let failed = |source| DatapathError::Filters { hook, interface: index, source };
            let there = netlink.filter(index, side).map_err(failed)?;
            if there.is_some_and(|filter| filter.name == name(side)) {
                netlink.remove_filter(index, side).map_err(failed)?;
                was = Was::Otherwise;
            }
        }
        Ok(was)
    }
}

/// The hooks of `spec` that are filters.
fn filters(spec: &DatapathSpec) -> impl Iterator<Item = (Hook, Side)> {
    let sides = [(Hook::Ingress, Side::Ingress), (Hook::Egress, Side::Egress)];
    sides.into_iter().filter(|(hook, _)| hook.is_filter(spec))
}

/// What a filter of ours is called, and recognised by.
fn name(side: Side) -> &'static str {
    match side {
        Side::Ingress => common::names::INGRESS,
        Side::Egress => common::names::EGRESS,
    }
}

pub(super) fn pin(program: BorrowedFd<'_>, pin: &PinPath) -> Result<(), DatapathError> {
    bpf::pin(program, pin.as_path())
        .map_err(|source| DatapathError::Pin { path: pin.as_path().to_owned(), source })
}

pub(super) fn program_at(
    pin: &PinPath,
    id: &AttachmentId,
) -> Result<bpf::Program, DatapathError> {
    let path = || pin.as_path().to_owned();
    bpf::Program::from_pin(pin.as_path()).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            DatapathError::NotInstalled { id: id.clone(), missing: path() }
        }
        _ => DatapathError::Open { path: path(), source },
    })
}

fn unless_there(added: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match added {
        Err(error) if error.is_exists() => Ok(()),
        result => result,
    }
}
