//! Drafts: what will be recorded of a device that is new to us, or why it cannot be had.

use std::collections::BTreeSet;

use super::Engine;
use crate::attach::{AttachError, PrepareClaim, Wanted};
use crate::model::{
    AttachmentId, By, DatapathSpec, Device, EthtoolSetting, EthtoolState, EthtoolWishes, IfIndex,
    InterfaceState, Place, Record, SubinterfaceKind, SubinterfaceSpec,
};
use crate::node::Node;
use crate::plan::{self, DatapathState, Hooks, choose_hooks};

/// A record, and what its device's driver has to be set to.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) record: Record,
    pub(super) settings: Vec<EthtoolSetting>,
}

impl<N: Node> Engine<N> {
    pub(super) fn draft(
        &mut self,
        wanted: &PrepareClaim,
        device: &Wanted,
    ) -> Result<Draft, AttachError> {
        let gone = || AttachError::NoSuchDevice { device: device.name.clone() };
        let unseen = |source| AttachError::Observe { device: device.name.clone(), source };
        let impossible = |reason| AttachError::Impossible { device: device.name.clone(), reason };
        let mut found = device.found.clone().ok_or_else(gone)?;
        self.check_changing(device, &found)?;
        let Some(interface) = found.interface.clone() else {
            return self.draft_bare(wanted, device, found);
        };
        let parent =
            self.interface(Place::Host, By::Name(interface)).map_err(unseen)?.ok_or_else(gone)?;
        let id = AttachmentId {
            claim: wanted.claim.uid.clone(),
            device: device.name.clone(),
            share: device.share.clone(),
        };
        let (policy, filter) = self.with_kept(&id, &device.wishes)?;
        if self.datapath(id.clone()).map_err(unseen)? != DatapathState::Absent {
            // Pins under this very name and no record: the checkpoint was lost. The program on the
            // interface is ours, and makes way for the one that is installed.
            tracing::warn!(device = %device.name, claim = %wanted.claim, "a datapath of no record");
            found.ebpf.xdp_in_use = false;
        }
        let subinterface = match device.wishes.subinterface {
            Some(kind) => Some(self.subinterface(&id, &parent, kind).map_err(impossible)?),
            None => None,
        };
        let before = match &subinterface {
            // What it is like shows once it is there.
            Some(spec) => InterfaceState {
                name: spec.name.clone(),
                index: IfIndex(0),
                up: false,
                addresses: Vec::new(),
                controller: None,
                ..parent
            },
            None => parent,
        };
        let lacking = || {
            let lacking = device.wishes.interface.segments.unknown_to(&before.segments)?;
            Some(format!("this kernel has no limit on {lacking}"))
        };
        let reason = reason_to_stay(&found, &before)
            .or_else(|| self.function_upon(&before))
            .or_else(lacking)
            .or_else(|| no_dhcp(device, &found, &before));
        if let Some(reason) = reason {
            return Err(impossible(reason));
        }
        let (ethtool, settings) = match &subinterface {
            Some(_) => (EthtoolState::default(), Vec::new()),
            None => self.driver_settings(device, &before)?,
        };
        let (vf, rdma) = match &subinterface {
            Some(_) => (None, None),
            None => (self.function(device, &found, &before)?, self.moving_rdma(device, &found)?),
        };
        if subinterface.is_none() {
            found.rdma_nodes = self.rdma_nodes(&found).map_err(unseen)?;
        }
        let was_raised = device.wishes.interface.dhcp && subinterface.is_none() && !before.up;
        let hooks = hooks(device, &found, &before).map_err(impossible)?;
        let mut record = Record {
            policy,
            subinterface,
            ethtool,
            vf,
            rdma,
            was_raised,
            ..self.blank(wanted, device, found, before)
        };
        if let Some(mac) = record.vf.as_ref().and_then(|vf| vf.set.mac) {
            // From prepare to unprepare it is as the physical function was told.
            record.before.mac = Some(mac);
        }
        record.datapath = hooks.map(|hooks| DatapathSpec {
            id: record.id(),
            ingress: hooks.ingress,
            why: hooks.why,
            egress: hooks.egress,
            telemetry: device.wishes.ebpf.telemetry,
            flows: device.wishes.ebpf.flows,
            generation: DatapathSpec::FIRST_GENERATION,
            filter,
        });
        if record.policy.is_some() && record.datapath.is_none() {
            let (device, claim) = (id.device, id.claim);
            let reason = "the claim wants no programs".to_owned();
            return Err(AttachError::KeptPolicy { device, claim, reason });
        }
        Ok(Draft { record, settings })
    }

    /// Which virtual function was told something by way of this interface, that is to be put back.
    fn function_upon(&self, now: &InterfaceState) -> Option<String> {
        let is_upon =
            |record: &&Record| record.vf.as_ref().is_some_and(|vf| vf.place.pf_index == now.index);
        let record = self.checkpoint.records().find(is_upon)?;
        let (name, claim) = (record.device.called(), &record.claim);
        Some(format!("its virtual function {name} is set up by way of it, for claim {claim}"))
    }

