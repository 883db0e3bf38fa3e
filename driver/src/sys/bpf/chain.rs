//! Which programs run at a place of an interface, and in which order.

use std::io;
use std::os::fd::OwnedFd;

use nix::libc;

use super::{BPF_OBJ_GET_INFO_BY_FD, InfoAttr, Place, bpf, bpf_open, number};
use crate::model::IfIndex;

const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;

/// More than the kernel lets attach (`BPF_MPROG_MAX`, `include/linux/bpf_mprog.h`, Linux 6.12).
const CHAIN: usize = 64;

/// One program of a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Linked {
    pub program: u32,
    /// `None` for a program that is attached without a link.
    pub link: Option<u32>,
}

/// `struct { … } query` of `union bpf_attr`.
#[repr(C)]
struct QueryAttr {
    interface: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
pub(super) struct IdAttr {
    pub(super) id: u32,
    pub(super) next: u32,
    pub(super) flags: u32,
}

/// `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before: [u64; 8],
    name: [u8; 16],
}

/// The programs at `place` of an interface of the calling thread's namespace, in the order in which
/// they run. Of XDP there is one at most, and this does not tell.
///
/// # Errors
///
/// `ENODEV`: there is no such interface. `EINVAL`: among others, no TCX in this kernel.
pub fn chain(interface: IfIndex, place: Place) -> io::Result<Vec<Linked>> {
    let (mut programs, mut links) = ([0_u32; CHAIN], [0_u32; CHAIN]);
    let mut attr = QueryAttr {
        interface: interface.0,
        attach_type: place.attach_type(),
        query_flags: 0,
        attach_flags: 0,
        program_ids: programs.as_mut_ptr().expose_provenance() as u64,
        count: u32::try_from(CHAIN).map_err(io::Error::other)?,
        padding: 0,
        program_attach_flags: 0,
        link_ids: links.as_mut_ptr().expose_provenance() as u64,
        link_attach_flags: 0,
        revision: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    let count = usize::try_from(attr.count).map_err(io::Error::other)?;
    let linked =
        |(&program, &link): (&u32, &u32)| Linked { program, link: (link != 0).then_some(link) };
    Ok(programs.iter().zip(&links).take(count).map(linked).collect())
}

pub(super) fn open_program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { id, next: 0, flags: 0 };
    bpf_open(BPF_PROG_GET_FD_BY_ID, &mut attr)
}

/// What a loaded program is called: at most 15 bytes, and nothing for some.
///
/// # Errors
///
/// `ENOENT`: it is not loaded any more.
pub fn program_name(id: u32) -> io::Result<String> {
    let program = open_program(id)?;
    let mut info = ProgramInfo::default();
    let mut attr = InfoAttr {
        fd: number(std::os::fd::AsFd::as_fd(&program)),
        len: u32::try_from(size_of::<ProgramInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info).expose_provenance() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let name = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}
