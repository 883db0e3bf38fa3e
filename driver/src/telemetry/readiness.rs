//! Whether the driver can do its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What has to hold before pods can be served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// Kubelet has answered our registration.
    DraRegistered,
    /// The runtime has configured and synchronized our plugin.
    NriConnected,
    /// What the inventory found first is written to the API server.
    SlicesPublished,
}

impl Condition {
    const ALL: [Self; 3] = [Self::DraRegistered, Self::NriConnected, Self::SlicesPublished];

    /// What to tell while it does not hold.
    fn lack(self) -> &'static str {
        match self {
            Self::DraRegistered => "kubelet has not registered the driver",
            Self::NriConnected => "the container runtime is not connected over NRI",
            Self::SlicesPublished => "no ResourceSlices have been published",
        }
    }
}

/// Which conditions hold now. Clones share the answer; at first none holds.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    held: Arc<[AtomicBool; Condition::ALL.len()]>,
}

impl Readiness {
    pub fn set(&self, condition: Condition, holds: bool) {
        self.held[condition as usize].store(holds, Ordering::Relaxed);
    }

    /// What is missing, in a fixed order; empty when ready.
    pub fn lacks(&self) -> Vec<&'static str> {
        let holds = |condition: Condition| self.held[condition as usize].load(Ordering::Relaxed);
        Condition::ALL.into_iter().filter(|it| !holds(*it)).map(Condition::lack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_nothing_is_missing() {
        let readiness = Readiness::default();
        assert_eq!(readiness.lacks().len(), 3);
        for condition in Condition::ALL {
            readiness.clone().set(condition, true);
            assert!(!readiness.lacks().contains(&condition.lack()));
        }
        assert!(readiness.lacks().is_empty());
        readiness.set(Condition::NriConnected, false);
        assert_eq!(readiness.lacks(), [Condition::NriConnected.lack()]);
    }
}
