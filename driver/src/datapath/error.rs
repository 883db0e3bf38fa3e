use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use nix::errno::Errno;

use super::Hook;
use crate::model::{AttachmentId, IfIndex, IfName, Problems};
use crate::sys::netlink::NetlinkError;

/// Why a datapath could not be installed, replaced, removed or looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatapathError {
    #[error("this build has no eBPF object: run `cargo xtask ebpf` and build again")]
    NoObject,

    #[error("read the eBPF object of this build")]
    Object(#[source] object::Error),

    #[error("ask for the resolution of the kernel's clock")]
    Clock(#[source] io::Error),

    #[error("mount bpffs at {}", .path.display())]
    Mount { path: PathBuf, source: io::Error },

    #[error("directory {}", .path.display())]
    Directory { path: PathBuf, source: io::Error },

    #[error("look up interface {interface}: {errno}")]
    Interface { interface: IfName, errno: Errno },

    /// The filter cannot be compiled; it was checked when the claim was parsed, so this build
    /// knows other limits than the one that did.
    #[error("compile the filter")]
    Filter(#[source] Problems),

    /// The object file or its maps were refused.
    #[error("load the eBPF object")]
    Load(#[source] Box<EbpfError>),

    /// The verifier refused a program; its log is in the cause.
    #[error("load program {program}")]
    Program { program: &'static str, source: Box<ProgramError> },

    #[error("map {map}")]
    Map { map: &'static str, source: Box<MapError> },

    /// The object file lacks something that the loader looks for by name.
    #[error("the eBPF object has no {name}")]
    Missing { name: &'static str },

    /// The kernel refused the link. There is no other way to attach, on purpose.
    #[error("attach {hook} to {interface}")]
    Attach { hook: Hook, interface: IfName, source: io::Error },

    #[error("filter {hook} of interface {interface}")]
    Filters { hook: Hook, interface: IfIndex, source: NetlinkError },

    /// Somebody else's filter, which is not ours to remove.
    #[error("filter {hook} of interface {interface}: {name:?} is in its place")]
    Occupied { hook: Hook, interface: IfIndex, name: String },

    #[error("pin {}", .path.display())]
    Pin { path: PathBuf, source: io::Error },

    #[error("open {}", .path.display())]
    Open { path: PathBuf, source: io::Error },

    /// The interface is gone, and what was attached to it with it.
    #[error("{} is no longer attached to an interface", .path.display())]
    Severed { path: PathBuf },

    #[error("datapath {id} is not installed: there is no {}", .missing.display())]
    NotInstalled { id: AttachmentId, missing: PathBuf },

    #[error("replace the program of {}", .path.display())]
    Replace { path: PathBuf, source: io::Error },

    #[error("detach {}", .path.display())]
    Detach { path: PathBuf, source: io::Error },

    #[error("remove {}", .path.display())]
    Remove { path: PathBuf, source: io::Error },
}

impl DatapathError {
    /// The value of the `reason` metric label: one of a fixed set, free of names and numbers.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoObject | Self::Object(_) => "no_object",
            Self::Clock(_) => "clock",
            Self::Mount { .. } => "mount",
            Self::Directory { .. } => "directory",
            Self::Interface { .. } => "interface",
            Self::Filter(_) => "filter",
            Self::Load(_) | Self::Missing { .. } => "load",
            Self::Program { .. } => "program",
            Self::Map { .. } => "map",
            Self::Attach { .. } => "attach",
            Self::Filters { .. } => "filters",
            Self::Occupied { .. } => "occupied",
            Self::Pin { .. } => "pin",
            Self::Open { .. } => "open",
            Self::Severed { .. } => "severed",
            Self::NotInstalled { .. } => "not_installed",
            Self::Replace { .. } => "replace",
            Self::Detach { .. } => "detach",
            Self::Remove { .. } => "remove",
        }
    }
}
