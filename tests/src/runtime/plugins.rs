//! What the runtime does with its plugins: meets them, tells them, loses them.

use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::messages::{Netns, PodSandbox, container};
use super::mux::{Trunk, lock};
use super::ttrpc::{self, CallError, Client};
use super::wire::{self, Fields, Value};
use super::{EventStyle, HookError, Options};

pub(super) const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);
/// The events that NRI 0.8 knows: 1 to 11.
const KNOWN_EVENTS: u64 = (1 << 11) - 1;

/// A plugin that is registered and synchronized.
#[derive(Debug)]
pub(super) struct Plugin {
    pub(super) index: String,
    pub(super) name: String,
    events: u64,
    trunk: Arc<Trunk>,
    pub(super) client: Client,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sandboxes: Vec<PodSandbox>,
    pub(super) plugins: Vec<Plugin>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    /// Held during each event and each Synchronize.
    pub(super) state: Mutex<State>,
    pub(super) trunks: Mutex<Vec<Arc<Trunk>>>,
    /// Why sessions ended or did not come about.
    pub(super) ends: Mutex<Vec<String>>,
    pub(super) stopping: AtomicBool,
}

impl Plugin {
    pub(super) fn is_there(&self) -> bool {
        self.trunk.ended().is_none()
    }
}

impl Shared {
    /// Has a plugin that connected register, and keeps it.
    pub(super) fn meet(&self, stream: UnixStream) {
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
        let (registered, registration) = mpsc::channel();
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
                    .message(2, &container(sandbox, &[], ""));
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
    pub(super) fn tell(
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

    /// Asks each plugin that wants to know about a container that is to be made; answers on which
    /// CPUs it shall run. Plugins that contradict each other fail it (`claimCPUSetCPUs()` in
    /// `pkg/adaptation/result.go`, NRI 0.8).
    pub(super) fn create_container(
        &self,
        state: &mut State,
        sandbox: &PodSandbox,
        environment: &[String],
        cpus: &str,
    ) -> Result<String, HookError> {
        state.plugins.retain(Plugin::is_there);
        let pod = sandbox.message(Netns::Told, self.options.ballast);
        let container = container(sandbox, environment, cpus);
        let request = Fields::new().message(1, &pod).message(2, &container).encode();
        let mut said: Option<String> = None;
        for plugin in state.plugins.iter().filter(|one| one.events & (1 << 3) != 0) {
            let limit = self.options.request_timeout;
            let answer = match plugin.client.call(PLUGIN, "CreateContainer", &request, limit) {
                Ok(answer) => answer,
                Err(CallError::Refused { message, .. }) => return Err(HookError::Plugin(message)),
                Err(CallError::Timeout(_)) => {
                    plugin.trunk.end("CreateContainer timed out");
                    continue;
                }
                Err(CallError::Closed) => continue,
            };
            let cpus = adjusted_cpus(&answer)
                .ok_or_else(|| HookError::Plugin("a malformed response".to_owned()))?;
            if let (Some(_), false) = (&said, cpus.is_empty()) {
                return Err(HookError::Plugin("two plugins set the CPUs".to_owned()));
            }
            said = said.or(Some(cpus).filter(|cpus| !cpus.is_empty()));
        }
        Ok(said.unwrap_or_else(|| cpus.to_owned()))
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

/// `adjust.linux.resources.cpu.cpus` of the answer to `CreateContainer`; empty where it is not there.
fn adjusted_cpus(answer: &[u8]) -> Option<String> {
    let mut fields = wire::decode(answer)?;
    for number in [1, 6, 2, 2] {
        fields = wire::decode(wire::bytes(&fields, number))?;
    }
    Some(wire::string(&fields, 6))
}
