//! Who may start: the CDI specification of a claim is there while its devices are in their sandbox,
//! and only then.

use std::collections::BTreeSet;

use super::{Engine, mismatch};
use crate::attach::execute::put_back;
use crate::model::{ClaimUid, NetnsRef, Phase, Record};
use crate::node::{Node, StepError};
use crate::plan::{self, Observed, Step, Subject};

impl<N: Node> Engine<N> {
    /// What lets containers in that name a device of `records`, which are in `netns`: one step for
    /// each claim.
    pub(super) fn admission(
        &mut self,
        records: &[Record],
        netns: &NetnsRef,
    ) -> Result<Vec<Step>, StepError> {
        let claims: BTreeSet<_> = records.iter().map(|record| &record.claim.uid).collect();
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let Observed::Cookie(cookie) = self.node.observe(&Subject::Cookie(netns.clone()))? else {
            return Err(mismatch());
        };
        let specs = claims.into_iter().filter_map(|claim| {
            plan::cdi(records.iter().filter(|record| record.claim.uid == *claim), cookie)
        });
        Ok(specs.map(|spec| Step::WriteCdi { spec }).collect())
    }

    /// Lets no more containers in. Where that fails, the gate in the specification still refuses
    /// those of another sandbox.
    pub(super) fn shut_out(&mut self, claims: impl IntoIterator<Item = ClaimUid>) {
        let claims: BTreeSet<_> = claims.into_iter().collect();
        put_back(&mut self.node, claims.into_iter().map(|claim| Step::RemoveCdi { claim }));
    }

    /// Brings all specifications in line with what is attached: after a start, and when the runtime
    /// has told which sandboxes it has.
    pub(super) fn reconcile_admissions(&mut self) {
        let mut attached = self.select(|record| matches!(record.phase, Phase::Attached { .. }));
        for record in attached.iter_mut().filter(|record| record.subinterface.is_none()) {
            // Its driver may have been loaded anew while nobody was there.
            match self.files_of(record) {
                Ok(nodes) => record.device.rdma_nodes = nodes,
                Err(error) => {
                    let device = &record.device.name;
                    tracing::warn!(%device, %error, "files of its RDMA device stay as recorded");
                }
            }
        }
        match self.node.observe(&Subject::AllCdi) {
            Ok(Observed::AllCdi(mut claims)) => {
                claims.retain(|claim| !attached.iter().any(|r| r.claim.uid == *claim));
                self.shut_out(claims);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot look for stale CDI specifications"),
        }
        let mut rest = attached;
        while let Some(netns) = rest.first().and_then(|record| record.phase.netns().cloned()) {
            let (here, others) =
                rest.into_iter().partition(|record| record.phase.netns() == Some(&netns));
            rest = others;
            let here: Vec<Record> = here;
            match self.admission(&here, &netns) {
                Ok(steps) => drop(put_back(&mut self.node, steps)),
                Err(error) => {
                    // No namespace, no specification: nothing could start in there.
                    tracing::warn!(%error, netns = %netns.id, "no containers are let in");
                    self.shut_out(here.into_iter().map(|record| record.claim.uid));
                }
            }
        }
    }
}
