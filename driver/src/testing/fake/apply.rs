//! What steps do to the model.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::error;
use super::world::{FakeInterface, SYSCTL_DEFAULT, World, key};
use crate::model::{
    At, EgressHook, EthtoolSetting, EthtoolState, IfIndex, IngressHook, MacAddr, OtherPrograms,
    Place, Route, Segments, SubinterfaceKind, SubinterfaceSpec, Vrf,
};
use crate::node::StepError;
use crate::plan::{DatapathState, Step, Was};

impl World {
    pub(super) fn apply(&mut self, step: &Step) -> Result<Was, StepError> {
        match step {
            Step::InstallDatapath { .. }
            | Step::ReplaceDatapath { .. }
            | Step::RemoveDatapath { .. }
            | Step::AttachFilters { .. }
            | Step::DetachFilters { .. }
            | Step::DetachPrograms { .. } => self.apply_to_programs(step),
            Step::SetUp { at } => self.at(at).map(|i| was(std::mem::replace(&mut i.up, true))),
            Step::SetDown { at } => self.set_down(at),
            Step::SetMtu { at, mtu } => {
                let before = std::mem::replace(&mut self.at(at)?.mtu, *mtu);
                Ok(if before == *mtu { Was::Same } else { Was::Mtu(before) })
            }
            Step::SetMac { at, mac } => {
                self.check_mac(at, *mac)?;
                let before = std::mem::replace(&mut self.at(at)?.mac, *mac);
                Ok(if before == *mac { Was::Same } else { Was::Mac(before) })
            }
            Step::SetSegments { at, segments } => self.set_segments(at, *segments),
            Step::SetEthtool { at, setting } => set_ethtool(&mut self.at(at)?.ethtool, setting),
            Step::SetSysctl { place, name, value } => self.set_sysctl(place, name, value),
            Step::AddAddress { at, address, .. } => self.add_address(at, address),
            Step::RemoveAddress { at, address } => {
                Ok(remove_address(&mut self.at(at)?.addresses, *address))
            }
            Step::AddRoute { at, route } => self.add_route(at, route),
            Step::RemoveRoute { at, route } => Ok(remove(&mut self.at(at)?.routes, route)),
            Step::AddNeighbor { at, neighbor } => {
                let interface = self.at(at)?;
                if !interface.up {
                    return Err(error(format!("{at}: network is down")));
                }
                Ok(insert_sorted(&mut interface.neighbors, neighbor))
            }
            Step::RemoveNeighbor { at, neighbor } => {
                Ok(remove(&mut self.at(at)?.neighbors, neighbor))
            }
            Step::AddRule { place, rule } => {
                Ok(insert_sorted(self.rules.entry(key(place)).or_default(), rule))
            }
            Step::RemoveRule { place, rule } => {
                let was = remove(self.rules.entry(key(place)).or_default(), rule);
                self.rules.retain(|_, rules| !rules.is_empty());
                Ok(was)
            }
            Step::SetVf { .. } | Step::MoveRdma { .. } | Step::SetVfCount { .. } => {
                self.apply_to_function(step)
            }
            Step::AddVrf { place, vrf } => self.add_vrf(place, vrf),
            Step::RemoveVrf { place, vrf } => Ok(self.remove_vrf(place, vrf)),
            Step::SetController { at, controller } => {
                let before = std::mem::replace(&mut self.at(at)?.controller, controller.clone());
                Ok(if before == *controller { Was::Same } else { Was::Controller(before) })
            }
            Step::AddSubinterface { spec } => self.add_subinterface(spec),
            Step::RemoveSubinterface { name } => {
                let host = self.interfaces.entry(None).or_default();
                Ok(was(host.remove(name).is_none()))
            }
            Step::WriteCdi { spec } => {
                let before = self.cdi.insert(spec.claim.clone(), spec.clone());
                Ok(was(before.as_ref() == Some(spec)))
            }
            Step::RemoveCdi { claim } => Ok(was(self.cdi.remove(claim).is_none())),
            Step::ReleaseLease { at, .. } => {
                let interface = self.at(at)?;
                if interface.up { Ok(Was::Otherwise) } else { Err(error(format!("{at}: is down"))) }
            }
            Step::Move { from, to } => self.relocate(from, to),
        }
    }

    /// Whether a file is so already: it is then not touched, and nothing can go wrong.
    pub(super) fn is_written(&self, step: &Step) -> bool {
        match step {
            Step::WriteCdi { spec } => self.cdi.get(&spec.claim) == Some(spec),
            Step::RemoveCdi { claim } => !self.cdi.contains_key(claim),
            _ => false,
        }
    }

