//! Takes programs of others off an interface. Ours are released by their pins, never by this.

use std::io;

use nix::libc;

use super::chain::open_program;
use super::known::{Kind, link, link_ids};
use super::{Link, Place, bpf, number};
use crate::model::IfIndex;

// A command of bpf(2) (`include/uapi/linux/bpf.h`, Linux 6.12).
const BPF_PROG_DETACH: libc::c_int = 9;

/// `BPF_PROG_DETACH` and its opposite in `union bpf_attr`.
#[repr(C)]
struct ProgramDetachAttr {
    interface: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replace: u32,
    relative: u32,
    revision: u64,
}

/// Severs a link, wherever its interface is. Whoever holds it keeps it, and it holds nothing any
/// more. One that is gone meanwhile is no error.
pub fn sever(link: u32) -> io::Result<()> {
    unless_gone(Link::from_id(link).and_then(|link| link.detach()))
}

/// Detaches a TCX program that has no link from an interface of the calling thread's namespace.
pub fn detach_program(interface: IfIndex, place: Place, program: u32) -> io::Result<()> {
    let detach = || {
        let program = open_program(program)?;
        let mut attr = ProgramDetachAttr {
            interface: interface.0,
            program: number(std::os::fd::AsFd::as_fd(&program)),
            attach_type: place.attach_type(),
            flags: 0,
            replace: 0,
            relative: 0,
            revision: 0,
        };
        bpf(BPF_PROG_DETACH, &mut attr).map(drop)
    };
    unless_gone(detach())
}

/// Attaches a TCX program without a link, as somebody else may.
#[cfg(feature = "testing")]
pub fn attach_program(interface: IfIndex, place: Place, program: u32) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    let program = open_program(program)?;
    let mut attr = ProgramDetachAttr {
        interface: interface.0,
        program: number(std::os::fd::AsFd::as_fd(&program)),
        attach_type: place.attach_type(),
        flags: 0,
        replace: 0,
        relative: 0,
        revision: 0,
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

fn unless_gone(detached: io::Result<()>) -> io::Result<()> {
    match detached {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// The links by which `program` is attached as XDP to an interface of this index, in whichever
/// namespace: a link does not say which.
pub fn xdp_links(interface: IfIndex, program: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for id in link_ids()? {
        // One that is gone ended between being listed and being looked at.
        let Some(facts) = link(id)? else { continue };
        let is_here = facts.interface == Some(interface) && facts.program == program;
        if facts.kind == Kind::XDP_LINK && is_here {
            found.push(facts.id);
        }
    }
    Ok(found)
}
