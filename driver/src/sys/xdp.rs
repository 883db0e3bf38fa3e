//! Which programs are on an interface now, whoever attached them. What its driver can do with XDP is
//! told by [`netdev`](super::netdev).
//!
//! Everything here asks the kernel about the network namespace of the calling thread.

use std::io;

use nix::libc;

use super::bpf::{self, Place};
use crate::model::IfIndex;

#[cfg(feature = "libbpf")]
pub use self::libbpf::features_by_libbpf;

/// Why the kernel did not tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    #[error("list the TCX programs of interface {index}")]
    Tcx { index: IfIndex, source: io::Error },

    #[error("look at program {id}")]
    Program { id: u32, source: io::Error },
}

/// The loopback interface of every namespace (`LOOPBACK_IFINDEX`, `include/net/net_namespace.h`, Linux
/// 6.12).
const LOOPBACK: IfIndex = IfIndex(1);

/// Whether the kernel takes TCX programs (6.6 and later).
///
/// # Errors
///
/// [`XdpError::Tcx`], with `EPERM` without `CAP_NET_ADMIN`.
pub fn has_tcx() -> Result<bool, XdpError> {
    match bpf::chain(LOOPBACK, Place::TcxIngress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(source) => Err(XdpError::Tcx { index: LOOPBACK, source }),
    }
}

/// Ids of the interface's TCX programs in both directions, in the order of the kernel.
///
/// # Errors
///
/// [`XdpError::Tcx`], also when the interface is gone or the kernel has no TCX.
pub fn tcx_programs(index: IfIndex) -> Result<Vec<u32>, XdpError> {
    let mut found = Vec::new();
    for direction in [Place::TcxIngress, Place::TcxEgress] {
        match bpf::chain(index, direction) {
            Ok(chain) => found.extend(chain.iter().map(|linked| linked.program)),
            // Nothing was ever attached there (`tcx_prog_query()` in `kernel/bpf/tcx.c`, Linux 6.12).
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(source) => return Err(XdpError::Tcx { index, source }),
        }
    }
    Ok(found)
}

/// Names of the programs with these ids, sorted. Ids that mean nothing any more are passed over.
pub fn program_names(ids: &[u32]) -> Result<Vec<String>, XdpError> {
    let mut names = Vec::new();
    for &id in ids {
        match bpf::program_name(id) {
            // A program may have been loaded without a name.
            Ok(name) if name.is_empty() => names.push("unnamed".to_owned()),
            Ok(name) => names.push(name),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(source) => return Err(XdpError::Program { id, source }),
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl XdpError {
    /// Whether the interface is not there any more.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Tcx { source, .. } => source.raw_os_error() == Some(libc::ENODEV),
            Self::Program { .. } => false,
        }
    }
}

/// What libbpf says, for tests: it asks by code that is not ours.
#[cfg(feature = "libbpf")]
mod libbpf {
    use std::io;
    use std::sync::Once;

    use nix::libc;

    use crate::model::{IfIndex, XdpFeatures};

    /// What the interface's driver can do with XDP, by libbpf's `bpf_xdp_query()`, and how many
    /// buffers a packet of AF_XDP can have. `None` where the kernel does not tell (before 6.3).
    pub fn features_by_libbpf(index: IfIndex) -> io::Result<Option<(XdpFeatures, u32)>> {
        // libbpf leaves this field alone where the kernel has no family `netdev` to ask, and sets
        // the features to 0 then, as for an interface that has none (`bpf_xdp_query()` in
        // `src/netlink.c`, libbpf 1.7).
        const UNTOUCHED: u32 = u32::MAX;

        silence();
        let index = libc::c_int::try_from(index.0)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let mut answer = libbpf_sys::bpf_xdp_query_opts {
            sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
            xdp_zc_max_segs: UNTOUCHED,
            ..Default::default()
        };
        // SAFETY: `answer` is a valid `bpf_xdp_query_opts` whose size is in `sz`, and libbpf keeps
        // no pointer to it.
        let status = unsafe { libbpf_sys::bpf_xdp_query(index, 0, &raw mut answer) };
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status.saturating_abs()));
        }
        let has_answered = answer.xdp_zc_max_segs != UNTOUCHED;
        let features = XdpFeatures(answer.feature_flags);
        Ok(has_answered.then_some((features, answer.xdp_zc_max_segs)))
    }

    /// libbpf would write to stderr by itself.
    fn silence() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: no function takes the place of libbpf's own, which libbpf allows, and it
            // exchanges the two atomically.
            let _ = unsafe { libbpf_sys::libbpf_set_print(None) };
        });
    }
}
