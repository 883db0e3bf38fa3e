//! What eBPF can do on an interface, and which programs are there now.
//!
//! Everything here asks the kernel about the network namespace of the calling thread.

use std::io;

use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramError, SchedClassifier, loaded_programs};
use nix::libc;

use crate::model::{IfIndex, IfName, XdpFeatures};

/// Why the kernel did not tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    #[error("query the XDP features of interface {index}")]
    Features { index: IfIndex, source: io::Error },

    #[error("list the TCX programs of interface {interface}")]
    Tcx { interface: IfName, source: Box<ProgramError> },

    #[error("list the loaded programs")]
    Programs(#[source] Box<ProgramError>),
}

/// What the interface's driver can do with XDP, by libbpf's `bpf_xdp_query()`.
///
/// `None` where nobody can tell: the kernel is older than 6.3, or the driver was built without the
/// feature `libbpf`. An interface that cannot do anything has no bits set, as `lo`.
///
/// Takes as long as listing all interfaces, which libbpf does on the way.
///
/// # Errors
///
/// [`XdpError::Features`], with `ENODEV` when the interface is gone.
pub fn features(index: IfIndex) -> Result<Option<XdpFeatures>, XdpError> {
    query_features(index).map_err(|source| XdpError::Features { index, source })
}

#[cfg(not(feature = "libbpf"))]
#[expect(clippy::unnecessary_wraps, reason = "the other build of this function can fail")]
fn query_features(_: IfIndex) -> io::Result<Option<XdpFeatures>> {
    Ok(None)
}

#[cfg(feature = "libbpf")]
fn query_features(index: IfIndex) -> io::Result<Option<XdpFeatures>> {
    // libbpf leaves this field alone where the kernel has no family `netdev` to ask, and sets the
    // features to 0 then, as for an interface that has none (`bpf_xdp_query()` in
    // `src/netlink.c`, libbpf 1.7).
    const UNTOUCHED: u32 = u32::MAX;

    silence_libbpf();
    let index =
        libc::c_int::try_from(index.0).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let mut answer = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        xdp_zc_max_segs: UNTOUCHED,
        ..Default::default()
    };
    // SAFETY: `answer` is a valid `bpf_xdp_query_opts` whose size is in `sz`, and libbpf keeps no
    // pointer to it.
    let status = unsafe { libbpf_sys::bpf_xdp_query(index, 0, &raw mut answer) };
    if status != 0 {
        return Err(io::Error::from_raw_os_error(status.saturating_abs()));
    }
    let has_answered = answer.xdp_zc_max_segs != UNTOUCHED;
    Ok(has_answered.then_some(XdpFeatures(answer.feature_flags)))
}

/// libbpf would write to stderr by itself.
#[cfg(feature = "libbpf")]
fn silence_libbpf() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: no function takes the place of libbpf's own, which libbpf allows, and it exchanges
        // the two atomically.
        let _ = unsafe { libbpf_sys::libbpf_set_print(None) };
    });
}

/// Whether the kernel takes TCX programs (6.6 and later).
///
/// # Errors
///
/// [`XdpError::Tcx`], with `EPERM` without `CAP_NET_ADMIN`.
pub fn has_tcx(interface: &IfName) -> Result<bool, XdpError> {
    match query_tcx(interface, TcAttachType::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if errno(&error) == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(XdpError::Tcx { interface: interface.clone(), source: Box::new(error) }),
    }
}

/// Names of the interface's TCX programs in both directions, in the order of the kernel.
///
/// # Errors
///
/// [`XdpError::Tcx`], also when the interface is gone or the kernel has no TCX.
pub fn tcx_programs(interface: &IfName) -> Result<Vec<String>, XdpError> {
    let mut names = Vec::new();
    for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
        let found = query_tcx(interface, direction).map_err(|error| XdpError::Tcx {
            interface: interface.clone(),
            source: Box::new(error),
        })?;
        names.extend(found);
    }
    Ok(names)
}

fn query_tcx(interface: &IfName, direction: TcAttachType) -> Result<Vec<String>, ProgramError> {
    match SchedClassifier::query_tcx(interface.as_str(), direction) {
        Ok((_, programs)) => {
            Ok(programs.iter().map(|program| name(program.name_as_str())).collect())
        }
        // Nothing was ever attached there (`tcx_prog_query()` in `kernel/bpf/tcx.c`, Linux 6.12), or
        // a program went while we asked for its name.
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Names of the programs with these ids, in no order. Ids that mean nothing any more are passed over.
pub fn program_names(ids: &[u32]) -> Result<Vec<String>, XdpError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for program in loaded_programs() {
        match program {
            Ok(program) if ids.contains(&program.id()) => names.push(name(program.name_as_str())),
            Ok(_) => {}
            // It was unloaded between being listed and being looked at.
            Err(error) if errno(&error) == Some(libc::ENOENT) => {}
            Err(error) => return Err(XdpError::Programs(Box::new(error))),
        }
    }
    Ok(names)
}

/// A program may have been loaded without a name.
fn name(name: Option<&str>) -> String {
    name.filter(|name| !name.is_empty()).unwrap_or("unnamed").to_owned()
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

impl XdpError {
    /// Whether the interface is not there any more.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Features { source, .. } => source.raw_os_error() == Some(libc::ENODEV),
            Self::Tcx { source, .. } => {
                matches!(**source, ProgramError::TcError(_)) || errno(source) == Some(libc::ENODEV)
            }
            Self::Programs(_) => false,
        }
    }
}
