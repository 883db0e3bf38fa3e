//! A container runtime, as far as it speaks NRI: what containerd does with its plugins, with
//! sandboxes that somebody else makes.
//!
//! It is written from the protocol alone and shares no line with the driver's side of it. Where
//! containerd is strict or harsh so is this: one event at a time for the whole node, registration
//! fails on an event that it does not know, and a plugin that overruns its time is disconnected and
//! the pod goes on without it.

mod messages;
mod mux;
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

use self::messages::container;
pub use self::messages::{Netns, PodSandbox};
use self::mux::{Trunk, lock};
pub use self::ttrpc::CallError;
use self::ttrpc::Client;
use self::wire::{Fields, Value};

const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);
/// The events that NRI 0.8 knows: 1 to 11.
const KNOWN_EVENTS: u64 = (1 << 11) - 1;

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

/// A plugin that is registered and synchronized.
#[derive(Debug)]
struct Plugin {
    index: String,
    name: String,
    events: u64,
    trunk: Arc<Trunk>,
    client: Client,
}

#[derive(Debug, Default)]
struct State {
    sandboxes: Vec<PodSandbox>,
    plugins: Vec<Plugin>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// Held during each event and each Synchronize.
    state: Mutex<State>,
    trunks: Mutex<Vec<Arc<Trunk>>>,
    /// Why sessions ended or did not come about.
    ends: Mutex<Vec<String>>,
    stopping: AtomicBool,
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

impl Plugin {
    fn is_there(&self) -> bool {
        self.trunk.ended().is_none()
    }
}

impl Shared {
    /// Has a plugin that connected register, and keeps it.
    fn meet(&self, stream: UnixStream) {
        let trunk = match Trunk::start(stream) {
            Ok(trunk) => trunk,
            Err(error) => return lock(&self.ends).push(error.to_string()),
        };
        lock(&self.trunks).push(Arc::clone(&trunk));
        if let Err(reason) = self.register(&trunk) {
            lock(&self.ends).push(reason.clone());
            trunk.end(&reason);
        }
    }

    fn register(&self, trunk: &Arc<Trunk>) -> Result<(), String> {
        let (registered, registration) = std::sync::mpsc::channel();
        let served = Arc::clone(trunk);
        thread::spawn(move || {
            ttrpc::serve(&served, |method, payload| match method {
                "RegisterPlugin" => {
                    let fields = wire::decode(payload)?;
                    let _ = registered.send([1, 2].map(|number| wire::string(&fields, number)));
                    Some(Vec::new())
                }
                "UpdateContainers" => Some(Vec::new()),
                _ => None,
            });
        });
        let [name, index] = registration
            .recv_timeout(REGISTRATION_TIMEOUT)
            .map_err(|_| "the plugin did not register in time".to_owned())?;
        if index.len() != 2 || !index.bytes().all(|b| b.is_ascii_digit()) || name.is_empty() {
            return Err(format!("no plugin can be called {index:?}-{name:?}"));
        }
        let client = Client::start(Arc::clone(trunk)).map_err(|error| error.to_string())?;
        let events = self.configure(&client)?;
        let mut state = lock(&self.state);
        self.synchronize(&client, &state.sandboxes)?;
        state.plugins.push(Plugin { index, name, events, trunk: Arc::clone(trunk), client });
        state.plugins.sort_by(|a, b| a.index.cmp(&b.index));
        Ok(())
    }

    fn configure(&self, client: &Client) -> Result<u64, String> {
        let Options { announces_timeouts, request_timeout, .. } = self.options;
        let mut request = Fields::new().string(2, "weir-tests").string(3, "v0");
        if announces_timeouts {
            let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            request = request.varint(4, millis(REGISTRATION_TIMEOUT));
            request = request.varint(5, millis(request_timeout));
        }
        let response = client
            .call(PLUGIN, "Configure", &request.encode(), request_timeout)
            .map_err(|error| format!("Configure: {error}"))?;
        let fields = wire::decode(&response).ok_or("Configure: a malformed response")?;
        match wire::varint(&fields, 2) {
            0 => Ok(KNOWN_EVENTS),
            events if events & !KNOWN_EVENTS == 0 => Ok(events),
            events => Err(format!("Configure: unknown events in {events:#x}")),
        }
    }

    fn synchronize(&self, client: &Client, sandboxes: &[PodSandbox]) -> Result<(), String> {
        let mut parts: Vec<_> = sandboxes.chunks(self.options.pods_per_part.max(1)).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        for (nth, part) in parts.into_iter().enumerate() {
            let more = nth < last;
            let mut request = Fields::new();
            for sandbox in part {
                request = request
                    .message(1, &sandbox.message(Netns::Told, self.options.ballast))
                    .message(2, &container(sandbox));
            }
            if more {
                request = request.varint(3, 1);
            }
            let response = client
                .call(PLUGIN, "Synchronize", &request.encode(), self.options.request_timeout)
                .map_err(|error| format!("Synchronize: {error}"))?;
            let answer = wire::decode(&response).ok_or("Synchronize: a malformed response")?;
            if (wire::varint(&answer, 2) == 1) != more {
                return Err(format!("Synchronize: part {nth} answered {answer:?}"));
            }
            if more
                && answer.iter().any(|(number, value)| *number == 1 && *value != Value::Varint(0))
            {
                return Err(format!("Synchronize: updates in answer to part {nth}"));
            }
        }
        Ok(())
    }

    /// Tells each plugin that wants to know, in order.
    fn tell(
        &self,
        state: &mut State,
        event: u64,
        method: &str,
        sandbox: &PodSandbox,
        netns: Netns,
    ) -> Result<Duration, HookError> {
        state.plugins.retain(Plugin::is_there);
        let started = Instant::now();
        let pod = sandbox.message(netns, self.options.ballast);
        let mut told = Ok(());
        for plugin in state.plugins.iter().filter(|one| one.events & (1 << (event - 1)) != 0) {
            match self.tell_one(plugin, event, method, &pod) {
                Ok(()) => {}
                Err(CallError::Refused { message, .. }) => return Err(HookError::Plugin(message)),
                Err(CallError::Timeout(_)) => {
                    plugin.trunk.end(&format!("{method} timed out"));
                    told = Err(HookError::Timeout);
                }
                Err(CallError::Closed) => told = Err(HookError::Closed),
            }
        }
        told.map(|()| started.elapsed())
    }

    fn tell_one(
        &self,
        plugin: &Plugin,
        event: u64,
        method: &str,
        pod: &Fields,
    ) -> Result<(), CallError> {
        let limit = self.options.request_timeout;
        if self.options.style == EventStyle::Dedicated {
            let request = Fields::new().message(1, pod).encode();
            match plugin.client.call(PLUGIN, method, &request, limit) {
                Err(error) if error.is_unimplemented() => {}
                answered => return answered.map(drop),
            }
        }
        let request = Fields::new().varint(1, event).message(2, pod).encode();
        plugin.client.call(PLUGIN, "StateChange", &request, limit).map(drop)
    }
}
