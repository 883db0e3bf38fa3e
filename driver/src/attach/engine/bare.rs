//! Devices without a network interface: an RDMA device alone, or a function that user space drives.

use super::Engine;
use super::draft::Draft;
use crate::attach::{AttachError, PrepareClaim, Wanted};
use crate::model::{AttachmentId, Device, Form, InterfaceState, NetnsRef, Record, VFIO_DRIVER};
use crate::node::{Node, StepError};
use crate::plan::{self, DatapathState, FunctionSeen, Seen};

impl<N: Node> Engine<N> {
    pub(super) fn draft_bare(
        &mut self,
        wanted: &PrepareClaim,
        device: &Wanted,
        mut found: Device,
    ) -> Result<Draft, AttachError> {
        let unseen = |source| AttachError::Observe { device: device.name.clone(), source };
        let impossible = |reason| AttachError::Impossible { device: device.name.clone(), reason };
        plan::without_interface(&device.wishes)
            .map_err(|problems| impossible(problems.to_string()))?;
        let id = AttachmentId {
            claim: wanted.claim.uid.clone(),
            device: device.name.clone(),
            share: device.share.clone(),
        };
        if self.with_kept(&id, &device.wishes)?.0.is_some() {
            let reason = "the device has no network interface".to_owned();
            return Err(AttachError::KeptPolicy { device: id.device, claim: id.claim, reason });
        }
        if found.form() == Form::Vfio {
            let seen = self.user_function(&found).map_err(unseen)?;
            self.check_group(wanted, &seen).map_err(impossible)?;
            found.iommu_group = seen.iommu_group;
        }
        found.rdma_nodes = self.rdma_nodes(&found).map_err(unseen)?;
        let rdma = self.moving_rdma(device, &found)?;
        let mut record = self.blank(wanted, device, found, InterfaceState::none());
        record.rdma = rdma;
        Ok(Draft { record, settings: Vec::new() })
    }

    /// Whoever has one function of an IOMMU group can reach what the others write, and the kernel
    /// lets only one open the group (`vfio_group_fops_open()` in `drivers/vfio/group.c`, Linux 6.12),
    /// and nobody while a driver of its own uses any of it (`iommu_group_claim_dma_owner()` in
    /// `drivers/iommu/iommu.c`).
    fn check_group(&self, wanted: &PrepareClaim, seen: &FunctionSeen) -> Result<(), String> {
        match seen.driver.as_deref() {
            Some(VFIO_DRIVER) => {}
            Some(driver) => return Err(format!("{driver} drives it, and {VFIO_DRIVER} no more")),
            None => return Err(format!("{VFIO_DRIVER} does not drive it any more")),
        }
        let Some(group) = seen.iommu_group else {
            return Err(
                "it is in no IOMMU group, so there is no file to hand over; those of VFIO's \
                        noiommu mode never are, since they open all memory"
                    .to_owned(),
            );
        };
        if !seen.held_up_by.is_empty() {
            let functions: Vec<_> = seen.held_up_by.iter().map(ToString::to_string).collect();
            return Err(format!(
                "its IOMMU group {group} cannot be used: drivers of the kernel use {} of it",
                functions.join(", ")
            ));
        }
        let is_other = |record: &&Record| {
            record.device.form() == Form::Vfio
                && record.device.iommu_group == Some(group)
                && record.claim.uid != wanted.claim.uid
        };
        match self.checkpoint.records().find(is_other) {
            None => Ok(()),
            Some(record) => Err(format!(
                "its IOMMU group {group} is in use by claim {}, with {}",
                record.claim, record.device.name
            )),
        }
    }

    pub(super) fn look_for_bare(&mut self, record: &Record) -> Result<Seen, StepError> {
        let is_namespace_there = match record.phase.netns().cloned() {
            Some(netns) => self.is_namespace_there(&netns)?,
            None => false,
        };
        Ok(Seen {
            on_host: None,
            in_pod: None,
            strays: Vec::new(),
            datapath: DatapathState::Absent,
            is_namespace_there,
            is_rdma_home: self.is_rdma_home(record)?,
        })
    }

    pub(super) fn is_bare_in_pod(
        &mut self,
        record: &Record,
        netns: &NetnsRef,
    ) -> Result<bool, AttachError> {
        let device = || record.device.name.clone();
        let unseen = |source| AttachError::Observe { device: device(), source };
        let is_there = self.is_namespace_there(netns).map_err(unseen)?;
        Ok(is_there && !self.is_rdma_home(record).map_err(unseen)?)
    }
}
