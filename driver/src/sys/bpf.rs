//! What the `bpf(2)` bindings of aya lack: links that are nothing but links, bpffs, the order of
//! programs, and reading many values at once.
//!
//! aya attaches by netlink where the kernel refuses a link with `EINVAL`, detaches when a link is
//! dropped, and cannot tell whether a link is still attached. A [`Link`] here does none of that.

use std::ffi::CString;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::asked;
use crate::model::IfIndex;

mod chain;
mod detach;
mod known;
mod values;

pub use self::chain::{Linked, chain, program_name};
#[cfg(feature = "testing")]
pub use self::detach::attach_program;
pub use self::detach::{detach_program, sever, xdp_links};
pub use self::known::{Kind, link, link_ids, program_ids, program_kind};
pub use self::values::{MapFacts, for_each_of_cpus, memory_bytes, value_of};

// Commands of bpf(2) (`enum bpf_cmd`, include/uapi/linux/bpf.h, Linux 6.12).
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

// `enum bpf_attach_type`, same file.
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// In front of all programs that are there; in the same file.
const BPF_F_BEFORE: u32 = 1 << 3;
/// In the driver, never generic (`include/uapi/linux/if_link.h`).
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where on an interface a link attaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Native XDP.
    Xdp,
    /// TCX on the way in, in front of other programs: one that ended the chain before ours would
    /// hide packets from it.
    TcxIngress,
    /// TCX on the way out, likewise in front.
    TcxEgress,
}

impl Place {
    fn attach_type(self) -> u32 {
        match self {
            Self::Xdp => BPF_XDP,
            Self::TcxIngress => BPF_TCX_INGRESS,
            Self::TcxEgress => BPF_TCX_EGRESS,
        }
    }
}

/// A `bpf_link`: what holds a program at its place. Dropping it closes the descriptor; the program
/// stays as long as there is a pin.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// A program that is pinned, so that it is there without a link. Dropping it closes the descriptor.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LinkFacts {
    /// `enum bpf_link_type`.
    pub kind: u32,
    pub id: u32,
    pub program: u32,
    /// The interface's index in whichever namespace it is now. `None` where the link is severed:
    /// detached, or its interface was deleted.
    pub interface: Option<IfIndex>,
}

// Members of `union bpf_attr`. Shorter than the union is fine: the kernel takes the rest as zero
// (`bpf_check_uarg_tail_zero()` in kernel/bpf/syscall.c checks longer ones only).

#[repr(C)]
struct PathAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    /// `tcx.relative_fd` and its padding, `tcx.expected_revision`; nothing for XDP.
    relative: u64,
    revision: u64,
}

#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct LinkDetachAttr {
    link: u32,
}

/// `struct bpf_link_info`, as far as XDP and TCX links fill it.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    /// Both `xdp.ifindex` and `tcx.ifindex`.
    interface: u32,
    rest: [u32; 11],
}

/// The start of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
}

/// Calls bpf(2).
fn bpf<Attr>(command: libc::c_int, attr: &mut Attr) -> io::Result<RawFd> {
    asked::note();
    // SAFETY: `attr` is a live `repr(C)` value of the size given, laid out as the command's member
    // of `union bpf_attr`. Addresses in it belong to values that the callers keep alive until this
    // returns, with at least the lengths given beside them.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<Attr>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// Like [`bpf`], for commands that answer with a new descriptor.
fn bpf_open<Attr>(command: libc::c_int, attr: &mut Attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the command has just opened this descriptor for us and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kernel's view of a descriptor, which is never negative.
fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn address_of(text: &CString) -> u64 {
    text.as_ptr().expose_provenance() as u64
}

impl Link {
    /// Attaches `program` to an interface of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// Nothing is attached then. `EBUSY`: there is another XDP program. `EOPNOTSUPP`: the driver has
    /// no native XDP. `ERANGE`: its MTU is too large for it. `EINVAL`: among others, no TCX in this
    /// kernel (before 6.6).
    pub fn create(program: BorrowedFd<'_>, interface: IfIndex, place: Place) -> io::Result<Self> {
        let flags = match place {
            Place::Xdp => XDP_FLAGS_DRV_MODE,
            Place::TcxIngress | Place::TcxEgress => BPF_F_BEFORE,
        };
        let mut attr = LinkCreateAttr {
            program: number(program),
            interface: interface.0,
            attach_type: place.attach_type(),
            flags,
            relative: 0,
            revision: 0,
        };
        bpf_open(BPF_LINK_CREATE, &mut attr).map(Self)
    }

    /// The link that is pinned at `path`.
    pub fn from_pin(path: &Path) -> io::Result<Self> {
        from_pin(path).map(Self)
    }

    /// Pins the link, so that it outlives this process.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.0.as_fd(), path)
    }

    /// Puts `program` in the place of the present one: each packet is seen by one of the two.
    ///
    /// # Errors
    ///
    /// The present program stays then. `ENOLINK`: the link is severed.
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attr = LinkUpdateAttr {
            link: number(self.0.as_fd()),
            new_program: number(program),
            flags: 0,
            old_program: 0,
        };
        bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
    }

    /// Detaches at once. Removing the last pin does so too, but some time later (the kernel puts
    /// links from a work queue), and until then another XDP program is refused with `EBUSY`.
    ///
    /// A severed link is detached already, and that is no error.
    pub fn detach(&self) -> io::Result<()> {
        let mut attr = LinkDetachAttr { link: number(self.0.as_fd()) };
        bpf(BPF_LINK_DETACH, &mut attr).map(drop)
    }

    /// What and where the link is now.
    pub fn facts(&self) -> io::Result<LinkFacts> {
        let mut info = LinkInfo::default();
        ask(self.0.as_fd(), &mut info)?;
        let LinkInfo { kind, id, program, interface, .. } = info;
        Ok(LinkFacts {
            kind,
            id,
            program,
            interface: (interface != 0).then_some(IfIndex(interface)),
        })
    }
}

impl Program {
    /// The program that is pinned at `path`.
    pub fn from_pin(path: &Path) -> io::Result<Self> {
        from_pin(path).map(Self)
    }

    pub fn id(&self) -> io::Result<u32> {
        let mut info = ProgramInfo::default();
        ask(self.0.as_fd(), &mut info)?;
        Ok(info.id)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Pins a program or a link, so that it outlives this process.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = PathAttr { path: address_of(&path), fd: number(object), flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

fn from_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = PathAttr { path: address_of(&path), fd: 0, flags: 0 };
    bpf_open(BPF_OBJ_GET, &mut attr)
}

/// Has the kernel fill `info`, which is the kernel's structure for that kind of object or its start.
fn ask<Facts>(object: BorrowedFd<'_>, info: &mut Facts) -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: number(object),
        len: u32::try_from(size_of::<Facts>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(info).expose_provenance() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// Mounts bpffs at `path`, for root only, unless it is there already.
pub fn mount_bpffs(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if statfs(path)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"))?;
    Ok(())
}

/// Makes a directory that only root may enter, with its parents, unless it is there already.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // An umask takes bits away, and a directory that was there may have more.
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}
