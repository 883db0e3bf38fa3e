//! Looks whether a prepared device is as it was left: its link in the pod, and its datapath.

use std::error::Error;
use std::path::Path;

use super::layout::BpffsLayout;
use super::{AheadError, observe};
use crate::model::{By, IfIndex, LinkSight, NetnsRef, Phase, Record, Vitals};
use crate::plan::DatapathState;
use crate::sys::netlink::Netlink;
use crate::sys::netns::Netns;

/// What there is to see of `record`, wherever its interface is. What cannot be looked at is left out:
/// another look follows soon, and a sandbox may be ending just now.
///
/// Blocks: where the device is in a sandbox, it makes a thread that enters it.
pub fn vitals(bpffs: &Path, record: &Record) -> Vitals {
    let link = match &record.phase {
        Phase::Attached { netns, inside } => match link(netns, *inside) {
            Ok(link) => Some(link),
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::debug!(attachment = %record.id(), error, "cannot look at the link");
                None
            }
        },
        _ => None,
    };
    let state = record.datapath.as_ref().map(|_| observe(&BpffsLayout::new(bpffs), &record.id()));
    let is_whole = match state {
        Some(Ok(state)) => Some(state == DatapathState::Attached),
        Some(Err(_)) | None => None,
    };
    Vitals { link, is_whole }
}

fn link(netns: &NetnsRef, inside: IfIndex) -> Result<LinkSight, AheadError> {
    let look = move || Netlink::open()?.link(&By::Index(inside));
    let facts = Netns::open_ref(netns)?.run(|_| look())??;
    Ok(facts.map_or(LinkSight::Gone, |facts| LinkSight::of(facts.up, &facts.oper_state)))
}
