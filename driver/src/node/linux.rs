//! The real node: a match over [`Step`], each arm one call into `datapath` or `sys`.

use ipnet::IpNet;

use super::{Node, StepError};
use crate::cdi::CdiDir;
use crate::datapath::Datapath;
use crate::model::{At, By, IfIndex, InterfaceState, Place, Segments};
use crate::plan::{Observed, Step, Subject, Was};
use crate::sys::netlink::{LinkFacts, Netlink, NetlinkError};
use crate::sys::netns::{Netns, NetnsError};
use crate::telemetry::chain;

/// The node that this process runs on. The namespace that it was opened in is the host's.
#[derive(Debug)]
pub struct LinuxNode {
    host: Netlink,
    host_netns: Netns,
    datapath: Datapath,
    cdi: CdiDir,
}

impl LinuxNode {
    /// Opens the node from a thread in the host's namespace. Every later call has to come from
    /// such a thread as well: programs are attached by interface name, which the kernel looks up
    /// in the caller's namespace.
    ///
    /// # Errors
    ///
    /// [`StepError`] when no netlink socket can be had.
    pub fn open(datapath: Datapath, cdi: CdiDir) -> Result<Self, StepError> {
        Ok(Self { host: Netlink::open()?, host_netns: Netns::of_this_thread()?, datapath, cdi })
    }

    /// Calls `work` with a socket of the namespace at `place`. The socket of a pod is closed
    /// afterwards, since it would keep a dead pod's namespace alive.
    fn with<T>(
        &self,
        place: &Place,
        work: impl FnOnce(&Netlink) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        match place {
            Place::Host => work(&self.host),
            Place::Pod(netns) => work(&Netlink::open_in(&Netns::open_ref(netns)?)?),
        }
    }

    fn change(
        &self,
        at: &At,
        work: impl FnOnce(&Netlink, &LinkFacts) -> Result<Was, NetlinkError>,
    ) -> Result<Was, StepError> {
        self.at(at, |netlink, link| Ok(work(netlink, link)?))
    }

    fn at(
        &self,
        at: &At,
        work: impl FnOnce(&Netlink, &LinkFacts) -> Result<Was, StepError>,
    ) -> Result<Was, StepError> {
        self.with(&at.place, |netlink| {
            let by = By::Name(at.interface.clone());
            let link = netlink.link(&by)?.ok_or_else(|| absent(at))?;
            work(netlink, &link)
        })
    }

