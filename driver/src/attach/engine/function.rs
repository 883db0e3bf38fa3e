//! What a device is beside its interface: a virtual function of another device, or an RDMA device.

use std::path::PathBuf;

use super::settle::Settled;
use super::{Engine, mismatch};
use crate::attach::execute::{Residue, is_taken, put_back};
use crate::attach::{AttachError, NoticeKind, PrepareClaim, Wanted};
use crate::model::{
    By, Device, Form, InterfaceState, MacAddr, PciAddress, PfState, Phase, Place, RdmaPlace,
    Record, VfPlace, VfRecord, VfSettings, VirtualFunction,
};
use crate::node::{Node, StepError};
use crate::plan::{self, FunctionSeen, Observed, Step, Stray, Subject, VfPin};

impl<N: Node> Engine<N> {
    /// What the physical function has to be told of the device, and what is so now.
    pub(super) fn function(
        &mut self,
        device: &Wanted,
        found: &Device,
        before: &InterfaceState,
    ) -> Result<Option<VfRecord>, AttachError> {
        let wished = &device.wishes.sriov;
        let impossible = |reason| AttachError::Impossible { device: device.name.clone(), reason };
        let unseen = |source| AttachError::Observe { device: device.name.clone(), source };
        if wished.is_empty() && (device.wishes.interface.mac.is_none() || !found.is_sriov_vf) {
            return Ok(None);
        }
        if !found.is_sriov_vf {
            let name = found.called();
            return Err(impossible(format!("sriov: {name} is no virtual function of SR-IOV")));
        }
        let place = match self.place_of(found) {
            Ok(place) => place,
            // Whether it may have another address, then shows when it is set.
            Err(Unreachable::Reason(_)) if wished.is_empty() => return Ok(None),
            Err(Unreachable::Reason(reason)) => {
                return Err(impossible(format!("sriov: {reason}")));
            }
            Err(Unreachable::Unseen(source)) => return Err(unseen(source)),
        };
        let now = self.vf(&place).map_err(unseen)?;
        let now = now.ok_or_else(|| impossible(format!("sriov: there is no {place}")))?;
        let is_trusted = wished.trust.or(now.trust) == Some(true);
        let mac = device.wishes.interface.mac.filter(|_| !is_trusted && now.mac.is_some());
        let set = VfSettings { mac, ..wished.clone() };
        if let Some(field) = set.unknown_to(&now) {
            let pf = &place.pf;
            return Err(impossible(format!("{field}: the driver of {pf} does not have it")));
        }
        let own_mac = before.mac.filter(|_| mac.is_some());
        let before = set.replacing(&now);
        Ok((!set.is_empty()).then_some(VfRecord { place, set, before, own_mac }))
    }

    fn place_of(&mut self, found: &Device) -> Result<VfPlace, Unreachable> {
        let reason = |text: String| Unreachable::Reason(text);
        let Some(VirtualFunction { pf, pf_interface, index }) = &found.vf else {
            return Err(reason("its physical function is unknown".to_owned()));
        };
        let is_pf = |record: &&Record| {
            let is_it = record.device.pci.as_ref().is_some_and(|pci| pci.address == *pf);
            is_it && record.subinterface.is_none() && record.device.form() == Form::Interface
        };
        if let Some(record) = self.checkpoint.records().find(is_pf) {
            let (pf, pod) = (&record.before.name, &record.pod);
            return Err(reason(format!("its physical function {pf} is for pod {pod} itself")));
        }
        let Some(name) = pf_interface else {
            return Err(reason(format!("its physical function {pf} has no interface on the host")));
        };
        match self.interface(Place::Host, By::Name(name.clone())) {
            Ok(Some(state)) => {
                let at_pf = self.interfaces_of(*pf).map_err(Unreachable::Unseen)?;
                // Names go from one interface to another.
                if !at_pf.iter().any(|it| it.index == state.index) {
                    return Err(reason(format!("{name} is not its physical function {pf}")));
                }
                Ok(VfPlace { pf: name.clone(), pf_index: state.index, number: *index })
            }
            Ok(None) => Err(reason(format!("its physical function {name} is not on the host"))),
            Err(source) => Err(Unreachable::Unseen(source)),
        }
    }