    /// A record that says nothing yet but whose device it is and what is wished of it.
    pub(super) fn blank(
        &self,
        wanted: &PrepareClaim,
        device: &Wanted,
        found: Device,
        before: InterfaceState,
    ) -> Record {
        let (claim, pod) = (wanted.claim.clone(), wanted.pod.clone());
        Record {
            requests: device.requests.clone(),
            pool: device.pool.clone(),
            share: device.share.clone(),
            wishes: device.wishes.clone(),
            ..Record::of(claim, pod, found, before, self.build.clone())
        }
    }

    fn subinterface(
        &self,
        id: &AttachmentId,
        parent: &InterfaceState,
        kind: SubinterfaceKind,
    ) -> Result<SubinterfaceSpec, String> {
        let others = || self.checkpoint.records().filter_map(|record| record.subinterface.as_ref());
        let taken = others().map(|spec| spec.name.clone()).collect();
        let name = plan::subinterface_name(id, &taken).map_err(|error| error.to_string())?;
        Ok(SubinterfaceSpec {
            name,
            parent: parent.name.clone(),
            parent_index: parent.index,
            // Whoever made the first one has found out.
            parent_was_down: !parent.up && !others().any(|spec| spec.parent == parent.name),
            kind,
        })
    }

    /// What the driver is set to now, and what has to be set for the claim.
    fn driver_settings(
        &mut self,
        device: &Wanted,
        before: &InterfaceState,
    ) -> Result<(EthtoolState, Vec<EthtoolSetting>), AttachError> {
        let wishes = &device.wishes.ethtool;
        match self.ethtool(before.name.clone()) {
            Ok(state) => match plan::settings(wishes, &state) {
                Ok(settings) => Ok((state, settings)),
                Err(problems) => Err(AttachError::Impossible {
                    device: device.name.clone(),
                    reason: problems.to_string(),
                }),
            },
            Err(source) if *wishes != EthtoolWishes::default() => {
                Err(AttachError::Observe { device: device.name.clone(), source })
            }
            Err(error) => {
                tracing::warn!(device = %device.name, %error, "its driver's settings are unknown");
                Ok((EthtoolState::default(), Vec::new()))
            }
        }
    }
}

/// Where the programs go. Those of a sub-interface cannot run in the parent's driver.
fn hooks(
    wanted: &Wanted,
    found: &Device,
    before: &InterfaceState,
) -> Result<Option<Hooks>, String> {
    // Programs are attached at the MTU that it has here, and run at the one that it gets.
    let mtu = wanted.wishes.interface.mtu.unwrap_or(before.mtu).max(before.mtu);
    if wanted.wishes.subinterface.is_none() {
        return choose_hooks(&wanted.wishes.ebpf, found, mtu);
    }
    let mut upon = found.clone();
    upon.is_virtual = true;
    upon.ebpf.xdp = None;
    choose_hooks(&wanted.wishes.ebpf, &upon, mtu)
}

/// Why a device cannot be given to a pod and taken back, as far as it can be told beforehand.
fn reason_to_stay(device: &Device, now: &InterfaceState) -> Option<String> {
    if Some(&now.name) != device.interface.as_ref() {
        // It stays; what is made upon it goes.
        return None;
    }
    if device.is_immovable() {
        return Some(format!("the kernel does not let a {} leave its namespace", device.kind));
    }
    now.controller.map(|index| {
        format!(
            "{} is a member of another interface (index {index}), and would be lost to it",
            now.name
        )
    })
}

/// Why a DHCP server cannot be asked on the device, where the claim wishes that.
fn no_dhcp(wanted: &Wanted, device: &Device, now: &InterfaceState) -> Option<String> {
    if !wanted.wishes.interface.dhcp {
        None
    } else if !cfg!(feature = "dhcp") {
        Some("interface.dhcp: this driver is built without a DHCP client".to_owned())
    } else if device.encapsulation != "ether" || now.mac.is_none() {
        Some(format!("interface.dhcp: {} is no Ethernet interface", device.called()))
    } else {
        None
    }
}

/// What is wrong with the names of the claim's devices: not all can be had in one pod.
pub(super) fn check_names(wanted: &PrepareClaim) -> Vec<AttachError> {
    let mut names = BTreeSet::new();
    let mut errors = Vec::new();
    for device in &wanted.devices {
        let own = device.found.as_ref().and_then(|found| found.interface.as_ref());
        let is_made = device.wishes.subinterface.is_some();
        let name = device.wishes.interface.name.as_ref().or(own.filter(|_| !is_made));
        let Some(name) = name else { continue };
        let reason = if name.as_str() == "eth0" {
            "interface.name: eth0 is the pod's own interface, choose another name".to_owned()
        } else if !names.insert(name) {
            format!("interface.name: another device of the claim is called {name} in the pod, too")
        } else {
            continue;
        };
        errors.push(AttachError::Impossible { device: device.name.clone(), reason });
    }
    errors
}
