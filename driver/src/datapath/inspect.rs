//! What there is to see of a datapath, for people.

use std::path::Path;

use aya::programs::loaded_programs;
use serde::Serialize;

use super::layout::{BpffsLayout, Pin, PinPath};
use super::{DatapathError, Hook, clsact, facts_of, link_at};
use crate::model::{AttachmentId, DatapathSpec, IfIndex};
use crate::policy::{self, CompiledDirection};
use crate::sys::clock;

/// One hook as the kernel shows it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookFacts {
    /// `xdp`, `ingress` or `egress`.
    pub hook: &'static str,
    /// `None` where there is no link, because the program is attached as a filter of `clsact`.
    pub link_id: Option<u32>,
    /// Where the link is attached, by index in the namespace that the interface is in now. `None`:
    /// the interface is gone. Where a filter is, or whether it still is, only a visit could tell:
    /// `None` too.
    pub interface: Option<IfIndex>,
    pub program_id: u32,
    /// `None` where the kernel does not let us list programs.
    pub program: Option<ProgramFacts>,
}

/// One loaded program.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramFacts {
    pub name: String,
    /// The kernel's hash of the instructions: the same for the same build and the same features.
    pub tag: String,
    /// Machine code; zero where there is no JIT.
    pub jited_bytes: u32,
    pub translated_bytes: Option<u32>,
    /// What the verifier had to look at.
    pub verified_instructions: Option<u32>,
}

/// How the filter of one direction is compiled.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterForm {
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// `narrow` where one word has a bit for each entry, otherwise `wide`.
    pub form: &'static str,
    /// How many the rules became: one for each pair of networks.
    pub entries: usize,
}

/// How the filter of `spec` is compiled, in each direction that has one.
pub fn forms(spec: &DatapathSpec) -> Result<Vec<FilterForm>, DatapathError> {
    let Some(filter) = &spec.filter else { return Ok(Vec::new()) };
    let hz = clock::ticks_per_second().map_err(DatapathError::Clock)?;
    let compiled = policy::compile(filter, hz).map_err(DatapathError::Filter)?;
    let form = |direction, wished: bool, compiled: &CompiledDirection| {
        wished.then_some(FilterForm {
            direction,
            form: if compiled.ruleset.is_some() { "narrow" } else { "wide" },
            entries: compiled.entries,
        })
    };
    let both = [
        form("ingress", filter.ingress.is_some(), &compiled.ingress),
        form("egress", filter.egress.is_some(), &compiled.egress),
    ];
    Ok(both.into_iter().flatten().collect())
}

/// The hooks of `id`, in a fixed order; empty where nothing is installed. Works whether or not a
/// driver runs.
pub fn programs(bpffs: &Path, id: &AttachmentId) -> Result<Vec<HookFacts>, DatapathError> {
    let layout = BpffsLayout::new(bpffs);
    let mut hooks = Vec::new();
    for hook in Hook::ALL {
        hooks.extend(linked(&layout.pin(id, Pin::Link(hook)), hook)?);
        hooks.extend(filter(&layout.pin(id, Pin::Program(hook)), hook)?);
    }
    Ok(hooks)
}

fn linked(pin: &PinPath, hook: Hook) -> Result<Option<HookFacts>, DatapathError> {
    let Some(link) = link_at(pin)? else { return Ok(None) };
    let facts = facts_of(pin, &link)?;
    Ok(Some(HookFacts {
        hook: hook.name(),
        link_id: Some(facts.id),
        interface: facts.interface,
        program_id: facts.program,
        program: program(facts.program),
    }))
}

fn filter(pin: &PinPath, hook: Hook) -> Result<Option<HookFacts>, DatapathError> {
    let Some(program_id) = clsact::program_id_at(pin)? else { return Ok(None) };
    Ok(Some(HookFacts {
        hook: hook.name(),
        link_id: None,
        interface: None,
        program_id,
        program: program(program_id),
    }))
}

fn program(id: u32) -> Option<ProgramFacts> {
    let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id)?;
    Some(ProgramFacts {
        name: program.name_as_str().unwrap_or_default().to_owned(),
        tag: format!("{:016x}", program.tag()),
        jited_bytes: program.size_jitted(),
        translated_bytes: program.size_translated(),
        verified_instructions: program.verified_instruction_count(),
    })
}
