//! Virtual functions and RDMA devices of the model.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::error;
use super::world::{World, key};
use crate::model::{At, MacAddr, NetnsId, Place, RdmaPlace, VfPlace, VfSettings};
use crate::node::StepError;
use crate::plan::{Observed, RdmaSeen, Step, Subject, Was};

/// What a physical function knows of a virtual one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FakeVf {
    /// Of its interface.
    pub identity: u32,
    pub settings: VfSettings,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FakeRdma {
    pub index: u32,
    /// In `/dev/infiniband/uverbsN`.
    pub number: u32,
    /// `None` is the host.
    pub netns: Option<NetnsId>,
}

impl FakeRdma {
    pub fn node(&self) -> PathBuf {
        format!("/dev/infiniband/uverbs{}", self.number).into()
    }
}

impl World {
    pub(super) fn observe_function(&self, subject: &Subject) -> Observed {
        match subject {
            Subject::Vf(place) => {
                let is_here = self.interfaces[&None].values().any(|it| it.index == place.pf_index);
                let found = self.vfs.get(&(place.pf_index, place.number)).filter(|_| is_here);
                Observed::Vf(found.map(|vf| vf.settings.clone()))
            }
            Subject::Rdma { place, name, index } => {
                let is_here = |it: &&FakeRdma| match place {
                    Place::Host => it.netns.is_none(),
                    Place::Pod(netns) => it.netns.as_ref() == Some(&netns.id),
                };
                let here = || self.rdma.iter().filter(|(_, it)| is_here(it));
                let by_index = here().find(|(_, it)| Some(it.index) == *index);
                let found = by_index.or_else(|| here().find(|(other, _)| *other == name));
                Observed::Rdma(found.map(|(name, it)| RdmaSeen {
                    place: RdmaPlace { name: name.clone(), index: it.index },
                    is_exclusive: self.is_rdma_exclusive,
                }))
            }
            Subject::RdmaNodes { name, .. } => {
                let found = self.rdma.get(name).filter(|_| !self.is_rdma_without_files).into_iter();
                Observed::RdmaNodes(found.map(FakeRdma::node).collect())
            }
            Subject::Function(address) => Observed::Function(self.functions.get(address).cloned()),
            _ => Observed::PhysicalFunctions(self.physical_functions.clone()),
        }
    }

    pub(super) fn apply_to_function(&mut self, step: &Step) -> Result<Was, StepError> {
        match step {
            Step::SetVf { vf, settings } => self.set_vf(vf, settings),
            Step::MoveRdma { device, from, to } => self.move_rdma(device, from, to),
            Step::SetVfCount { pf, from, to } => {
                let mut all = self.physical_functions.iter_mut();
                let found = all.find(|it| it.address == *pf);
                let found = found.ok_or_else(|| error(format!("{pf}: no such device")))?;
                if ![from, to].contains(&&found.num_vfs) {
                    return Err(error(format!("{pf}: there are {} by now", found.num_vfs)));
                }
                let was = std::mem::replace(&mut found.num_vfs, *to);
                Ok(if was == *to { Was::Same } else { Was::Otherwise })
            }
            _ => Err(error(format!("{step}: is not about functions"))),
        }
    }

    fn set_vf(&mut self, place: &VfPlace, settings: &VfSettings) -> Result<Was, StepError> {
        let on_host = self.interfaces[&None].values().any(|it| it.index == place.pf_index);
        let found = self.vfs.get_mut(&(place.pf_index, place.number)).filter(|_| on_host);
        let is = &mut found.ok_or_else(|| error(format!("there is no {place}")))?.settings;
        let lacking = settings.lacking(is);
        if self.are_pfs_deaf && !lacking.is_empty() {
            return Err(error(format!("{place}: input/output error")));
        }
        if self.do_pfs_keep_macs && lacking.mac.is_some_and(MacAddr::is_zero) {
            return Err(error(format!("{place}: invalid argument")));
        }
        if let Some(field) = lacking.unknown_to(is) {
            return Err(error(format!("{place}: {field}: operation not supported")));
        }
        if lacking.is_empty() {
            return Ok(Was::Same);
        }
        let was = lacking.replacing(is);
        let VfSettings { mac, vlan, trust, spoof_check, .. } = lacking;
        is.mac = mac.or(is.mac);
        is.vlan = vlan.or(is.vlan);
        is.trust = trust.or(is.trust);
        is.spoof_check = spoof_check.or(is.spoof_check);
        is.min_tx_rate_mbps = lacking.min_tx_rate_mbps.or(is.min_tx_rate_mbps);
        is.max_tx_rate_mbps = lacking.max_tx_rate_mbps.or(is.max_tx_rate_mbps);
        is.link_state = lacking.link_state.or(is.link_state);
        Ok(Was::Vf(was))
    }

    /// What the physical function was told, an untrusted virtual one cannot change.
    pub(super) fn check_mac(&mut self, at: &At, mac: MacAddr) -> Result<(), StepError> {
        let (identity, is) = self.at(at).map(|interface| (interface.identity, interface.mac))?;
        let of = self.vfs.values().find(|vf| vf.identity == identity);
        let Some(FakeVf { settings, .. }) = of.filter(|_| is != mac) else { return Ok(()) };
        let is_free = |told: MacAddr| told.is_zero() || self.do_pfs_keep_macs && told == mac;
        let is_told = settings.mac.is_some_and(|told| !is_free(told));
        if is_told && settings.trust != Some(true) {
            return Err(error(format!("{at}: cannot assign requested address")));
        }
        Ok(())
    }

    fn move_rdma(
        &mut self,
        device: &RdmaPlace,
        from: &Place,
        to: &Place,
    ) -> Result<Was, StepError> {
        if !self.is_rdma_exclusive {
            return Err(error(format!("{}: operation not supported", device.name)));
        }
        if !self.interfaces.contains_key(&key(to)) {
            return Err(error(format!("{to} is gone")));
        }
        let found = self.rdma.iter_mut().find(|(_, it)| it.index == device.index);
        let (name, found) =
            found.ok_or_else(|| error(format!("{}: no such device", device.name)))?;
        if found.netns == key(to) {
            return Ok(Was::Same);
        }
        if self.is_rdma_stuck && found.netns.is_some() {
            return Err(error(format!("{}: device or resource busy", device.name)));
        }
        if found.netns != key(from) {
            return Err(error(format!("{} is not in {from}", device.name)));
        }
        found.netns = key(to);
        let mut name = name.clone();
        if *to == Place::Host && name != device.name {
            let found = self.rdma.remove(&name);
            name.clone_from(&device.name);
            self.rdma.extend(found.map(|found| (name.clone(), found)));
        }
        self.renumber(&name);
        Ok(Was::Otherwise)
    }

    /// Its files end and are made anew, with the lowest number that is free.
    pub(super) fn renumber(&mut self, name: &str) {
        let others: BTreeSet<_> =
            self.rdma.iter().filter(|(other, _)| *other != name).map(|(_, it)| it.number).collect();
        if let Some(device) = self.rdma.get_mut(name) {
            device.number = 0;
            while others.contains(&device.number) {
                device.number += 1;
            }
        }
    }
}
