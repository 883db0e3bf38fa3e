//! Where the programs of an attachment sit, and why there.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::DatapathSpec;

/// Where the ingress program sits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum IngressHook {
    /// Native XDP.
    Xdp,
    /// Native XDP that takes packets in several buffers.
    XdpFrags,
    Tcx,
    /// See [`EgressHook::Clsact`].
    Clsact,
}

impl IngressHook {
    /// One word of a closed set, for labels and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::XdpFrags => "xdp.frags",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl fmt::Display for IngressHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the egress program sits.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EgressHook {
    #[default]
    Tcx,
    /// A filter of the qdisc `clsact`, on kernels without TCX. It does not survive the move into a
    /// sandbox, so it is made there, and what is in the sandbox may remove it.
    Clsact,
}

impl EgressHook {
    /// One word of a closed set, for labels and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl fmt::Display for EgressHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the ingress program is at XDP, or is not. That it is at `clsact` and not at TCX always has
/// the one reason that the kernel has no TCX.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HookReason {
    /// Chosen by a driver that did not record why.
    #[default]
    Unrecorded,
    /// The claim names the hook.
    Wished,
    /// The claim leaves it to us, and the interface's driver runs XDP.
    NativeXdp,
    /// A virtual interface. XDP on one takes segmentation offload away from its peer.
    Virtual,
    /// The interface's driver has no XDP.
    XdpUnsupported,
    /// Nobody can tell whether the interface's driver has XDP.
    XdpUnknown,
    /// Somebody else's XDP program is there.
    XdpBusy,
    /// The interface's driver has no XDP at this MTU.
    Mtu,
}

impl HookReason {
    /// One word of a closed set, for labels and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unrecorded => "unrecorded",
            Self::Wished => "wished",
            Self::NativeXdp => "native_xdp",
            Self::Virtual => "virtual",
            Self::XdpUnsupported => "xdp_unsupported",
            Self::XdpUnknown => "xdp_unknown",
            Self::XdpBusy => "xdp_busy",
            Self::Mtu => "mtu",
        }
    }
}

impl fmt::Display for HookReason {
    /// For people: what follows `because`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unrecorded => "a former version of the driver chose it",
            Self::Wished => "the claim asks for it",
            Self::NativeXdp => "the interface's driver runs XDP natively",
            Self::Virtual => "the interface is virtual, and XDP would cost its peer GSO",
            Self::XdpUnsupported => "the interface's driver cannot run XDP natively",
            Self::XdpUnknown => "whether the interface's driver can run XDP natively is unknown",
            Self::XdpBusy => "somebody's XDP program was there already",
            Self::Mtu => "the interface's driver cannot run XDP at this MTU",
        })
    }
}

impl DatapathSpec {
    /// Whether some program sits where the pod could remove it, because the kernel has no TCX.
    pub fn is_degraded(&self) -> bool {
        self.ingress == IngressHook::Clsact || self.egress == EgressHook::Clsact
    }

    /// What was chosen and why: a sentence for people, without its full stop.
    pub fn explanation(&self) -> String {
        let Self { ingress, egress, why, .. } = self;
        let degraded = if self.is_degraded() {
            "; degraded: this kernel has no TCX, and a pod with CAP_NET_ADMIN can remove the \
             filters of clsact"
        } else {
            ""
        };
        format!("ingress by {ingress}, because {why}; egress by {egress}{degraded}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{claim, device, spec};

    fn chosen(ingress: IngressHook, egress: EgressHook, why: HookReason) -> DatapathSpec {
        let id = super::super::AttachmentId {
            claim: claim("claim-a").uid,
            device: device("eth1").name,
            share: None,
        };
        DatapathSpec { why, egress, ..spec(id, ingress) }
    }

    #[test]
    fn what_was_chosen_is_explained_in_a_sentence() {
        let spec = chosen(IngressHook::Tcx, EgressHook::Tcx, HookReason::Virtual);
        assert!(!spec.is_degraded());
        assert_eq!(
            spec.explanation(),
            "ingress by tcx, because the interface is virtual, and XDP would cost its peer GSO; \
             egress by tcx"
        );
    }

    #[test]
    fn clsact_in_either_direction_is_degraded_and_says_so() {
        for ingress in [IngressHook::Xdp, IngressHook::Clsact] {
            let spec = chosen(ingress, EgressHook::Clsact, HookReason::Wished);
            assert!(spec.is_degraded());
            assert!(spec.explanation().contains("this kernel has no TCX"));
        }
    }

    #[test]
    fn a_record_of_a_driver_that_knew_no_reasons_is_read() {
        let spec = chosen(IngressHook::Tcx, EgressHook::Tcx, HookReason::Virtual);
        let mut json = serde_json::to_value(&spec).unwrap();
        json.as_object_mut().unwrap().remove("why");
        json.as_object_mut().unwrap().remove("egress");
        let read: DatapathSpec = serde_json::from_value(json).unwrap();
        assert_eq!(read.why, HookReason::Unrecorded);
        assert_eq!(read.egress, EgressHook::Tcx);
    }
}
