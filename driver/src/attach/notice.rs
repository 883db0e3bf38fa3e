//! What somebody should hear of, beside the one who asked: failures, and devices that are not as
//! they should be.

use tokio::sync::mpsc;

use crate::model::{ClaimRef, DeviceName, PodRef};

/// Notices that wait at most. A node has fewer devices; what comes when so many wait repeats itself.
const MOST_WAITING: usize = 1024;

/// Something to tell of a claim, and of its pod where one is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    pub claim: ClaimRef,
    pub pod: Option<PodRef>,
    /// `None` where it is about the whole claim.
    pub device: Option<DeviceName>,
    pub kind: NoticeKind,
    /// With the whole chain of causes.
    pub message: String,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NoticeKind {
    /// A claim could not be prepared; kubelet will ask again.
    PrepareFailed,
    /// A claim could not be given back; kubelet will ask again.
    UnprepareFailed,
    /// A device could not be moved into its pod, so the pod does not start.
    AttachFailed,
    /// The device is back, and not everything on it is as it was on the host.
    Residue,
    /// A device that a claim holds is nowhere to be found.
    Lost,
    /// A pod was found running that has not got what its claim prepared.
    RunningWithout,
    /// An address from a DHCP server may not be used any more.
    LeaseLost,
}

impl NoticeKind {
    pub const ALL: [Self; 7] = [
        Self::PrepareFailed,
        Self::UnprepareFailed,
        Self::AttachFailed,
        Self::Residue,
        Self::Lost,
        Self::RunningWithout,
        Self::LeaseLost,
    ];

    /// One word of a closed set, as reasons of events are written.
    pub fn reason(self) -> &'static str {
        match self {
            Self::PrepareFailed => "PrepareFailed",
            Self::UnprepareFailed => "UnprepareFailed",
            Self::AttachFailed => "AttachFailed",
            Self::Residue => "DeviceResidue",
            Self::Lost => "DeviceLost",
            Self::RunningWithout => "RunningWithoutDevice",
            Self::LeaseLost => "LeaseLost",
        }
    }
}

/// Where notices are left. Clones lead to the same place.
#[derive(Clone, Debug)]
pub struct Notices(mpsc::Sender<Notice>);

impl Notices {
    /// A place for notices, and the end where they come out.
    pub fn pair() -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        (Self(sender), receiver)
    }

    /// Leaves a notice and goes on at once. Where too many wait, it is logged in their stead.
    pub fn leave(&self, notice: Notice) {
        if let Err(error) = self.0.try_send(notice) {
            let (mpsc::error::TrySendError::Full(notice)
            | mpsc::error::TrySendError::Closed(notice)) = error;
            let Notice { claim, kind, message, .. } = notice;
            tracing::warn!(%claim, reason = kind.reason(), message, "notice not passed on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Notice {
        Notice {
            claim: ClaimRef {
                namespace: "default".to_owned(),
                name: "nics".to_owned(),
                uid: "c1".parse().unwrap(),
            },
            pod: None,
            device: None,
            kind: NoticeKind::Lost,
            message: "eth1 is nowhere".to_owned(),
        }
    }

    #[test]
    fn whoever_leaves_a_notice_never_waits() {
        let (notices, mut waiting) = Notices::pair();
        for _ in 0..=MOST_WAITING {
            notices.leave(notice());
        }
        let passed_on = std::iter::from_fn(|| waiting.try_recv().ok()).count();
        assert_eq!(passed_on, MOST_WAITING);
        drop(waiting);
        notices.leave(notice());
    }

    #[test]
    fn every_kind_has_a_reason_of_its_own() {
        let mut reasons: Vec<_> = NoticeKind::ALL.iter().map(|kind| kind.reason()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), NoticeKind::ALL.len());
    }
}
