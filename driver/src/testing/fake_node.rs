//! A model of the kernel, as far as attaching touches it.
//!
//! It knows what the kernel ring has shown to be true: a move takes the link down and loses its
//! addresses, routes and filters, a name is taken only once, a route needs its link up, links of
//! programs stay with an interface wherever it goes. Teach it something new only together with a test
//! against the real kernel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::model::{
    At, AttachmentId, By, DatapathSpec, EgressHook, IfIndex, IfName, IngressHook, InterfaceState,
    MacAddr, NetnsId, Place, Route, Segments,
};
use crate::node::{Node, StepError};
use crate::plan::{DatapathState, Observed, Step, Subject, Was};

/// One interface of the model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FakeInterface {
    /// Tells interfaces apart wherever they go.
    pub identity: u32,
    pub index: IfIndex,
    pub mac: MacAddr,
    pub mtu: u32,
    pub up: bool,
    pub addresses: Vec<IpNet>,
    pub routes: Vec<Route>,
    /// Whose filters are on it.
    pub filters: Option<AttachmentId>,
}

/// Everything there is: namespaces by identity (`None` is the host) and datapaths by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct World {
    pub interfaces: BTreeMap<Option<NetnsId>, BTreeMap<IfName, FakeInterface>>,
    /// The identity of the interface that each datapath is linked to; `None` where it has no links,
    /// but only programs to be attached as filters.
    pub datapaths: BTreeMap<AttachmentId, Option<u32>>,
    /// What each of them was specialised by.
    pub programs: BTreeMap<AttachmentId, DatapathSpec>,
}

/// What goes wrong, and when: steps are counted from 0 over the node's whole life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The step fails, nothing changed.
    FailAt(usize),
    /// The step fails, but has changed what it should: of several links that it replaces, say, all
    /// but the last.
    FailAfter(usize),
    /// The driver dies before the step.
    DieBefore(usize),
    /// The driver dies after the step, before it learns of it.
    DieAfter(usize),
}

/// A handle to a [`World`], shared so that it outlives the driver that works on it.
#[derive(Clone, Debug)]
pub struct FakeNode {
    world: Arc<Mutex<World>>,
    fault: Option<Fault>,
    applied: usize,
}

impl FakeNode {
    /// A host with these interfaces, up, with two addresses each, and no pods.
    pub fn with(names: &[&str]) -> Self {
        let mut host = BTreeMap::new();
        for (number, name) in (1_u8..).zip(names) {
            let interface = FakeInterface {
                identity: u32::from(number),
                index: IfIndex(u32::from(number)),
                mac: MacAddr([2, 0, 0, 0, 0, number]),
                mtu: 1500,
                up: true,
                // The second is a secondary address of the first one's network.
                addresses: [number, 100 + number]
                    .map(|host| ipnet::Ipv4Net::new_assert([192, 0, 2, host].into(), 24).into())
                    .to_vec(),
                routes: Vec::new(),
                filters: None,
            };
            host.insert(super::well_formed(name.parse()), interface);
        }
        let world = World { interfaces: [(None, host)].into(), ..World::default() };
        Self { world: Arc::new(Mutex::new(world)), fault: None, applied: 0 }
    }

    /// The same world for a driver that is to meet `fault`.
    #[must_use]
    pub fn meeting(&self, fault: Option<Fault>) -> Self {
        Self { world: Arc::clone(&self.world), fault, applied: 0 }
    }

    /// Makes the namespace of a sandbox.
    pub fn add_netns(&self, id: NetnsId) {
        self.world().interfaces.entry(Some(id)).or_default();
    }

    /// Ends a namespace. Its interfaces, being virtual, end with it; datapaths stay behind, severed.
    pub fn remove_netns(&self, id: NetnsId) {
        self.world().interfaces.remove(&Some(id));
    }

