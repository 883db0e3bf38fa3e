//! What containerd is told: nothing of the machine's, no images but ours, NRI and CDI.

use std::path::Path;

/// Copies instead of overlays: the box's file system is a tmpfs, and the images are small.
const SNAPSHOTTER: &str = "native";

/// The pods' own network, beside which they get their NICs. Sandboxes need one to start.
pub(super) const NETWORK: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
      "ipam": { "type": "host-local", "dataDir": "/run/cni", "ranges": [[{ "subnet": "10.88.0.0/16" }]] }
    },
    { "type": "loopback" }
  ]
}
"#;

/// containerd's configuration: version 2 of the file for 1.x, version 3 for later ones.
/// `event_seconds` is how long a plugin of NRI may take for an event.
pub(super) fn daemon(
    is_first: bool,
    packages: &Path,
    root: &Path,
    cdi: &Path,
    event_seconds: u32,
) -> String {
    let (packages, root, cdi) = (packages.display(), root.display(), cdi.display());
    let version = if is_first { 2 } else { 3 };
    let cri = if is_first { "io.containerd.grpc.v1.cri" } else { "io.containerd.cri.v1.runtime" };
    let sandbox = if is_first { "sandbox_image = 'localhost/pause:1'" } else { "" };
    let bin = if is_first {
        format!("bin_dir = '{packages}/usr/lib/cni'")
    } else {
        format!("bin_dirs = ['{packages}/usr/lib/cni']")
    };
    let images = if is_first {
        format!("[plugins.'{cri}'.containerd]\nsnapshotter = '{SNAPSHOTTER}'")
    } else {
        let images = "io.containerd.cri.v1.images";
        format!(
            "[plugins.'{images}']\nsnapshotter = '{SNAPSHOTTER}'\n\
             [plugins.'{images}'.pinned_images]\nsandbox = 'localhost/pause:1'"
        )
    };
    // A process that may not raise its score cannot ask for a lower one than its own for others.
    format!(
        "version = {version}
root = '{root}/lib'
state = '{root}/run'
[grpc]
address = '{root}/containerd.sock'
[plugins.'io.containerd.internal.v1.opt']
path = '{root}/opt'
[plugins.'io.containerd.nri.v1.nri']
disable = false
plugin_request_timeout = '{event_seconds}s'
socket_path = '{root}/nri.sock'
plugin_path = '{root}/nri-plugins'
plugin_config_path = '{root}/nri-conf'
[plugins.'{cri}']
{sandbox}
enable_cdi = true
cdi_spec_dirs = ['{cdi}']
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'{cri}'.cni]
{bin}
conf_dir = '{root}/cni'
{images}
"
    )
}
