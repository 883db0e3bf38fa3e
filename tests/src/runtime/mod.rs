//! A container runtime, as far as it speaks NRI: what containerd does with its plugins, with
//! sandboxes that somebody else makes.
//!
//! It is written from the protocol alone and shares no line with the driver's side of it. Where
//! containerd is strict or harsh so is this: one event at a time for the whole node, registration
//! fails on an event that it does not know, and a plugin that overruns its time is disconnected and
//! the pod goes on without it.

mod containers;
mod messages;
mod mux;
mod plugins;
mod ttrpc;
pub mod wire;

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use self::containers::{Container, ContainerError};
pub use self::messages::{Netns, PodSandbox};
use self::mux::lock;
use self::plugins::{PLUGIN, Plugin, Shared, State};
pub use self::ttrpc::CallError;

/// How sandbox events are told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventStyle {
    /// `StateChange` for all, as before NRI 0.12.
    StateChange,
    /// A method for each; `StateChange` for a plugin that does not know it.
    Dedicated,
}

/// What kind of runtime this is.
#[derive(Clone, Debug)]
pub struct Options {
    pub style: EventStyle,
    /// How long a plugin may take for an event.
    pub request_timeout: Duration,
    /// Whether Configure tells the timeouts: containerd 1.7 does not.
    pub announces_timeouts: bool,
    /// Whether stop and remove name the network namespace: containerd 1.7 does not.
    pub netns_at_stop: Netns,
    /// How many pods one part of Synchronize holds.
    pub pods_per_part: usize,
    /// The size of an annotation of every pod, in bytes.
    pub ballast: usize,
}

impl Default for Options {
    /// containerd 2.1.
    fn default() -> Self {
        Self {
            style: EventStyle::StateChange,
            request_timeout: Duration::from_secs(2),
            announces_timeouts: true,
            netns_at_stop: Netns::Told,
            pods_per_part: 250,
            ballast: 64,
        }
    }
}

/// Why the plugin did not do its part.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HookError {
    /// It did not answer in time; it was disconnected, and the pod goes on.
    #[error("the plugin did not answer in time, the pod goes on without it")]
    Timeout,
    /// It went away before it answered; the pod goes on.
    #[error("the plugin went away, the pod goes on without it")]
    Closed,
    /// It answered an error, which fails a sandbox that is about to run.
    #[error("{0}")]
    Plugin(String),
}

/// The runtime. Dropping it closes its socket and all sessions.
#[derive(Debug)]
pub struct Runtime {
    socket: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Runtime {
    /// Listens at `socket`, in place of whatever was there.
    pub fn start(socket: &Path, options: Options) -> io::Result<Self> {
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        let shared = Arc::new(Shared {
            options,
            state: Mutex::default(),
            trunks: Mutex::default(),
            ends: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let accepting =
            thread::Builder::new().name("runtime-accept".to_owned()).spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if accepting.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = Arc::clone(&accepting);
                    thread::spawn(move || shared.meet(stream));
                }
            })?;
        Ok(Self { socket: socket.to_owned(), shared, accepting: Some(accepting) })
    }

    /// Adds a sandbox that runs without any plugin having been told: one from before, for the next
    /// Synchronize.
    pub fn add_running(&self, sandbox: PodSandbox) {
        lock(&self.shared.state).sandboxes.push(sandbox);
    }

    /// Whether a plugin is registered and synchronized, or becomes so within `limit`.
    pub fn wait_for_plugin(&self, limit: Duration) -> bool {
        self.wait_until(limit, |state| state.plugins.iter().any(Plugin::is_there))
    }

    /// Whether no plugin is there, or the last goes within `limit`.
    pub fn wait_for_no_plugin(&self, limit: Duration) -> bool {
        self.wait_until(limit, |state| !state.plugins.iter().any(Plugin::is_there))
    }