    fn vf(&mut self, place: &VfPlace) -> Result<Option<VfSettings>, StepError> {
        match self.node.observe(&Subject::Vf(place.clone()))? {
            Observed::Vf(settings) => Ok(settings),
            _ => Err(mismatch()),
        }
    }

    /// Has the physical function as it was before it was told anything for the attachment, and answers
    /// what it did not take.
    pub(super) fn put_back_vf(&mut self, record: &Record, is_home: bool) -> Vec<Residue> {
        let Some(mut vf) = record.vf.clone() else {
            return Vec::new();
        };
        match self.whereabouts(record, &vf.place) {
            Ok(Whereabouts::Here(place)) => vf.place = place,
            Ok(Whereabouts::Gone) => {
                let message = format!("{} is gone, with what it was told", vf.place);
                self.tell(record, NoticeKind::Residue, message);
                return Vec::new();
            }
            Ok(Whereabouts::Elsewhere) => {
                let message = format!(
                    "{} is in another network namespace, or tells nothing of it",
                    vf.place.pf
                );
                return vec![owed(&vf, StepError { message })];
            }
            Err(error) => return vec![owed(&vf, error)],
        }
        let record = Record { vf: Some(vf), ..record.clone() };
        let is_loose = plan::unpin_vf(&record).is_none_or(|step| is_taken(&mut self.node, &step));
        let pin = if is_loose { VfPin::Loose } else { VfPin::Fast };
        let residue = put_back(&mut self.node, plan::restore_vf(&record, is_home, pin));
        let vf = record.vf.as_ref().filter(|vf| vf.before.mac.is_some_and(MacAddr::is_zero));
        if let (VfPin::Fast, [], Some(VfRecord { place, own_mac: Some(mac), .. })) =
            (pin, &residue[..], vf)
        {
            let message = format!("{place} is held to its own address {mac} from now on");
            tracing::warn!(device = %record.device.name, message, "not taken back");
            self.tell(&record, NoticeKind::Residue, message);
        }
        residue
    }

    /// Where the physical function can be told of the record's virtual one now. It may have another
    /// index when it has been in another namespace (`__dev_change_net_namespace()` in
    /// `net/core/dev.c`, Linux 6.12), and what it was told stays with it there.
    fn whereabouts(&mut self, record: &Record, place: &VfPlace) -> Result<Whereabouts, StepError> {
        if self.vf(place)?.is_some() {
            return Ok(Whereabouts::Here(place.clone()));
        }
        let Some(function) = &record.device.vf else { return Ok(Whereabouts::Gone) };
        if !self.has_function(function)? {
            return Ok(Whereabouts::Gone);
        }
        let mut at_pf = self.interfaces_of(function.pf)?;
        // Representors and other ports are on the same function, and know of no virtual one.
        at_pf.sort_by_key(|state| state.name != place.pf);
        for found in at_pf {
            let place = VfPlace { pf: found.name, pf_index: found.index, number: place.number };
            if self.vf(&place)?.is_some() {
                return Ok(Whereabouts::Here(place));
            }
        }
        Ok(Whereabouts::Elsewhere)
    }

    /// Whether the physical function has a driver still, and as many virtual ones.
    fn has_function(&mut self, function: &VirtualFunction) -> Result<bool, StepError> {
        let has_it = |pf: &PfState| {
            pf.address == function.pf && pf.driver.is_some() && pf.num_vfs > function.index
        };
        Ok(self.physical_functions()?.iter().any(has_it))
    }

    /// The interfaces of a PCI function that are on the host.
    fn interfaces_of(&mut self, pci: PciAddress) -> Result<Vec<InterfaceState>, StepError> {
        match self.node.observe(&Subject::Strays(Stray { pci: Some(pci), macs: Vec::new() }))? {
            Observed::Strays(found) => Ok(found),
            _ => Err(mismatch()),
        }
    }

