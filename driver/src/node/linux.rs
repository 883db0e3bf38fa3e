//! The real node: a match over [`Step`], each arm one call into another room of hands.

mod change;
mod function;
mod link;
mod observe;
mod places;
mod programs;
mod setting;
mod travel;

use std::time::Instant;

use self::places::Places;
use super::{Errand, Node, StepError};
use crate::cdi::CdiDir;
use crate::datapath::Datapath;
use crate::dhcp::{self, DhcpError};
use crate::model::{At, Place};
use crate::plan::{Observed, Step, Subject, Was};
use crate::sys::ethtool::EthtoolError;
use crate::sys::netlink::NetlinkError;
use crate::sys::netns::NetnsError;
use crate::sys::sysctl::SysctlError;
use crate::sys::sysfs::{Sysfs, SysfsError};
use crate::telemetry::{Part, Timings, chain};

/// The node that this process runs on. The namespace that it was opened in is the host's.
#[derive(Debug)]
pub struct LinuxNode {
    places: Places,
    datapath: Datapath,
    cdi: CdiDir,
    /// Where functions and files of RDMA devices are looked for, and virtual functions are made; without
    /// it there are none.
    sysfs: Option<Sysfs>,
    timings: Timings,
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
        let timings = Timings::default();
        Ok(Self { places: Places::open()?, datapath, cdi, sysfs: None, timings })
    }

    /// Lets it see PCI functions and RDMA devices, and make virtual functions, by this sysfs.
    #[must_use]
    pub fn with_sysfs(self, sysfs: Sysfs) -> Self {
        Self { sysfs: Some(sysfs), ..self }
    }

    /// Has it report how long looks, steps and their parts take.
    #[must_use]
    pub fn timed(self, timings: &Timings) -> Self {
        let datapath = self.datapath.timed(timings.clone());
        Self { datapath, timings: timings.clone(), ..self }
    }

    fn look_at(&mut self, subject: &Subject) -> Result<Observed, StepError> {
        let places = &mut self.places;
        Ok(match subject {
            Subject::Interface { place, by } => {
                Observed::Interface(observe::interface(places, place, by)?)
            }
            Subject::Datapath(id) => Observed::Datapath(self.datapath.observe(id)?),
            Subject::AllDatapaths => Observed::AllDatapaths(self.datapath.all()?),
            Subject::Belongings(index) => {
                Observed::Belongings(Box::new(observe::belongings(places, *index)?))
            }
            Subject::Ethtool(name) => Observed::Ethtool(Box::new(setting::ethtool(places, name)?)),
            Subject::Strays(stray) => {
                Observed::Strays(observe::strays(places.netlink(&Place::Host)?, stray)?)
            }
            Subject::Cookie(netns) => Observed::Cookie(observe::cookie(places, netns)?),
            Subject::Vf(place) => Observed::Vf(function::vf(places, place)?),
            Subject::Rdma { place, name, index } => {
                Observed::Rdma(function::rdma(place, name, *index)?)
            }
            Subject::RdmaNodes { name, function } => {
                Observed::RdmaNodes(known(self.sysfs.as_ref())?.rdma_nodes(name, *function)?)
            }
            Subject::Function(address) => {
                Observed::Function(function::seen(known(self.sysfs.as_ref())?, *address)?)
            }
            Subject::Namespace(netns) => Observed::Namespace(!observe::is_gone(netns)?),
            Subject::PhysicalFunctions => {
                let all = self.sysfs.as_ref().map(|sysfs| function::physical(places, sysfs));
                Observed::PhysicalFunctions(all.transpose()?.unwrap_or_default())
            }
            Subject::AllCdi => Observed::AllCdi(self.cdi.all()?),
            Subject::AllSubinterfaces => {
                Observed::AllSubinterfaces(observe::subinterfaces(places.netlink(&Place::Host)?)?)
            }
        })
    }

    fn carry_out(&mut self, step: &Step) -> Result<Was, StepError> {
        let places = &mut self.places;
        match step {
            Step::InstallDatapath { spec, interface } => {
                Ok(self.datapath.install(spec, interface)?)
            }
            Step::ReplaceDatapath { spec } => Ok(self.datapath.replace(spec)?),
            Step::RemoveDatapath { id } => Ok(self.datapath.remove(id)?),
            Step::AttachFilters { spec, at } => {
                let (netlink, index) = places.index(at)?;
                Ok(self.datapath.attach_filters(spec, netlink, index)?)
            }
            Step::DetachFilters { spec, at } => {
                let (netlink, index) = places.index(at)?;
                Ok(self.datapath.detach_filters(spec, netlink, index)?)
            }
            Step::DetachPrograms { at, programs, ours } => {
                programs::detach(places, &self.datapath, at, programs, ours)
            }
            Step::SetUp { at } => link::set_up(places, at),
            Step::SetDown { at } => link::set_down(places, at),
            Step::SetMtu { at, mtu } => link::set_mtu(places, at, *mtu),
            Step::SetMac { at, mac } => link::set_mac(places, at, *mac),
            Step::SetSegments { at, segments } => link::set_segments(places, at, segments),
            Step::SetController { at, controller } => {
                link::set_controller(places, at, controller.as_ref())
            }
            Step::AddAddress { at, address, dad } => {
                change::add_address(places, at, *address, *dad)
            }
            Step::RemoveAddress { at, address } => change::remove_address(places, at, *address),
            Step::AddRoute { at, route } => change::add_route(places, at, route),
            Step::RemoveRoute { at, route } => change::remove_route(places, at, route),
            Step::AddRule { place, rule } => change::add_rule(places, place, rule),
            Step::RemoveRule { place, rule } => change::remove_rule(places, place, rule),
            Step::AddNeighbor { at, neighbor } => change::add_neighbor(places, at, neighbor),
            Step::RemoveNeighbor { at, neighbor } => change::remove_neighbor(places, at, neighbor),
            Step::SetSysctl { place, name, value } => {
                setting::set_sysctl(places, place, name, value)
            }
            Step::SetEthtool { at, setting } => setting::set_ethtool(places, at, setting),
            Step::SetVf { vf, settings } => function::set_vf(places, vf, settings),
            Step::MoveRdma { device, from, to } => function::move_rdma(device, from, to),
            Step::SetVfCount { .. } => function::set_vf_count(self.sysfs.as_ref(), step),
            Step::AddVrf { place, vrf } => link::add_vrf(places, place, vrf),
            Step::RemoveVrf { place, vrf } => link::remove_vrf(places, place, vrf),
            Step::AddSubinterface { spec } => link::add_subinterface(places, spec),
            Step::RemoveSubinterface { name } => link::remove_subinterface(places, name),
            Step::WriteCdi { spec } => Ok(self.cdi.write(spec)?),
            Step::RemoveCdi { claim } => Ok(self.cdi.remove(claim)?),
            Step::ReleaseLease { at, lease } => {
                let (_, index) = places.index(at)?;
                dhcp::release(index, lease)?;
                Ok(Was::Otherwise)
            }
            Step::Move { from, to } => travel::relocate(places, from, to),
        }
    }
}

