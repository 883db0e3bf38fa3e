//! Which sandboxes the runtime told of, and where their namespaces were.
//!
//! Runtimes forget: at stop, containerd 1.7 names no namespace and CRI-O has already removed it. So
//! what was true at run, or at the last Synchronize, is kept here until the sandbox has gone.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::proto;
use crate::model::{IdentityError, NetnsRef, PodRef, PodUid, Sandbox};
use crate::sys::netns::{Netns, NetnsError};

/// What a runtime's message says of a sandbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) pod: PodRef,
    netns: Option<String>,
    pid: Option<u32>,
}

impl TryFrom<proto::PodSandbox> for Told {
    type Error = IdentityError;

    fn try_from(sandbox: proto::PodSandbox) -> Result<Self, Self::Error> {
        let proto::PodSandbox { id, name, uid, namespace, linux, pid } = sandbox;
        let namespaces = linux.map(|linux| linux.namespaces).unwrap_or_default();
        let netns = namespaces.into_iter().find(|one| one.r#type == "network");
        Ok(Self {
            id,
            pod: PodRef { namespace, name, uid: uid.parse()? },
            // A pod on the host's network has no entry, or one without a path.
            netns: netns.map(|one| one.path).filter(|path| !path.is_empty()),
            pid: (pid != 0).then_some(pid),
        })
    }
}

impl Told {
    /// The sandbox with its namespace looked up; without one for a pod on the host's network. Blocks
    /// for a few system calls.
    pub(super) fn resolve(&self) -> Result<Sandbox, NetnsError> {
        let netns = match &self.netns {
            Some(path) => Some(Netns::resolve(Path::new(path), self.pid)?),
            None => None,
        };
        Ok(self.within(netns))
    }

    /// The sandbox with a namespace that is already known.
    pub(super) fn within(&self, netns: Option<NetnsRef>) -> Sandbox {
        Sandbox { id: self.id.clone(), pod: self.pod.clone(), netns }
    }
}

/// The sandboxes that run, as far as we were told.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    by_id: Mutex<HashMap<String, Running>>,
}

#[derive(Debug)]
struct Running {
    sandbox: Sandbox,
    /// The session that told of it.
    session: u64,
}

impl Sandboxes {
    pub(super) fn add(&self, sandbox: Sandbox, session: u64) {
        self.lock().insert(sandbox.id.clone(), Running { sandbox, session });
    }

    /// The sandbox `id`, which is forgotten with this.
    pub(super) fn take(&self, id: &str) -> Option<Sandbox> {
        self.lock().remove(id).map(|running| running.sandbox)
    }

    /// Whether the pod runs in another sandbox than `id`.
    pub(super) fn has_other(&self, id: &str, pod: &PodUid) -> bool {
        self.lock().values().any(|known| known.sandbox.id != id && known.sandbox.pod.uid == *pod)
    }

    /// Keeps `listed`, and what `session` has told of itself: containerd up to 2.0 may report a
    /// sandbox that starts while the list is under way before the list, and leave it out there
    /// (containerd #11329). Answers all of them.
    pub(super) fn replace(&self, listed: Vec<Sandbox>, session: u64) -> Vec<Sandbox> {
        let mut by_id = self.lock();
        by_id.retain(|_, running| running.session == session);
        for sandbox in listed {
            by_id.entry(sandbox.id.clone()).or_insert(Running { sandbox, session });
        }
        let mut all: Vec<_> = by_id.values().map(|running| running.sandbox.clone()).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// No code that holds the lock can panic half-way, so what a poisoned one guards is whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/proc/thread-self/ns/net";

    fn message(id: &str, uid: &str, network: Option<&str>) -> proto::PodSandbox {
        let entry = |kind: &str, path: &str| proto::LinuxNamespace {
            r#type: kind.to_owned(),
            path: path.to_owned(),
        };
        let mut namespaces = vec![entry("ipc", "/proc/7/ns/ipc")];
        namespaces.extend(network.map(|path| entry("network", path)));
        proto::PodSandbox {
            id: id.to_owned(),
            name: format!("pod-{id}"),
            uid: uid.to_owned(),
            namespace: "default".to_owned(),
            linux: Some(proto::LinuxPodSandbox { namespaces }),
            pid: 0,
        }
    }

    fn sandbox(id: &str, uid: &str) -> Sandbox {
        Told::try_from(message(id, uid, None)).unwrap().resolve().unwrap()
    }

    #[test]
    fn the_network_namespace_is_looked_up() {
        let told = Told::try_from(message("s1", "u1", Some(OWN))).unwrap();
        let sandbox = told.resolve().unwrap();
        assert_eq!(sandbox.netns.unwrap().path, Path::new(OWN));
        assert_eq!(sandbox.pod.to_string(), "default/pod-s1");
    }

    #[test]
    fn a_pod_without_a_namespace_of_its_own_is_on_the_host_network() {
        for network in [None, Some("")] {
            let mut message = message("s1", "u1", network);
            message.pid = std::process::id();
            assert_eq!(Told::try_from(message).unwrap().resolve().unwrap().netns, None);
        }
    }

    #[test]
    fn a_namespace_that_is_gone_is_an_error_and_not_the_host_network() {
        let told = Told::try_from(message("s1", "u1", Some("/nowhere/net"))).unwrap();
        assert!(told.resolve().is_err());
    }

    #[test]
    fn what_is_no_uid_is_refused() {
        assert!(Told::try_from(message("s1", "../u", None)).is_err());
    }

    #[test]
    fn a_list_replaces_what_earlier_sessions_told_but_not_what_this_one_did() {
        let sandboxes = Sandboxes::default();
        sandboxes.add(sandbox("old", "u1"), 1);
        sandboxes.add(sandbox("early", "u2"), 2);

        let all = sandboxes.replace(vec![sandbox("listed", "u3")], 2);

        let ids: Vec<_> = all.iter().map(|sandbox| sandbox.id.as_str()).collect();
        assert_eq!(ids, ["early", "listed"]);
        assert_eq!(sandboxes.take("old"), None);
        assert!(sandboxes.take("listed").is_some());
    }

    #[test]
    fn another_sandbox_of_the_same_pod_is_noticed() {
        let sandboxes = Sandboxes::default();
        sandboxes.add(sandbox("second", "u1"), 1);
        assert!(sandboxes.has_other("first", &"u1".parse().unwrap()));
        assert!(!sandboxes.has_other("second", &"u1".parse().unwrap()));
        assert!(!sandboxes.has_other("first", &"u2".parse().unwrap()));
    }
}