    /// Tries again to put back what others before have left on the function of `device`, whatever it
    /// was called then.
    pub(super) fn collect_debt(
        &mut self,
        wanted: &PrepareClaim,
        device: &Wanted,
    ) -> Result<(), AttachError> {
        let Some(pci) = device.found.as_ref().and_then(|found| found.pci.as_ref()) else {
            return Ok(());
        };
        let owing = self.select(|record| {
            let is_same = record.device.pci.as_ref().is_some_and(|it| it.address == pci.address);
            let is_over = matches!(record.phase, Phase::Preparing | Phase::Unpreparing);
            is_same && is_over && record.vf.is_some() && record.claim.uid != wanted.claim.uid
        });
        for record in owing {
            let (claim, message) = (record.claim.clone(), record.residue.join("; "));
            match self.settle_one(record) {
                Settled::Forgotten => {}
                _ => return Err(AttachError::Owed { device: device.name.clone(), claim, message }),
            }
        }
        Ok(())
    }

    /// The device's RDMA device, where it has to be moved to be used.
    pub(super) fn moving_rdma(
        &mut self,
        device: &Wanted,
        found: &Device,
    ) -> Result<Option<RdmaPlace>, AttachError> {
        let Some(name) = found.rdma_device.as_deref().filter(|_| found.form() != Form::Vfio) else {
            return Ok(None);
        };
        let unseen = |source| AttachError::Observe { device: device.name.clone(), source };
        match self.rdma(Place::Host, name, None).map_err(unseen)? {
            Some(seen) => Ok(seen.is_exclusive.then_some(seen.place)),
            None if found.form() == Form::Rdma => {
                Err(AttachError::NoSuchDevice { device: device.name.clone() })
            }
            None => {
                tracing::warn!(device = %device.name, name, "its RDMA device is not on the host");
                Ok(None)
            }
        }
    }

    /// The files of a record's RDMA device, which may have another name where it is by now.
    pub(super) fn files_of(&mut self, record: &Record) -> Result<Vec<PathBuf>, StepError> {
        let mut device = record.device.clone();
        if let (Some(place), Some(netns)) = (&record.rdma, record.phase.netns()) {
            let there = Place::Pod(netns.clone());
            if let Some(seen) = self.rdma(there, &place.name, Some(place.index))? {
                device.rdma_device = Some(seen.place.name);
            }
        }
        self.rdma_nodes(&device)
    }

    /// The files of the device's RDMA device as they are called now; they are numbered anew whenever its
    /// driver is loaded, or it moves. To find none is an error where there were some.
    pub(super) fn rdma_nodes(&mut self, device: &Device) -> Result<Vec<PathBuf>, StepError> {
        let Some(name) = device.rdma_device.clone() else { return Ok(Vec::new()) };
        let function = device.pci.as_ref().map(|pci| pci.address);
        match self.node.observe(&Subject::RdmaNodes { name: name.clone(), function })? {
            Observed::RdmaNodes(nodes) if nodes.is_empty() && !device.rdma_nodes.is_empty() => {
                let was: Vec<_> = device.rdma_nodes.iter().map(|it| it.to_string_lossy()).collect();
                let message = format!(
                    "its RDMA device {name} has no files any more, it had {}",
                    was.join(", ")
                );
                Err(StepError { message })
            }
            Observed::RdmaNodes(nodes) => Ok(nodes),
            _ => Err(mismatch()),
        }
    }

    /// What there is of the device's function now, where user space is to have it.
    pub(super) fn user_function(&mut self, device: &Device) -> Result<FunctionSeen, StepError> {
        let Some(pci) = &device.pci else { return Ok(FunctionSeen::default()) };
        match self.node.observe(&Subject::Function(pci.address))? {
            Observed::Function(seen) => Ok(seen.unwrap_or_default()),
            _ => Err(mismatch()),
        }
    }
}

/// What a physical function was told and cannot be put back now.
fn owed(vf: &VfRecord, error: StepError) -> Residue {
    let step = Step::SetVf { vf: vf.place.clone(), settings: vf.before.clone() };
    Residue { step, error }
}

/// Where a physical function is that was told something.
enum Whereabouts {
    /// On the host, with its virtual one.
    Here(VfPlace),
    /// In another namespace, or on the host and knows nothing of a virtual one that is there.
    Elsewhere,
    /// It or the virtual one is no more, and what it was told neither.
    Gone,
}

/// Why nothing can be told to a physical function.
enum Unreachable {
    Reason(String),
    Unseen(StepError),
}