impl Node for LinuxNode {
    fn observe(&mut self, subject: &Subject) -> Result<Observed, StepError> {
        let begun = Instant::now();
        let observed = self.look_at(subject);
        self.timings.took(Part::Observe, begun.elapsed());
        observed
    }

    fn apply(&mut self, step: &Step) -> Result<Was, StepError> {
        let begun = Instant::now();
        let was = self.carry_out(step);
        self.timings.step_took(step.kind(), begun.elapsed());
        was
    }

    fn errand(&self, step: &Step) -> Errand {
        let (sysfs, timings, step) = (self.sysfs.clone(), self.timings.clone(), step.clone());
        Box::new(move || {
            let begun = Instant::now();
            let was = function::set_vf_count(sysfs.as_ref(), &step);
            timings.step_took(step.kind(), begun.elapsed());
            was
        })
    }

    fn rest(&mut self) {
        self.places.rest();
    }
}

fn known(sysfs: Option<&Sysfs>) -> Result<&Sysfs, StepError> {
    sysfs.ok_or_else(|| StepError { message: "no sysfs to look in".to_owned() })
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

step_error_from!(
    DhcpError,
    EthtoolError,
    NetlinkError,
    NetnsError,
    SysctlError,
    SysfsError,
    crate::cdi::CdiError,
    crate::datapath::DatapathError
);
