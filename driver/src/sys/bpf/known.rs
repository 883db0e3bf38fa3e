//! Which programs and links there are on this machine, in all namespaces, whoever made them.
//!
//! Listing ids takes no lock that anybody else would wait for (`bpf_get_next_id()` in
//! `kernel/bpf/syscall.c`, Linux 6.12); each takes a call.

use std::io;
use std::os::fd::AsFd as _;

use nix::libc;

use super::chain::{IdAttr, open_program};
use super::{Link, LinkFacts, ProgramInfo, ask, bpf, bpf_open};

// Commands of bpf(2) (`include/uapi/linux/bpf.h`, Linux 6.12).
const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;

/// Numbers of `enum bpf_link_type` and `enum bpf_prog_type`, in the same file.
#[derive(Debug)]
pub enum Kind {}

impl Kind {
    /// `BPF_LINK_TYPE_XDP`.
    pub const XDP_LINK: u32 = 6;
    /// `BPF_LINK_TYPE_TCX`.
    pub const TCX_LINK: u32 = 11;
    /// `BPF_PROG_TYPE_SCHED_CLS`, which TCX takes.
    pub const CLASSIFIER: u32 = 3;
}

impl Link {
    /// The link with this number, whoever made it.
    pub(super) fn from_id(id: u32) -> io::Result<Self> {
        let mut attr = IdAttr { id, next: 0, flags: 0 };
        bpf_open(BPF_LINK_GET_FD_BY_ID, &mut attr).map(Self)
    }
}

/// The ids of all loaded programs, ascending.
pub fn program_ids() -> io::Result<Vec<u32>> {
    ids(BPF_PROG_GET_NEXT_ID)
}

/// The ids of all links, ascending.
pub fn link_ids() -> io::Result<Vec<u32>> {
    ids(BPF_LINK_GET_NEXT_ID)
}

/// What a link is; `None` where it has ended.
pub fn link(id: u32) -> io::Result<Option<LinkFacts>> {
    unless_gone(Link::from_id(id).and_then(|link| link.facts()))
}

/// The kind of a program; `None` where it is not loaded any more.
pub fn program_kind(id: u32) -> io::Result<Option<u32>> {
    unless_gone(open_program(id).and_then(|program| {
        let mut info = ProgramInfo::default();
        ask(program.as_fd(), &mut info)?;
        Ok(info.kind)
    }))
}

fn ids(command: libc::c_int) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut attr = IdAttr { id: 0, next: 0, flags: 0 };
    loop {
        match bpf(command, &mut attr) {
            Ok(_) => attr.id = attr.next,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(error) => return Err(error),
        }
        found.push(attr.id);
    }
}

fn unless_gone<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