    pub fn snapshot(&self) -> World {
        self.world().clone()
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        // A driver that was made to die has left the world as it was, which is the point.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a step; fails or ends the thread when its time has come.
    fn tick(&mut self, moment: fn(usize) -> Fault) -> Result<(), StepError> {
        if self.fault != Some(moment(self.applied)) {
            return Ok(());
        }
        match self.fault.take() {
            Some(Fault::FailAt(at) | Fault::FailAfter(at)) => {
                Err(error(format!("injected fault at step {at}")))
            }
            _ => std::panic::panic_any(Death),
        }
    }
}

/// What a thread that met [`Fault::DieBefore`] or [`Fault::DieAfter`] panics with.
#[derive(Clone, Copy, Debug)]
pub struct Death;

impl Node for FakeNode {
    fn observe(&mut self, subject: &Subject) -> Result<Observed, StepError> {
        Ok(match subject {
            Subject::Interface { place, by } => Observed::Interface(self.world().find(place, by)),
            Subject::Datapath(id) => Observed::Datapath(self.world().datapath(id)),
            Subject::AllDatapaths => {
                Observed::AllDatapaths(self.world().datapaths.keys().cloned().collect())
            }
            _ => return Err(error("not in the model".to_owned())),
        })
    }

    fn apply(&mut self, step: &Step) -> Result<Was, StepError> {
        self.tick(Fault::FailAt)?;
        self.tick(Fault::DieBefore)?;
        let was = self.world().apply(step)?;
        self.tick(Fault::DieAfter)?;
        self.tick(Fault::FailAfter)?;
        self.applied += 1;
        Ok(was)
    }
}

impl World {
    fn find(&self, place: &Place, by: &By) -> Option<InterfaceState> {
        let namespace = self.interfaces.get(&key(place))?;
        let (name, found) = namespace.iter().find(|(name, interface)| match by {
            By::Name(wanted) => *name == wanted,
            By::Index(index) => interface.index == *index,
        })?;
        Some(InterfaceState {
            name: name.clone(),
            index: found.index,
            mac: Some(found.mac),
            mtu: found.mtu,
            up: found.up,
            addresses: found.addresses.clone(),
            controller: None,
            segments: Segments::default(),
        })
    }

    fn datapath(&self, id: &AttachmentId) -> DatapathState {
        match self.datapaths.get(id) {
            None => DatapathState::Absent,
            Some(Some(identity)) if !self.all().any(|i| i.identity == *identity) => {
                DatapathState::Broken
            }
            Some(_) => DatapathState::Attached,
        }
    }

    fn all(&self) -> impl Iterator<Item = &FakeInterface> {
        self.interfaces.values().flat_map(BTreeMap::values)
    }

    fn at(&mut self, at: &At) -> Result<&mut FakeInterface, StepError> {
        self.interfaces
            .get_mut(&key(&at.place))
            .and_then(|namespace| namespace.get_mut(&at.interface))
            .ok_or_else(|| error(format!("{at}: no such device")))
    }

    fn apply(&mut self, step: &Step) -> Result<Was, StepError> {
        match step {
            Step::InstallDatapath { spec, interface } => {
                let at = At { place: Place::Host, interface: interface.clone() };
                let is_linked =
                    spec.ingress != IngressHook::Clsact || spec.egress != EgressHook::Clsact;
                let identity = is_linked.then_some(self.at(&at)?.identity);
                let before = self.datapaths.insert(spec.id.clone(), identity);
                self.programs.insert(spec.id.clone(), spec.clone());
                Ok(was(before == Some(identity)))
            }
            Step::ReplaceDatapath { spec } => match self.datapath(&spec.id) {
                DatapathState::Attached => {
                    self.programs.insert(spec.id.clone(), spec.clone());
                    Ok(Was::Otherwise)
                }
                state => Err(error(format!("{}: {state:?}", spec.id))),
            },
            Step::RemoveDatapath { id } => {
                self.programs.remove(id);
                Ok(was(self.datapaths.remove(id).is_none()))
            }
            Step::AttachFilters { spec, at } => {
                if !self.datapaths.contains_key(&spec.id) {
                    return Err(error(format!("datapath {} is not installed", spec.id)));
                }
                let before = self.at(at)?.filters.replace(spec.id.clone());
                Ok(was(before.as_ref() == Some(&spec.id)))
            }
            Step::DetachFilters { spec, at } => {
                let filters = &mut self.at(at)?.filters;
                Ok(was(filters.take_if(|filters| *filters == spec.id).is_none()))
            }
            Step::SetUp { at } => self.at(at).map(|i| was(std::mem::replace(&mut i.up, true))),
            Step::SetDown { at } => self.set_down(at),
            Step::SetMtu { at, mtu } => {
                let before = std::mem::replace(&mut self.at(at)?.mtu, *mtu);
                Ok(if before == *mtu { Was::Same } else { Was::Mtu(before) })
            }
            Step::SetMac { at, mac } => {
                let before = std::mem::replace(&mut self.at(at)?.mac, *mac);
                Ok(if before == *mac { Was::Same } else { Was::Mac(before) })
            }
            Step::AddAddress { at, address, .. } => {
                Ok(insert(&mut self.at(at)?.addresses, address))
            }
            Step::RemoveAddress { at, address } => {
                Ok(remove_address(&mut self.at(at)?.addresses, *address))
            }
            Step::AddRoute { at, route } => {
                let place = self.interfaces.get(&key(&at.place)).into_iter().flatten();
                let is_taken =
                    place.filter(|(name, _)| **name != at.interface).any(|(_, other)| {
                        other.routes.iter().any(|r| r.destination == route.destination)
                    });
                if is_taken {
                    return Err(error(format!("{at}: file exists")));
                }
                let interface = self.at(at)?;
                if !interface.up {
                    return Err(error(format!("{at}: network is down")));
                }
                Ok(insert(&mut interface.routes, route))
            }
            Step::RemoveRoute { at, route } => Ok(remove(&mut self.at(at)?.routes, route)),
            Step::Move { from, to } => self.relocate(from, to),
            _ => Err(error(format!("{step}: not in the model"))),
        }
    }

