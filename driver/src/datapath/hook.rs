//! The places of an interface where programs sit.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use crate::model::{DatapathSpec, EgressHook, IfIndex, IngressHook};
use crate::sys::bpf::{Link, Place};

/// One program at one place of one interface.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hook {
    /// Ingress by native XDP.
    Xdp,
    /// Ingress by TCX, or by a filter of `clsact`.
    Ingress,
    /// Egress likewise.
    Egress,
}

impl Hook {
    pub const ALL: [Self; 3] = [Self::Xdp, Self::Ingress, Self::Egress];

    /// The hooks of `spec`: one for each direction, whatever the programs have to do there. One
    /// that has nothing to do returns at once.
    pub(super) fn of(spec: &DatapathSpec) -> [Self; 2] {
        match spec.ingress {
            IngressHook::Xdp | IngressHook::XdpFrags => [Self::Xdp, Self::Egress],
            IngressHook::Tcx | IngressHook::Clsact => [Self::Ingress, Self::Egress],
        }
    }

    /// Whether it is a filter of `clsact`, and not a link: see [`super::clsact`].
    pub(super) fn is_filter(self, spec: &DatapathSpec) -> bool {
        match self {
            Self::Xdp => false,
            Self::Ingress => spec.ingress == IngressHook::Clsact,
            Self::Egress => spec.egress == EgressHook::Clsact,
        }
    }

    /// One word of a closed set, for labels and tables; also the name of the link's pin.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// Attaches `program` here by a link, in the calling thread's namespace.
    pub(super) fn attach(self, program: BorrowedFd<'_>, index: IfIndex) -> io::Result<Link> {
        let place = match self {
            Self::Xdp => Place::Xdp,
            Self::Ingress => Place::TcxIngress,
            Self::Egress => Place::TcxEgress,
        };
        Link::create(program, index, place)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