    fn interface(&self, place: &Place, by: &By) -> Result<Option<InterfaceState>, StepError> {
        let look = |netlink: &Netlink| -> Result<_, StepError> {
            let Some(link) = netlink.link(by)? else {
                return Ok(None);
            };
            let addresses = netlink.addresses(link.index)?;
            Ok(Some(state(link, addresses)))
        };
        match place {
            Place::Host => look(&self.host),
            Place::Pod(netns) => match Netns::open_ref(netns) {
                Ok(netns) => look(&Netlink::open_in(&netns)?),
                // A namespace dies with its pod; then there is nothing in it, which is no error.
                Err(error) if error.is_gone() => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// One call to the kernel: out of one namespace, into another, under a new name.
    fn relocate(&self, from: &At, to: &At) -> Result<Was, StepError> {
        if let Place::Pod(netns) = &to.place
            && netns.id == self.host_netns.id()
        {
            return Err(StepError { message: format!("{} is the host's own namespace", netns.id) });
        }
        let source = self.with(&from.place, |netlink| {
            Ok(netlink.link(&By::Name(from.interface.clone()))?.map(|link| link.index))
        });
        let index = match source {
            Ok(Some(index)) => index,
            missing => {
                // Applied a second time, the interface is where it should be already.
                let there = self.interface(&to.place, &By::Name(to.interface.clone()))?;
                return match (missing, there) {
                    (_, Some(_)) => Ok(Was::Same),
                    (Err(error), None) => Err(error),
                    (Ok(_), None) => Err(absent(from)),
                };
            }
        };
        self.with(&from.place, |netlink| self.send(netlink, index, from, to))?;
        Ok(Was::Otherwise)
    }

    fn send(&self, netlink: &Netlink, index: IfIndex, from: &At, to: &At) -> Result<(), StepError> {
        match &to.place {
            place if *place == from.place => netlink.rename(index, &to.interface)?,
            Place::Host => netlink.move_to(index, &self.host_netns, &to.interface)?,
            Place::Pod(netns) => {
                netlink.move_to(index, &Netns::open_ref(netns)?, &to.interface)?;
            }
        }
        Ok(())
    }
}

impl Node for LinuxNode {
    fn observe(&mut self, subject: &Subject) -> Result<Observed, StepError> {
        match subject {
            Subject::Interface { place, by } => self.interface(place, by).map(Observed::Interface),
            Subject::Datapath(id) => Ok(Observed::Datapath(self.datapath.observe(id)?)),
            Subject::AllDatapaths => Ok(Observed::AllDatapaths(self.datapath.all()?)),
            Subject::AllCdi => Ok(Observed::AllCdi(self.cdi.all()?)),
            _ => Err(StepError { message: "not possible yet".to_owned() }),
        }
    }

    fn apply(&mut self, step: &Step) -> Result<Was, StepError> {
        match step {
            Step::InstallDatapath { spec, interface } => {
                Ok(self.datapath.install(spec, interface)?)
            }
            Step::ReplaceDatapath { spec } => Ok(self.datapath.replace(spec)?),
            Step::RemoveDatapath { id } => Ok(self.datapath.remove(id)?),
            Step::AttachFilters { spec, at } => self.at(at, |netlink, link| {
                Ok(self.datapath.attach_filters(spec, netlink, link.index)?)
            }),
            Step::DetachFilters { spec, at } => self.at(at, |netlink, link| {
                Ok(self.datapath.detach_filters(spec, netlink, link.index)?)
            }),
            Step::SetUp { at } => {
                self.change(at, |netlink, link| unless(link.up, || netlink.set_up(link.index)))
            }
            Step::SetDown { at } => {
                self.change(at, |netlink, link| unless(!link.up, || netlink.set_down(link.index)))
            }
            Step::SetMtu { at, mtu } => self.change(at, |netlink, link| {
                if link.mtu == *mtu {
                    return Ok(Was::Same);
                }
                netlink.set_mtu(link.index, *mtu).map(|()| Was::Mtu(link.mtu))
            }),
            Step::SetMac { at, mac } => self.change(at, |netlink, link| {
                if link.mac == Some(*mac) {
                    return Ok(Was::Same);
                }
                netlink.set_mac(link.index, *mac)?;
                Ok(link.mac.map_or(Was::Otherwise, Was::Mac))
            }),
            Step::AddAddress { at, address, .. } => self.change(at, |netlink, link| {
                unless_there(netlink.add_address(link.index, *address))
            }),
            Step::RemoveAddress { at, address } => self.change(at, |netlink, link| {
                unless_gone(netlink.remove_address(link.index, *address))
            }),
            Step::AddRoute { at, route } => self.change(at, |netlink, link| {
                match netlink.add_route(link.index, route) {
                    Ok(()) => Ok(Was::Otherwise),
                    // The same destination may lead through another interface; that is not ours.
                    Err(error) if error.is_exists() => {
                        let is_there = netlink.routes(link.index)?.contains(route);
                        if is_there { Ok(Was::Same) } else { Err(error) }
                    }
                    Err(error) => Err(error),
                }
            }),
            Step::RemoveRoute { at, route } => self
                .change(at, |netlink, link| unless_gone(netlink.remove_route(link.index, route))),
            Step::WriteCdi { spec } => Ok(self.cdi.write(spec)?),
            Step::RemoveCdi { claim } => Ok(self.cdi.remove(claim)?),
            Step::Move { from, to } => self.relocate(from, to),
            _ => Err(StepError { message: format!("{step}: not possible yet") }),
        }
    }
}

fn unless(
    done: bool,
    change: impl FnOnce() -> Result<(), NetlinkError>,
) -> Result<Was, NetlinkError> {
    if done { Ok(Was::Same) } else { change().map(|()| Was::Otherwise) }
}

fn unless_there(added: Result<(), NetlinkError>) -> Result<Was, NetlinkError> {
    match added {
        Ok(()) => Ok(Was::Otherwise),
        Err(error) if error.is_exists() => Ok(Was::Same),
        Err(error) => Err(error),
    }
}

fn unless_gone(removed: Result<(), NetlinkError>) -> Result<Was, NetlinkError> {
    match removed {
        Ok(()) => Ok(Was::Otherwise),
        Err(error) if error.is_absent() => Ok(Was::Same),
        Err(error) => Err(error),
    }
}

fn state(link: LinkFacts, addresses: Vec<IpNet>) -> InterfaceState {
    InterfaceState {
        name: link.name,
        index: link.index,
        mac: link.mac,
        mtu: link.mtu,
        up: link.up,
        addresses,
        controller: link.controller,
        segments: Segments::default(),
    }
}

fn absent(at: &At) -> StepError {
    StepError { message: format!("there is no {at}") }
}

macro_rules! step_error_from {
    ($($error:ty),*) => {$(
        impl From<$error> for StepError {
            fn from(error: $error) -> Self {
                Self { message: chain(&error) }
            }
        }
    )*};
}

step_error_from!(NetlinkError, NetnsError, crate::cdi::CdiError, crate::datapath::DatapathError);