    fn set_down(&mut self, at: &At) -> Result<Was, StepError> {
        let interface = self.at(at)?;
        let was_up = std::mem::replace(&mut interface.up, false);
        interface.routes.clear();
        if was_up {
            interface.addresses.retain(|address| matches!(address, IpNet::V4(_)));
        }
        Ok(was(!was_up))
    }

    fn relocate(&mut self, from: &At, to: &At) -> Result<Was, StepError> {
        let missing = !self.interfaces.contains_key(&key(&from.place)) || self.at(from).is_err();
        let target = self
            .interfaces
            .get(&key(&to.place))
            .ok_or_else(|| error(format!("{to}: the namespace is gone")))?;
        match (missing, target.contains_key(&to.interface)) {
            (true, true) => return Ok(Was::Same),
            (true, false) => return Err(error(format!("{from}: no such device"))),
            (false, true) => return Err(error(format!("{to}: file exists"))),
            (false, false) => {}
        }
        let taken =
            self.interfaces.get_mut(&key(&from.place)).and_then(|n| n.remove(&from.interface));
        let target = self.interfaces.entry(key(&to.place)).or_default();
        if let Some(mut interface) = taken {
            if from.place != to.place {
                interface.up = false;
                interface.addresses.clear();
                interface.routes.clear();
                interface.filters = None;
            }
            target.insert(to.interface.clone(), interface);
        }
        Ok(Was::Otherwise)
    }
}

fn key(place: &Place) -> Option<NetnsId> {
    match place {
        Place::Host => None,
        Place::Pod(netns) => Some(netns.id),
    }
}

fn was(same: bool) -> Was {
    if same { Was::Same } else { Was::Otherwise }
}

/// Without `promote_secondaries` the first address of an IPv4 network takes the others along.
fn remove_address(all: &mut Vec<IpNet>, address: IpNet) -> Was {
    let is_same_network =
        |other: &IpNet| matches!(other, IpNet::V4(_)) && other.trunc() == address.trunc();
    if all.iter().find(|other| is_same_network(other)) == Some(&address) {
        all.retain(|other| !is_same_network(other));
        return Was::Otherwise;
    }
    remove(all, &address)
}

fn insert<T: Clone + PartialEq>(all: &mut Vec<T>, one: &T) -> Was {
    if all.contains(one) {
        return Was::Same;
    }
    all.push(one.clone());
    Was::Otherwise
}

fn remove<T: PartialEq>(all: &mut Vec<T>, one: &T) -> Was {
    let before = all.len();
    all.retain(|other| other != one);
    was(all.len() == before)
}

fn error(message: String) -> StepError {
    StepError { message }
}
