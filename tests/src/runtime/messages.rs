//! What the runtime says, field by field.

use std::path::PathBuf;

use super::wire::Fields;

/// A pod's sandbox, as kubelet had the runtime make it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodSandbox {
    pub id: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    /// `None` for a pod on the host's network.
    pub netns: Option<PathBuf>,
    /// Of the sandbox's first process; 0 if that is not told.
    pub pid: u32,
}

/// Whether a message names the sandbox's network namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Netns {
    Told,
    Forgotten,
}

impl PodSandbox {
    /// The message, with an annotation of `ballast` bytes, which real pods have plenty of.
    pub(super) fn message(&self, netns: Netns, ballast: usize) -> Fields {
        let namespace = |kind: &str, path: &str| Fields::new().string(1, kind).string(2, path);
        let mut linux = Fields::new()
            .string(3, "/kubepods.slice")
            .message(5, &namespace("pid", ""))
            .message(5, &namespace("ipc", ""));
        if let (Some(path), Netns::Told) = (&self.netns, netns) {
            linux = linux.message(5, &namespace("network", &path.to_string_lossy()));
        }
        let annotation = Fields::new().string(1, "ballast").string(2, &"b".repeat(ballast));
        let message = Fields::new()
            .string(1, &self.id)
            .string(2, &self.name)
            .string(3, &self.uid)
            .string(4, &self.namespace)
            .message(6, &annotation)
            .string(7, "runc")
            .message(8, &linux)
            .varint(9, u64::from(self.pid));
        match netns {
            Netns::Told => message.string(10, "10.244.0.7"),
            Netns::Forgotten => message,
        }
    }
}

/// A container of a pod, with what CDI devices put into its environment, and the CPUs that kubelet
/// has given it.
pub(super) fn container(pod: &PodSandbox, environment: &[String], cpus: &str) -> Fields {
    let mut fields = Fields::new()
        .string(1, &format!("{}-app", pod.id))
        .string(2, &pod.id)
        .string(3, "app")
        .varint(4, 3)
        .string(8, "PATH=/bin")
        .varint(12, 4711);
    for pair in environment {
        fields = fields.string(8, pair);
    }
    let cpu = Fields::new().string(6, cpus);
    let resources = Fields::new().message(2, &cpu);
    fields.message(11, &Fields::new().message(3, &resources))
}