    fn wait_until(&self, limit: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let started = Instant::now();
        loop {
            if holds(&lock(&self.shared.state)) {
                return true;
            }
            if started.elapsed() >= limit {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells the plugins of a sandbox that has been made, and how long that took.
    ///
    /// # Errors
    ///
    /// After [`HookError::Plugin`] the sandbox has been stopped and removed again, and the plugins
    /// were told so; after the others it is there, and runs.
    pub fn run_pod_sandbox(&self, sandbox: &PodSandbox) -> Result<Duration, HookError> {
        let mut state = lock(&self.shared.state);
        let told = self.shared.tell(&mut state, 1, "RunPodSandbox", sandbox, Netns::Told);
        if matches!(told, Err(HookError::Plugin(_))) {
            // As containerd 1.7.24 and 2.1.9 do; what the plugins answer changes nothing.
            for (event, method) in [(2, "StopPodSandbox"), (3, "RemovePodSandbox")] {
                let _ = self.shared.tell(&mut state, event, method, sandbox, Netns::Told);
            }
        } else {
            state.sandboxes.push(sandbox.clone());
        }
        told
    }

    /// Tells the plugins that a sandbox ends. It ends whatever they answer.
    pub fn stop_pod_sandbox(&self, id: &str) -> Result<Duration, HookError> {
        let mut state = lock(&self.shared.state);
        let Some(sandbox) = state.sandboxes.iter().find(|known| known.id == id).cloned() else {
            return Ok(Duration::ZERO);
        };
        let netns = self.shared.options.netns_at_stop;
        self.shared.tell(&mut state, 2, "StopPodSandbox", &sandbox, netns)
    }

    /// Tells the plugins that a sandbox is removed, and forgets it.
    pub fn remove_pod_sandbox(&self, id: &str) -> Result<Duration, HookError> {
        let mut state = lock(&self.shared.state);
        let Some(at) = state.sandboxes.iter().position(|known| known.id == id) else {
            return Ok(Duration::ZERO);
        };
        let sandbox = state.sandboxes.remove(at);
        let netns = self.shared.options.netns_at_stop;
        self.shared.tell(&mut state, 3, "RemovePodSandbox", &sandbox, netns)
    }

    /// Starts a container in a sandbox, with the CDI devices that `ids` name in `directory`, on
    /// whichever CPUs the plugins say.
    ///
    /// # Errors
    ///
    /// The sandbox goes on without it.
    pub fn start_container(
        &self,
        id: &str,
        directory: &Path,
        ids: &[String],
    ) -> Result<Container, ContainerError> {
        self.start_container_on("", id, directory, ids)
    }

    /// The same for a container to which kubelet has given CPUs, in the kernel's format for lists.
    pub fn start_container_on(
        &self,
        cpus: &str,
        id: &str,
        directory: &Path,
        ids: &[String],
    ) -> Result<Container, ContainerError> {
        let mut state = lock(&self.shared.state);
        let sandbox = state.sandboxes.iter().find(|known| known.id == id).cloned();
        let sandbox = sandbox.ok_or_else(|| ContainerError::NoSandbox(id.to_owned()))?;
        let netns = sandbox.netns.clone();
        let netns = netns.ok_or_else(|| ContainerError::NoSandbox(id.to_owned()))?;
        let edits = containers::resolve(directory, ids)?;
        let said = self.shared.create_container(&mut state, &sandbox, &edits.env, cpus);
        drop(state);
        let cpus = said.map_err(|error| ContainerError::Plugin(error.to_string()))?;
        containers::start(&netns, edits, cpus)
    }

    /// Calls any method of the first plugin.
    pub fn call(&self, service: &str, method: &str, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        let state = lock(&self.shared.state);
        let plugin = state.plugins.iter().find(|plugin| plugin.is_there());
        let plugin = plugin.ok_or(CallError::Closed)?;
        plugin.client.call(service, method, payload, self.shared.options.request_timeout)
    }

    /// Asks all plugins to end.
    pub fn shut_plugins_down(&self) {
        let state = lock(&self.shared.state);
        for plugin in &state.plugins {
            let limit = self.shared.options.request_timeout;
            // One that does not answer has ended as well.
            let _ = plugin.client.call(PLUGIN, "Shutdown", &[], limit);
        }
    }

    /// Index and name of the plugins that are there, in the order in which they are called.
    pub fn plugins(&self) -> Vec<String> {
        let state = lock(&self.shared.state);
        let there = state.plugins.iter().filter(|plugin| plugin.is_there());
        there.map(|plugin| format!("{}-{}", plugin.index, plugin.name)).collect()
    }

    /// Why sessions ended, and why plugins were refused, so far.
    pub fn ends(&self) -> Vec<String> {
        let ended = lock(&self.shared.trunks).iter().filter_map(|trunk| trunk.ended()).collect();
        [lock(&self.shared.ends).clone(), ended].concat()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; where it has ended already nobody needs waking.
        let _ = UnixStream::connect(&self.socket);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for trunk in lock(&self.shared.trunks).iter() {
            trunk.end("the runtime stops");
        }
        let _ = fs::remove_file(&self.socket);
    }
}
