//! The driver's configuration: validated once; nothing reads the environment or flags later.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that `weir node` is told from outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The Node object that this driver speaks for; also the name of its pool.
    pub node_name: String,
    /// The driver's name in the DRA API, `weir.dev` unless told otherwise.
    pub driver_name: String,
    /// `None`: the usual places, then the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Kubelet's directory, with `plugins` and `plugins_registry` below.
    pub kubelet_root: PathBuf,
    pub nri_socket: PathBuf,
    /// Two digits: the order among the runtime's plugins.
    pub nri_index: String,
    pub sysfs: PathBuf,
    /// Where bpffs is mounted, or shall be.
    pub bpffs: PathBuf,
    /// Where the checkpoint lies. Must outlive the driver's pod.
    pub state_dir: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub listen: SocketAddr,
    pub log_format: LogFormat,
    /// How long an attach may hold up the runtime at most; less where the runtime announces less.
    pub attach_budget: Duration,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}