    fn apply_to_programs(&mut self, step: &Step) -> Result<Was, StepError> {
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
            Step::DetachPrograms { at, programs, .. } => {
                let strangers = &mut self.at(at)?.strangers;
                let before = strangers.len();
                strangers.retain(|name| match programs {
                    OtherPrograms::All => false,
                    OtherPrograms::Named(names) => !names.contains(name),
                });
                Ok(was(before == strangers.len()))
            }
            _ => Err(error(format!("{step}: is not about programs"))),
        }
    }

    fn set_down(&mut self, at: &At) -> Result<Was, StepError> {
        let interface = self.at(at)?;
        let was_up = std::mem::replace(&mut interface.up, false);
        interface.routes.clear();
        interface.neighbors.clear();
        if was_up {
            interface.addresses.retain(|address| matches!(address, IpNet::V4(_)));
        }
        Ok(was(!was_up))
    }

    fn set_segments(&mut self, at: &At, segments: Segments) -> Result<Was, StepError> {
        let interface = self.at(at)?;
        let (is, mut before) = (&mut interface.segments, Segments::default());
        let set = |is: &mut Option<u32>, wished: Option<u32>, before: &mut Option<u32>| {
            if wished.is_some() && wished != *is {
                *before = std::mem::replace(is, wished);
            }
        };
        set(&mut is.gso_max_size, segments.gso_max_size, &mut before.gso_max_size);
        set(&mut is.gro_max_size, segments.gro_max_size, &mut before.gro_max_size);
        set(&mut is.gso_ipv4_max_size, segments.gso_ipv4_max_size, &mut before.gso_ipv4_max_size);
        set(&mut is.gro_ipv4_max_size, segments.gro_ipv4_max_size, &mut before.gro_ipv4_max_size);
        Ok(if before.is_empty() { Was::Same } else { Was::Segments(before) })
    }

    /// `FAMILY/conf/INTERFACE/NAME` or a setting of the whole namespace.
    fn set_sysctl(&mut self, place: &Place, name: &str, value: &str) -> Result<Was, StepError> {
        let parts: Vec<_> = name.split('/').collect();
        let before = if let [family, "conf", interface, name] = parts[..] {
            let interface = interface.parse().map_err(|e| error(format!("{interface}: {e}")))?;
            let sysctls = &mut self.at(&At { place: place.clone(), interface })?.sysctls;
            let name = format!("{family}/{name}");
            if value == SYSCTL_DEFAULT {
                sysctls.remove(&name)
            } else {
                sysctls.insert(name, value.to_owned())
            }
        } else if value == SYSCTL_DEFAULT {
            self.stack.remove(&(key(place), name.to_owned()))
        } else {
            self.stack.insert((key(place), name.to_owned()), value.to_owned())
        };
        let before = before.unwrap_or_else(|| SYSCTL_DEFAULT.to_owned());
        Ok(if before == value { Was::Same } else { Was::Value(before) })
    }

    fn add_address(&mut self, at: &At, address: &IpNet) -> Result<Was, StepError> {
        let is_off = self.ipv6_is_off && address.addr().is_ipv6();
        let interface = self.at(at)?;
        if is_off && !interface.sysctls.contains_key("ipv6/disable_ipv6") {
            return Err(error(format!("{at}: IPv6 is disabled on this device")));
        }
        Ok(insert(&mut interface.addresses, address))
    }

    fn add_route(&mut self, at: &At, route: &Route) -> Result<Was, StepError> {
        let is_same = |other: &Route| {
            (other.destination, other.table) == (route.destination, route.table)
                && other.metric == route.metric
        };
        let place = self.interfaces.get(&key(&at.place)).into_iter().flatten();
        let mut others = place.filter(|(name, _)| **name != at.interface);
        if others.any(|(_, other)| other.routes.iter().any(is_same)) {
            return Err(error(format!("{at}: file exists")));
        }
        let interface = self.at(at)?;
        if !interface.up {
            return Err(error(format!("{at}: network is down")));
        }
        if interface.routes.iter().any(|other| is_same(other) && other != route) {
            return Err(error(format!("{at}: file exists")));
        }
        Ok(insert_sorted(&mut interface.routes, route))
    }

    fn add_vrf(&mut self, place: &Place, vrf: &Vrf) -> Result<Was, StepError> {
        let is_taken = self.interfaces.get(&key(place)).is_some_and(|n| n.contains_key(&vrf.name));
        match self.vrfs.get(&key(place)).and_then(|vrfs| vrfs.get(&vrf.name)) {
            Some(table) if *table == vrf.table => Ok(Was::Same),
            Some(_) => Err(error(format!("{}: has another table", vrf.name))),
            None if is_taken => Err(error(format!("{}: file exists", vrf.name))),
            None => {
                let vrfs = self.vrfs.entry(key(place)).or_default();
                vrfs.insert(vrf.name.clone(), vrf.table);
                Ok(Was::Otherwise)
            }
        }
    }

    /// Its members are members of nothing afterwards.
    fn remove_vrf(&mut self, place: &Place, vrf: &Vrf) -> Was {
        let vrfs = self.vrfs.entry(key(place)).or_default();
        let was = was(vrfs.remove(&vrf.name).is_none());
        self.vrfs.retain(|_, vrfs| !vrfs.is_empty());
        for interface in
            self.interfaces.get_mut(&key(place)).into_iter().flat_map(|n| n.values_mut())
        {
            interface.controller.take_if(|name| *name == vrf.name);
        }
        was
    }

    fn add_subinterface(&mut self, spec: &SubinterfaceSpec) -> Result<Was, StepError> {
        let next = self.all().map(|interface| interface.identity.max(interface.index.0)).max();
        let next = next.unwrap_or_default() + 1;
        let host = self.interfaces.entry(None).or_default();
        if host.contains_key(&spec.name) {
            return Ok(Was::Same);
        }
        let parent = host.get(&spec.parent).filter(|parent| parent.index == spec.parent_index);
        let parent = parent.ok_or_else(|| error(format!("{}: no such device", spec.parent)))?;
        let [.., low] = next.to_be_bytes();
        let mac = match spec.kind {
            SubinterfaceKind::Macvlan { .. } => MacAddr([6, 0, 0, 0, 0, low]),
            SubinterfaceKind::Ipvlan { .. } | SubinterfaceKind::Vlan { .. } => parent.mac,
        };
        let made = FakeInterface {
            identity: next,
            index: IfIndex(next),
            is_hardware: false,
            mac,
            mtu: parent.mtu,
            up: false,
            addresses: Vec::new(),
            routes: Vec::new(),
            neighbors: Vec::new(),
            segments: parent.segments,
            sysctls: BTreeMap::new(),
            ethtool: EthtoolState::default(),
            controller: None,
            filters: None,
            strangers: Vec::new(),
        };
        host.insert(spec.name.clone(), made);
        Ok(Was::Otherwise)
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
                interface.leave();
                let is_software = self.is_rdma_software;
                self.rdma.retain(|_, it| !is_software || it.index != interface.identity);
            }
            target.insert(to.interface.clone(), interface);
        }
        Ok(Was::Otherwise)
    }
}

