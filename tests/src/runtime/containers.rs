//! Containers, as far as CDI decides about them: a process in its sandbox's network namespace, with
//! the environment that specifications add, if their hooks let it in.
//!
//! Written from the CDI specification 0.5 and the OCI runtime specification 1.0, and shares no line
//! with the driver. Files are read anew each time, as containerd does since it cannot tell when.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use driver::sys::netns::{Netns, NetnsError};
use serde::Deserialize;

/// Why there is no container. The texts are containerd's and runc's, where they have one.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("sandbox {0} is not there, or has no network namespace")]
    NoSandbox(String),
    #[error("CDI device injection failed: unresolvable CDI devices {}", .0.join(", "))]
    Unresolvable(Vec<String>),
    #[error("enter the sandbox's network namespace")]
    Netns(#[from] NetnsError),
    #[error("start {}", .program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("error running createRuntime hook: {status}, stderr: {stderr}")]
    Hook { status: std::process::ExitStatus, stderr: String },
    #[error("a plugin refused it: {0}")]
    Plugin(String),
    #[error("specifications ask for a hook {0:?}, which is not known here")]
    UnknownHook(String),
}

/// A container that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Container {
    /// What specifications added, as `NAME=VALUE`.
    pub environment: Vec<String>,
    /// On which it shall run, in the kernel's format for lists; empty where nobody says.
    pub cpus: String,
    process: Child,
}

impl Drop for Container {
    fn drop(&mut self) {
        // Either may fail only because it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Default, Deserialize)]
pub(super) struct Edits {
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    hooks: Vec<Hook>,
}

#[derive(Clone, Deserialize)]
struct Hook {
    #[serde(rename = "hookName")]
    name: String,
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
}

impl Edits {
    fn add(&mut self, other: &Self) {
        self.env.extend_from_slice(&other.env);
        self.hooks.extend_from_slice(&other.hooks);
    }
}

/// Starts a container in `netns` with what its devices bring.
pub(super) fn start(netns: &Path, edits: Edits, cpus: String) -> Result<Container, ContainerError> {
    let Edits { env: environment, hooks } = edits;
    let program = PathBuf::from("sleep");
    let mut command = Command::new(&program);
    command.arg("infinity").envs(environment.iter().filter_map(|pair| pair.split_once('=')));
    let process = Netns::open(netns)?.run(|_| command.spawn())?;
    let process = process.map_err(|source| ContainerError::Start { program, source })?;
    let container = Container { environment, cpus, process };
    for hook in &hooks {
        let pid = container.process.id();
        run(
            hook,
            &serde_json::json!({
                "ociVersion": "1.0.2", "id": "c", "status": "creating", "pid": pid, "bundle": "/run",
                "annotations": { "io.kubernetes.cri.container-name": "\"pid\": 1" },
            }),
        )?;
    }
    Ok(container)
}

/// What the devices that `ids` name in the specifications of `directory` bring. What is for all
/// devices of a file comes once.
pub(super) fn resolve(directory: &Path, ids: &[String]) -> Result<Edits, ContainerError> {
    let specs = read(directory);
    // A device that two files define is resolved by neither.
    let mut defined: BTreeMap<String, Vec<(usize, &Device)>> = BTreeMap::new();
    for (nth, spec) in specs.iter().enumerate() {
        for device in &spec.devices {
            let id = format!("{}={}", spec.kind, device.name);
            defined.entry(id).or_default().push((nth, device));
        }
    }
    let (mut edits, mut used, mut unresolved) = (Edits::default(), Vec::new(), Vec::new());
    for id in ids {
        match defined.get(id).map(Vec::as_slice) {
            Some(&[(nth, device)]) => {
                if !used.contains(&nth) {
                    edits.add(&specs[nth].container_edits);
                    used.push(nth);
                }
                edits.add(&device.container_edits);
            }
            _ => unresolved.push(id.clone()),
        }
    }
    if unresolved.is_empty() { Ok(edits) } else { Err(ContainerError::Unresolvable(unresolved)) }
}

/// A file that cannot be read takes only its own devices along.
fn read(directory: &Path) -> Vec<Spec> {
    let paths = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let specs = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
    specs.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
}

/// Runs a hook with the container's state on its standard input.
fn run(hook: &Hook, state: &serde_json::Value) -> Result<(), ContainerError> {
    if hook.name != "createRuntime" {
        return Err(ContainerError::UnknownHook(hook.name.clone()));
    }
    let error = |source| ContainerError::Start { program: hook.path.clone(), source };
    // The first argument is what the program sees as its name.
    let mut child = Command::new(&hook.path)
        .args(hook.args.iter().skip(1))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(error)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it to its end is judged by its exit status.
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    let output = child.wait_with_output().map_err(error)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    Err(ContainerError::Hook { status: output.status, stderr })
}
