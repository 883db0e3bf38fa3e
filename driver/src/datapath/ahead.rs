//! Finds programs of others that run before ours. They are told of and never touched.

use std::io;
use std::path::Path;

use super::layout::{BpffsLayout, Pin};
use super::{DatapathError, Hook, facts_of, link_at};
use crate::model::{Ahead, By, IfIndex, IngressHook, Phase, Record};
use crate::sys::bpf::{self, Linked, Place};
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::netns::{Netns, NetnsError};

/// Why nobody can tell what runs before ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AheadError {
    #[error("look for our own program")]
    Ours(#[from] DatapathError),

    #[error("visit the sandbox")]
    Netns(#[from] NetnsError),

    #[error("ask for the programs of {hook} at interface {interface}")]
    Query { hook: Hook, interface: IfIndex, source: io::Error },

    #[error("ask for XDP programs")]
    Xdp(#[from] NetlinkError),

    /// The interface has just gone elsewhere, or our link is severed.
    #[error("our program of {hook} is not at interface {interface}")]
    Elsewhere { hook: Hook, interface: IfIndex },
}

impl AheadError {
    /// Whether this is what happens when a pod ends in the moment of the question.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Ours(error) => matches!(error, DatapathError::Severed { .. }),
            Self::Netns(error) => error.is_gone(),
            Self::Query { source, .. } => source.raw_os_error() == Some(nix::libc::ENODEV),
            Self::Xdp(_) => false,
            Self::Elsewhere { .. } => true,
        }
    }
}

/// The programs that run before ours at the hooks of `record`, wherever its interface is.
///
/// Our XDP program is alone at its place, so nothing is ever before it. Where ours is behind, any XDP
/// program of the interface comes first, in whichever mode. At `clsact` there is no order of links, so
/// only XDP programs are found there, and finding none says nothing.
///
/// Blocks: it makes a thread that enters the sandbox's namespace.
pub fn ahead(bpffs: &Path, record: &Record) -> Result<Ahead, AheadError> {
    let Some(spec) = &record.datapath else { return Ok(Ahead::default()) };
    let is_first = matches!(spec.ingress, IngressHook::Xdp | IngressHook::XdpFrags);
    let ours = ours(bpffs, record)?;
    let interface = ours.first().map(|ours| ours.interface).or(record.phase.inside());
    let find = || -> Result<Ahead, AheadError> {
        let mut ahead = Ahead { ingress: is_first.then(Vec::new), egress: None };
        for ours in &ours {
            let names = Some(ours.names_before()?);
            match ours.hook {
                Hook::Egress => ahead.egress = names,
                _ => ahead.ingress = names,
            }
        }
        if let Some(interface) = interface.filter(|_| !is_first) {
            let names = xdp_names(interface)?;
            if !names.is_empty() {
                ahead.ingress.get_or_insert_default().splice(0..0, names);
            }
        }
        Ok(ahead)
    };
    match &record.phase {
        Phase::Attached { netns, .. } => Netns::open_ref(netns)?.run(|_| find())?,
        _ => find(),
    }
}

/// Our links among others', those at TCX.
fn ours(bpffs: &Path, record: &Record) -> Result<Vec<Ours>, AheadError> {
    let mut ours = Vec::new();
    for (hook, place) in [(Hook::Ingress, Place::TcxIngress), (Hook::Egress, Place::TcxEgress)] {
        let pin = BpffsLayout::new(bpffs).pin(&record.id(), Pin::Link(hook));
        let Some(link) = link_at(&pin)? else { continue };
        let facts = facts_of(&pin, &link)?;
        let Some(interface) = facts.interface else {
            return Err(DatapathError::Severed { path: pin.into() }.into());
        };
        ours.push(Ours { hook, place, interface, link: facts.id });
    }
    Ok(ours)
}

/// The XDP programs of an interface of the calling thread's namespace, none of which is ours.
fn xdp_names(interface: IfIndex) -> Result<Vec<String>, AheadError> {
    let facts = Netlink::open()?
        .link(&By::Index(interface))?
        .ok_or(AheadError::Elsewhere { hook: Hook::Ingress, interface })?;
    Ok(facts.xdp_programs.into_iter().map(name).collect())
}

/// Where one of our links is.
#[derive(Clone, Copy)]
struct Ours {
    hook: Hook,
    place: Place,
    interface: IfIndex,
    link: u32,
}

impl Ours {
    /// In the namespace of the calling thread.
    fn names_before(&self) -> Result<Vec<String>, AheadError> {
        let &Self { hook, interface, .. } = self;
        let chain = bpf::chain(interface, self.place).map_err(|source| AheadError::Query {
            hook,
            interface,
            source,
        })?;
        let before = before(&chain, self.link).ok_or(AheadError::Elsewhere { hook, interface })?;
        Ok(before.iter().map(|other| name(other.program)).collect())
    }
}

/// What runs before our link; `None` where that is not there.
fn before(chain: &[Linked], ours: u32) -> Option<&[Linked]> {
    let at = chain.iter().position(|linked| linked.link == Some(ours))?;
    chain.get(..at)
}

/// A program's name, and its number where it has none or has just ended.
fn name(program: u32) -> String {
    match bpf::program_name(program) {
        Ok(name) if !name.is_empty() => name,
        _ => format!("program {program}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_front_of_our_link_is_ahead() {
        let linked = |program, link| Linked { program, link };
        let chain =
            [linked(7, Some(70)), linked(8, None), linked(9, Some(90)), linked(5, Some(50))];
        assert_eq!(before(&chain, 90), Some(&chain[..2]));
        assert_eq!(before(&chain, 70), Some(&chain[..0]));
        // The number of a program is no number of a link.
        assert_eq!(before(&chain, 8), None);
    }
}