fn set_ethtool(state: &mut EthtoolState, setting: &EthtoolSetting) -> Result<Was, StepError> {
    fn change<T: Copy + PartialEq>(
        is: &mut BTreeMap<String, T>,
        wished: &BTreeMap<String, T>,
    ) -> Result<BTreeMap<String, T>, StepError> {
        if let Some(name) = wished.keys().find(|name| !is.contains_key(*name)) {
            return Err(error(format!("{name}: no such setting")));
        }
        let mut before = BTreeMap::new();
        for (name, value) in wished {
            match is.insert(name.clone(), *value) {
                Some(other) if other != *value => drop(before.insert(name.clone(), other)),
                _ => {}
            }
        }
        Ok(before)
    }
    let before = match setting {
        EthtoolSetting::Features(wished) => {
            EthtoolSetting::Features(change(&mut state.features, wished)?)
        }
        EthtoolSetting::PrivateFlags(wished) => {
            EthtoolSetting::PrivateFlags(change(&mut state.private_flags, wished)?)
        }
        EthtoolSetting::Rings(wished) => EthtoolSetting::Rings(change(&mut state.rings, wished)?),
        EthtoolSetting::Channels(wished) => {
            EthtoolSetting::Channels(change(&mut state.channels, wished)?)
        }
        EthtoolSetting::Coalesce(wished) => {
            EthtoolSetting::Coalesce(change(&mut state.coalesce, wished)?)
        }
    };
    Ok(if before.is_empty() { Was::Same } else { Was::Ethtool(before) })
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

/// For what has no order.
fn insert_sorted<T: Clone + Ord>(all: &mut Vec<T>, one: &T) -> Was {
    let was = insert(all, one);
    all.sort();
    was
}

fn remove<T: PartialEq>(all: &mut Vec<T>, one: &T) -> Was {
    let before = all.len();
    all.retain(|other| other != one);
    was(all.len() == before)
}
