use crate::model::{ClaimRef, ClaimUid, DeviceName, PciAddress, PodRef, Problems, Selection};
use crate::node::StepError;
use crate::plan::{DatapathState, Step};
use crate::telemetry::chain;

/// Why a device could not be prepared, attached or given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The device is neither prepared for this claim nor on the host.
    #[error("device {device} is not on this node, or not offered any more")]
    NoSuchDevice { device: DeviceName },

    /// Several devices of the claim cannot be had, each for its own reason.
    #[error("{}", several(.0))]
    Several(Vec<Self>),

    /// Another claim holds the device.
    #[error("device {device} is in use by claim {holder} ({uid})", uid = .holder.uid)]
    InUse { device: DeviceName, holder: ClaimRef },

    /// The claim's wishes cannot be had on this device.
    #[error("device {device}: {reason}")]
    Impossible { device: DeviceName, reason: String },

    /// The pod shares the host's network namespace, so there is nowhere to move a device to.
    #[error("pod {pod} uses the host network, a device cannot be moved there")]
    HostNetwork { pod: PodRef },

    /// What a physical function was told for an earlier claim could not be put back, and is tried again
    /// on each prepare.
    #[error("device {device} still has settings of claim {claim}: {message}")]
    Owed { device: DeviceName, claim: ClaimRef, message: String },

    /// The number of virtual functions is being changed, as the configuration says.
    #[error("device {device}: virtual functions of {pf} are being made, try again")]
    Provisioning { device: DeviceName, pf: PciAddress },

    /// An earlier change could be neither finished nor taken back. The node is tried again on each
    /// repetition of the call.
    #[error("device {device} is stuck half-way, see the driver's log")]
    Stranded { device: DeviceName },

    /// The programs that prepare attached are not all there any more and could not be attached
    /// again, so the pod would run without them.
    #[error("device {device}: its datapath is {state}, it cannot be attached without")]
    NoDatapath { device: DeviceName, state: DatapathState },

    /// The claim wishes an address of a DHCP server, and there is none.
    #[error("device {device} has no address from a DHCP server, see the events of its claim")]
    NoLease { device: DeviceName },

    /// A step of the plan failed. What earlier steps changed was undone, except for `residue`.
    #[error("device {device}: {step}: {source}{}", residue_text(.residue))]
    Step { device: DeviceName, step: Box<Step>, residue: Vec<String>, source: StepError },

    /// The time ran out between two steps. What was done was undone, except for `residue`.
    #[error("device {device}: out of time before: {step}{}", residue_text(.residue))]
    OutOfTime { device: DeviceName, step: Box<Step>, residue: Vec<String> },

    /// The time ran out while other commands were served; nothing was tried.
    #[error("device {device}: out of time before it could be attached")]
    TooLate { device: DeviceName },

    /// The node could not be looked at, so nothing was changed.
    #[error("look at {device}: {source}")]
    Observe { device: DeviceName, source: StepError },

    /// The checkpoint could not be written, so the node was not touched.
    #[error("record {device}: {message}")]
    Record { device: DeviceName, message: String },

    /// A policy was meant for something that is not prepared on this node.
    #[error("{}", .selection.absence())]
    NothingSelected { selection: Selection },

    /// A policy was meant for a device that has no programs to carry it out.
    #[error(
        "device {device} has no programs, its claim wants none: no policy can be enforced on it"
    )]
    NoPrograms { device: DeviceName },

    /// A policy was meant for a device on its way.
    #[error("device {device} is {phase}, try again")]
    OnItsWay { device: DeviceName, phase: &'static str },

    /// A policy was meant for a device whose programs are not all there.
    #[error("device {device}: its datapath is {state}, no policy can be enforced on it")]
    Unenforceable { device: DeviceName, state: DatapathState },

    /// The policy and the claim's filter do not go together, so nothing was changed.
    #[error("device {device}: {problems}")]
    Policy { device: DeviceName, problems: Problems },

    /// What an operator ordered before the node restarted cannot be had any more, and the device is
    /// not prepared without.
    #[error(
        "device {device}: the policy that was applied before the node restarted cannot be enforced, \
         `weir policy clear --claim {claim}` gives it up: {reason}"
    )]
    KeptPolicy { device: DeviceName, claim: ClaimUid, reason: String },

    /// The checkpoint could not be written, so what it keeps of an earlier boot is as it was.
    #[error("record which policies are given up: {message}")]
    Kept { message: String },

    /// The worker's thread has ended; the driver is stopping.
    #[error("the driver is stopping")]
    Stopping,
}

fn residue_text(residue: &[String]) -> String {
    if residue.is_empty() {
        String::new()
    } else {
        format!(" (could not be undone: {})", residue.join(", "))
    }
}

fn several(errors: &[AttachError]) -> String {
    let texts: Vec<_> = errors.iter().map(|error| chain(error)).collect();
    texts.join("; ")
}

impl AttachError {
    /// An error that tells all of `errors`, if there are any.
    pub(super) fn all_of(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// The value of the `reason` metric label: one of a fixed set, free of names and numbers.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchDevice { .. } => "no_such_device",
            // The first stands for all.
            Self::Several(errors) => errors.first().map_or("several", Self::reason),
            Self::InUse { .. } => "in_use",
            Self::Impossible { .. } => "impossible",
            Self::HostNetwork { .. } => "host_network",
            Self::Stranded { .. } => "stranded",
            Self::Owed { .. } => "owed",
            Self::Provisioning { .. } => "provisioning",
            Self::NoDatapath { .. } => "no_datapath",
            Self::NoLease { .. } => "no_lease",
            Self::Step { step, .. } => step.kind(),
            Self::OutOfTime { .. } | Self::TooLate { .. } => "out_of_time",
            Self::Observe { .. } => "observe",
            Self::Record { .. } | Self::Kept { .. } => "record",
            Self::NothingSelected { .. } => "nothing_selected",
            Self::NoPrograms { .. } => "no_programs",
            Self::OnItsWay { .. } => "on_its_way",
            Self::Unenforceable { .. } => "unenforceable",
            Self::Policy { .. } => "policy",
            Self::KeptPolicy { .. } => "kept_policy",
            Self::Stopping => "stopping",
        }
    }
}
