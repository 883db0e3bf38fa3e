//! The text of a specification, which containerd and CRI-O read.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CdiError;
use crate::model::{CdiDevice, CdiSpec, cdi_kind};
use crate::sys::gate::Ticket;

/// The first version in which a device's name may start with a digit, as UIDs do (`version.go` in
/// container-device-interface). containerd 1.7 and 2.x read it.
const VERSION: &str = "0.5.0";

/// How long the gate may take. It needs a millisecond; a node that is that busy may take longer, and
/// a hook without a limit would hang for ever.
const GATE_TIMEOUT_SECONDS: u32 = 10;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    cdi_version: &'static str,
    kind: String,
    devices: Vec<Device<'a>>,
    /// What a container gets that names any of the devices.
    container_edits: Edits<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Device<'a> {
    name: &'a str,
    container_edits: Edits<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Edits<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    device_nodes: Vec<DeviceNode<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hooks: Vec<Hook<'a>>,
}

/// Type and numbers are what the runtime finds on the host.
#[derive(Serialize)]
struct DeviceNode<'a> {
    path: &'a str,
}

#[derive(Serialize)]
struct Hook<'a> {
    #[serde(rename = "hookName")]
    name: &'static str,
    path: &'a str,
    args: Vec<String>,
    timeout: u32,
}

/// Writes the specification for a driver's name and the path of its gate.
pub(super) fn render(spec: &CdiSpec, driver: &str, gate: &Path) -> Result<String, CdiError> {
    let ticket = Ticket { cookie: spec.cookie, claim: spec.claim.to_string() };
    let hook = Hook {
        // The namespaces are made and nothing of the container runs yet; runs in the runtime's own
        // namespaces, and a failure ends the container's start (OCI runtime specification 1.0,
        // `config.md`).
        name: "createRuntime",
        path: text(gate)?,
        args: [vec!["weir-gate".to_owned()], ticket.arguments().to_vec()].concat(),
        timeout: GATE_TIMEOUT_SECONDS,
    };
    let written = Spec {
        cdi_version: VERSION,
        kind: cdi_kind(driver),
        devices: spec.devices.iter().map(device).collect::<Result<_, _>>()?,
        container_edits: Edits { hooks: vec![hook], ..Edits::default() },
    };
    let error = |e: serde_json::Error| super::io_error("encode", gate, e.into());
    serde_json::to_string_pretty(&written).map_err(error)
}

fn device(device: &CdiDevice) -> Result<Device<'_>, CdiError> {
    let CdiDevice { name, environment, nodes } = device;
    if environment.is_empty() && nodes.is_empty() {
        return Err(CdiError::Empty { name: name.clone() });
    }
    let env = environment.iter().map(|(variable, value)| format!("{variable}={value}")).collect();
    let node = |path| Ok(DeviceNode { path: text(path)? });
    let device_nodes = nodes.iter().map(|path| node(path)).collect::<Result<_, CdiError>>()?;
    Ok(Device { name, container_edits: Edits { env, device_nodes, ..Edits::default() } })
}

fn text(path: &Path) -> Result<&str, CdiError> {
    path.to_str().ok_or_else(|| CdiError::Path { path: path.to_owned() })
}

/// The kind of device that a specification is about; `None` where it is none.
pub(super) fn kind_of(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    serde_json::from_str::<Kind>(text).ok().map(|read| read.kind)
}
