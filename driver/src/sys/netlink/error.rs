//! What went wrong between us and the kernel, in the kernel's own words where it has some.

use std::io;
use std::time::Duration;

use nix::libc;
use rtnetlink::packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NlasIterator};

use crate::sys::netns::NetnsError;

/// Why a netlink request did not do, or tell, what it was for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    #[error("open a netlink socket")]
    Open(#[source] io::Error),

    #[error("open a netlink socket in network namespace {id}", id = .0)]
    OpenIn(crate::model::NetnsId, #[source] NetnsError),

    /// The kernel said no. `explanation` is its extended acknowledgement, such as `mtu greater than
    /// device maximum`.
    #[error("{request}{}", in_words(.explanation.as_deref()))]
    Refused { request: String, explanation: Option<String>, source: io::Error },

    /// The socket failed, so nobody knows what the kernel did.
    #[error("{request}: lost the kernel's answer")]
    Lost { request: String, source: io::Error },

    #[error("{request}: no answer within {} s", .after.as_secs())]
    Timeout { request: String, after: Duration },

    /// What was asked for changed again and again while the kernel listed it.
    #[error("{request}: interrupted by changes {attempts} times")]
    Interrupted { request: String, attempts: usize },

    #[error("ask for the cookie of a network namespace")]
    Cookie(#[source] io::Error),

    #[error("wait for changes of the network")]
    Events(#[source] io::Error),
}

fn in_words(explanation: Option<&str>) -> String {
    explanation.map(|text| format!(": {text}")).unwrap_or_default()
}

impl NetlinkError {
    /// Whether what was to be added is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether what was to be changed, removed or shown is not there: the interface (`ENODEV`, and
    /// `ENXIO` from IPv6), the address (`EADDRNOTAVAIL`), the route (`ESRCH`), or the rule, the
    /// neighbour or the table (`ENOENT`).
    pub fn is_absent(&self) -> bool {
        let absences = [libc::ENODEV, libc::ENXIO, libc::EADDRNOTAVAIL, libc::ESRCH, libc::ENOENT];
        self.errno().is_some_and(|errno| absences.contains(&errno))
    }

    /// Whether the driver or the kernel knows nothing of the kind.
    pub fn is_unsupported(&self) -> bool {
        self.errno() == Some(libc::EOPNOTSUPP)
    }

    fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// One word of a closed set, for labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Open(_) | Self::OpenIn(..) => "open",
            Self::Refused { .. } => "refused",
            Self::Lost { .. } => "lost",
            Self::Timeout { .. } => "timeout",
            Self::Interrupted { .. } => "interrupted",
            Self::Cookie(_) => "cookie",
            Self::Events(_) => "events",
        }
    }
}

/// The text of the extended acknowledgement that follows a request's header in an `NLMSG_ERROR`.
///
/// `echoed` is what follows the error code: the request's header, the request's payload unless
/// `flags` has `NLM_F_CAPPED`, then attributes (`Documentation/userspace-api/netlink/intro.rst`).
pub(super) fn explanation(flags: u16, echoed: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let length = if flags & NLM_F_CAPPED == 0 {
        let bytes = echoed.first_chunk::<4>()?;
        usize::try_from(u32::from_ne_bytes(*bytes)).ok()?.next_multiple_of(4)
    } else {
        HEADER_LEN
    };
    text(echoed.get(length..)?)
}

/// The text among the attributes of an extended acknowledgement.
pub(super) fn text(attributes: &[u8]) -> Option<String> {
    let message = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(message.value());
    Some(text.trim_end_matches('\0').to_owned())
}

/// `sizeof(struct nlmsghdr)`.
const HEADER_LEN: usize = 16;
/// `enum nlmsgerr_attrs` in `include/uapi/linux/netlink.h`.
const NLMSGERR_ATTR_MSG: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// An `NLMSGERR_ATTR_OFFS` of 20, then an `NLMSGERR_ATTR_MSG` of "no".
    const ATTRIBUTES: [u8; 16] = [8, 0, 2, 0, 20, 0, 0, 0, 7, 0, 1, 0, b'n', b'o', 0, 0];

    #[test]
    fn the_kernels_words_follow_the_header_or_the_whole_request() {
        let header = [18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let capped = [header.as_slice(), &ATTRIBUTES].concat();
        let found = explanation(NLM_F_ACK_TLVS | NLM_F_CAPPED, &capped);
        assert_eq!(found.as_deref(), Some("no"));

        // The request has 18 bytes, so two of padding.
        let whole = [header.as_slice(), &[1, 2, 0, 0], &ATTRIBUTES].concat();
        assert_eq!(explanation(NLM_F_ACK_TLVS, &whole).as_deref(), Some("no"));
    }

    #[test]
    fn silence_and_nonsense_are_no_words() {
        assert_eq!(explanation(0, &ATTRIBUTES), None);
        assert_eq!(explanation(NLM_F_ACK_TLVS, &[]), None);
        assert_eq!(explanation(NLM_F_ACK_TLVS, &[255; 64]), None);
        assert_eq!(explanation(NLM_F_ACK_TLVS | NLM_F_CAPPED, &[255; 64]), None);
    }

    #[test]
    fn an_error_says_what_was_asked_and_what_the_kernel_said() {
        let refused = |errno, explanation: Option<&str>| NetlinkError::Refused {
            request: "add address 10.0.0.1/24 to interface 5".to_owned(),
            explanation: explanation.map(str::to_owned),
            source: io::Error::from_raw_os_error(errno),
        };
        let exists = refused(libc::EEXIST, Some("Address already assigned"));
        assert_eq!(
            exists.to_string(),
            "add address 10.0.0.1/24 to interface 5: Address already assigned"
        );
        assert!(exists.is_exists() && !exists.is_absent());
        for errno in [libc::ENODEV, libc::ESRCH, libc::EADDRNOTAVAIL, libc::ENXIO] {
            assert!(refused(errno, None).is_absent(), "{errno}");
        }
        assert!(!refused(libc::EINVAL, None).is_absent());
    }
}
