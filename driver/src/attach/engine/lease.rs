//! Addresses that a DHCP server lends: recorded here, and put on what is in a sandbox already.

use super::Engine;
use crate::attach::execute::put_back;
use crate::attach::{AttachError, NoticeKind, Tenancy};
use crate::model::{At, AttachmentId, By, Phase, Place, Record};
use crate::node::Node;
use crate::plan;

impl<N: Node> Engine<N> {
    /// Has an attachment have the address that a server lent, or none.
    pub(super) fn set_lease(
        &mut self,
        id: &AttachmentId,
        tenancy: Tenancy,
    ) -> Result<Record, AttachError> {
        let gone = || AttachError::NoSuchDevice { device: id.device.clone() };
        let before = self.checkpoint.record(id).cloned().ok_or_else(gone)?;
        if !before.wishes.interface.dhcp || before.phase == Phase::Unpreparing {
            return Err(gone());
        }
        let (lease, loss) = match tenancy {
            Tenancy::Held(lease) => (Some(lease), None),
            Tenancy::Lost(why) => (None, Some(why)),
        };
        let after = Record { lease, ..before.clone() };
        self.record(&id.device, [after.clone()])?;
        if let Some(why) = loss {
            self.tell(&after, NoticeKind::LeaseLost, why);
        }
        self.relet(&before, &after)?;
        Ok(after)
    }

    fn relet(&mut self, before: &Record, after: &Record) -> Result<(), AttachError> {
        let Phase::Attached { netns, inside } = &after.phase else { return Ok(()) };
        let device = || after.device.name.clone();
        let place = Place::Pod(netns.clone());
        let unseen = |source| AttachError::Observe { device: device(), source };
        let found = self.interface(place.clone(), By::Index(*inside)).map_err(unseen)?;
        // What has left its pod has lost its addresses as well.
        let Some(found) = found else { return Ok(()) };
        let steps = plan::relet(before, after, &At { place, interface: found.name });
        let mut left = put_back(&mut self.node, steps);
        let residue: Vec<_> = left.iter().skip(1).map(ToString::to_string).collect();
        if left.is_empty() {
            return Ok(());
        }
        let first = left.remove(0);
        Err(AttachError::Step {
            device: device(),
            step: Box::new(first.step),
            residue,
            source: first.error,
        })
    }
}
