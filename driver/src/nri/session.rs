//! One session with the runtime: register, be configured, be told everything, then serve events.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::NriConfig;
use super::events::{Budget, Events, Occasion};
use super::mux::{self, ConnId, MuxError};
use super::proto::{
    ConfigureRequest, ConfigureResponse, CreateContainerRequest, Event, PodSandbox,
    PodSandboxRequest, RegisterPluginRequest, StateChangeEvent, SynchronizeRequest,
    SynchronizeResponse,
};
use super::sandboxes::Told;
use super::ttrpc::{self, Answer, Call, CallError, Client, Code};
use crate::model::Sandbox;
use crate::telemetry::Outcome;

const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// How long the runtime may take to answer our registration. Its own limit for all of registration
/// is 5 s by default (containerd, `plugin_registration_timeout`).
const REGISTER_WITHIN: Duration = Duration::from_secs(5);

/// How long after its answer the runtime may take until Synchronize. A runtime whose Synchronize
/// went wrong may keep the socket open and never send an event (containerd #13901).
const SYNCHRONIZE_WITHIN: Duration = Duration::from_secs(30);

/// The events that we want: no runtime refuses these bits, an unknown one makes registration fail.
const SUBSCRIBED: i32 = bit(Event::RunPodSandbox)
    | bit(Event::StopPodSandbox)
    | bit(Event::RemovePodSandbox)
    | bit(Event::CreateContainer);

const fn bit(event: Event) -> i32 {
    1 << (event as i32 - 1)
}

/// Why a session has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("connect to {}: {source}", .socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error(transparent)]
    Mux(#[from] MuxError),
    #[error("the runtime closed the connection")]
    Closed,
    #[error("register: {0}")]
    Register(CallError),
    #[error("registered, but not told of the sandboxes within {SYNCHRONIZE_WITHIN:?}")]
    NotSynchronized,
    #[error("the runtime shut the plugin down")]
    ShutDown,
}

/// What one session knows beyond what all have in common.
#[derive(Debug)]
pub(super) struct Session {
    events: Arc<Events>,
    config: NriConfig,
    number: u64,
    said: Mutex<Said>,
    synchronized: watch::Sender<bool>,
    settled: watch::Sender<bool>,
    shut_down: CancellationToken,
    calls: TaskTracker,
}

/// What the runtime has said so far.
#[derive(Debug, Default)]
struct Said {
    request_timeout: Option<Duration>,
    /// The parts of a Synchronize that is not complete.
    pods: Vec<PodSandbox>,
}

impl Session {
    pub(super) fn new(events: Arc<Events>, config: NriConfig, number: u64) -> Arc<Self> {
        Arc::new(Self {
            events,
            config,
            number,
            said: Mutex::default(),
            synchronized: watch::Sender::new(false),
            settled: watch::Sender::new(false),
            shut_down: CancellationToken::new(),
            calls: TaskTracker::new(),
        })
    }

    /// Serves the runtime at the other end of `stream`; calls `connected` once it has told us of all
    /// its sandboxes. Ends well only because of `shutdown`, and then answers first what it was asked
    /// before, as far as that fits into the budget.
    pub(super) async fn serve<S>(
        self: Arc<Self>,
        stream: S,
        shutdown: &CancellationToken,
        connected: impl FnOnce(),
    ) -> Result<(), SessionError>
    where
        S: AsyncRead + AsyncWrite,
    {
        let (trunk, [plugin, runtime]) = mux::open(stream, [ConnId::PLUGIN, ConnId::RUNTIME]);
        let (client, answers) = Client::open(runtime);
        let answer = |call| Arc::clone(&self).answer(call);
        let session = async {
            tokio::select! {
                biased;
                ended = trunk.run() => match ended {
                    Ok(()) => SessionError::Closed,
                    Err(error) => error.into(),
                },
                () = ttrpc::serve(plugin, &self.calls, answer) => SessionError::Closed,
                () = answers => SessionError::Closed,
                Err(error) = self.register(&client, connected) => error,
            }
        };
        tokio::pin!(session);
        tokio::select! {
            ended = &mut session => return Err(ended),
            () = shutdown.cancelled() => {}
        }
        self.calls.close();
        tokio::select! {
            _ = &mut session => {}
            _ = timeout(self.config.attach_budget, self.calls.wait()) => {}
        }
        Ok(())
    }

    async fn register(
        &self,
        client: &Client,
        connected: impl FnOnce(),
    ) -> Result<Infallible, SessionError> {
        let request = RegisterPluginRequest {
            plugin_name: self.config.name.clone(),
            plugin_idx: self.config.index.clone(),
        };
        client
            .call(RUNTIME_SERVICE, "RegisterPlugin", request.encode_to_vec(), REGISTER_WITHIN)
            .await
            .map_err(SessionError::Register)?;
        let mut synchronized = self.synchronized.subscribe();
        let told = timeout(SYNCHRONIZE_WITHIN, synchronized.wait_for(|told| *told)).await;
        told.map_err(|_| SessionError::NotSynchronized)?.map_err(|_| SessionError::Closed)?;
        connected();
        self.shut_down.cancelled().await;
        Err(SessionError::ShutDown)
    }

    async fn answer(self: Arc<Self>, call: Call) -> Answer {
        if call.service != PLUGIN_SERVICE {
            return unimplemented(&call);
        }
        let sandbox = |event| decode(&call, |PodSandboxRequest { pod }| (event, pod));
        let told = match call.method.as_str() {
            "Configure" => return self.configure(&call),
            "CreateContainer" => return self.create_container(&call),
            "Synchronize" => return self.synchronize(&call),
            "Shutdown" => {
                let shut_down = self.shut_down.clone();
                return Answer::empty().then(async move { shut_down.cancel() });
            }
            "StateChange" => decode(&call, |told: StateChangeEvent| (told.event(), told.pod)),
            "RunPodSandbox" => sandbox(Event::RunPodSandbox),
            "StopPodSandbox" => sandbox(Event::StopPodSandbox),
            "RemovePodSandbox" => sandbox(Event::RemovePodSandbox),
            _ => return unimplemented(&call),
        };
        match told {
            Ok((event, pod)) => {
                let announced = self.said().request_timeout;
                let ours = self.config.attach_budget;
                let occasion = Occasion {
                    event,
                    pod: pod.unwrap_or_default(),
                    budget: Budget::new(call.received, ours, announced, call.timeout),
                    session: self.number,
                    settled: self.settled.subscribe(),
                };
                Arc::clone(&self.events).handle(occasion).await
            }
            Err(refusal) => refusal,
        }
    }

    fn configure(&self, call: &Call) -> Answer {
        let request: ConfigureRequest = match decode(call, |request| request) {
            Ok(request) => request,
            Err(refusal) => return refusal,
        };
        let limit = u64::try_from(request.request_timeout).ok().filter(|&limit| limit > 0);
        let limit = limit.map(Duration::from_millis);
        self.said().request_timeout = limit;
        tracing::info!(
            runtime = request.runtime_name,
            version = request.runtime_version,
            request_timeout = ?limit,
            "the runtime has configured us"
        );
        Answer::with(&ConfigureResponse { events: SUBSCRIBED })
    }

    /// Says on which CPUs a container shall run. From memory alone: all containers of the node are
    /// asked about.
    fn create_container(&self, call: &Call) -> Answer {
        match decode(call, |request: CreateContainerRequest| request) {
            Ok(request) => self.events.create_container(&request, call.received),
            Err(refusal) => refusal,
        }
    }

    /// Takes one part of the list of all sandboxes. The last is answered at once, for the runtime
    /// gives us no longer than for any event, and then made use of.
    fn synchronize(self: Arc<Self>, call: &Call) -> Answer {
        let part: SynchronizeRequest = match decode(call, |request| request) {
            Ok(part) => part,
            Err(refusal) => return refusal,
        };
        let SynchronizeRequest { pods, more } = part;
        let answer = Answer::with(&SynchronizeResponse { more });
        let mut said = self.said();
        said.pods.extend(pods);
        if more {
            return answer;
        }
        let pods = std::mem::take(&mut said.pods);
        drop(said);
        self.settled.send_replace(false);
        let received = call.received;
        answer.then(async move {
            self.synchronized.send_replace(true);
            self.settle(pods, received).await;
            self.settled.send_replace(true);
        })
    }

    /// Tells the worker which sandboxes there are.
    async fn settle(&self, pods: Vec<PodSandbox>, received: Instant) {
        let listed = task::spawn_blocking(move || pods.into_iter().filter_map(look_up).collect());
        let listed: Vec<Sandbox> = match listed.await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::error!(%error, "looking up the sandboxes ended in a panic");
                return;
            }
        };
        let all = self.events.sandboxes.replace(listed, self.number);
        let sandboxes = all.len();
        self.events.worker.synchronize(all).await;
        let took = received.elapsed();
        self.events.metrics.nri_request("Synchronize", Outcome::Success, took);
        tracing::info!(sandboxes, ?took, "synchronized with the runtime");
    }

    /// No code that holds the lock can panic half-way, so what a poisoned one guards is whole.
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listed sandbox; without a namespace where that cannot be found, and `None` for what cannot
/// be a pod of ours.
fn look_up(pod: PodSandbox) -> Option<Sandbox> {
    let told = match Told::try_from(pod) {
        Ok(told) => told,
        Err(error) => {
            tracing::debug!(%error, "passed over a sandbox");
            return None;
        }
    };
    let sandbox = told.resolve().unwrap_or_else(|error| {
        tracing::warn!(pod = %told.pod, %error, "a listed sandbox without namespace");
        told.within(None)
    });
    Some(sandbox)
}

/// Listens to whatever is at the other end of `stream` until it goes away. What it asks for is read as
/// far as the first look at the node, and answered with nothing.
#[cfg(any(test, feature = "testing"))]
pub async fn listen(stream: impl AsyncRead + AsyncWrite) {
    let (trunk, [plugin, runtime]) = mux::open(stream, [ConnId::PLUGIN, ConnId::RUNTIME]);
    let (client, answers) = Client::open(runtime);
    let calls = TaskTracker::new();
    let register = client.call(RUNTIME_SERVICE, "RegisterPlugin", Vec::new(), REGISTER_WITHIN);
    tokio::select! {
        _ = trunk.run() => {}
        () = ttrpc::serve(plugin, &calls, |call| std::future::ready(understand(&call))) => {}
        () = answers => {}
        _ = async { (register.await, std::future::pending::<()>().await) } => {}
    }
    calls.close();
    calls.wait().await;
}

#[cfg(any(test, feature = "testing"))]
fn understand(call: &Call) -> Answer {
    let pods = match call.method.as_str() {
        "Configure" => decode(call, |_: ConfigureRequest| Vec::new()),
        "CreateContainer" => {
            decode(call, |created: CreateContainerRequest| created.pod.into_iter().collect())
        }
        "Synchronize" => decode(call, |part: SynchronizeRequest| part.pods),
        "StateChange" => decode(call, |told: StateChangeEvent| {
            let _ = told.event();
            told.pod.into_iter().collect()
        }),
        _ => decode(call, |PodSandboxRequest { pod }| pod.into_iter().collect()),
    };
    match pods {
        Ok(pods) => {
            let told: Vec<_> =
                pods.into_iter().filter_map(|pod| Told::try_from(pod).ok()).collect();
            tracing::trace!(?told, "understood");
            Answer::empty()
        }
        Err(refusal) => refusal,
    }
}

fn decode<M, T>(call: &Call, then: impl FnOnce(M) -> T) -> Result<T, Answer>
where
    M: prost::Message + Default,
{
    M::decode(call.payload.as_slice()).map(then).map_err(|error| {
        let message = format!("decode {}: {error}", call.method);
        tracing::warn!(message, "refused a call");
        Answer::refuse(Code::InvalidArgument, message)
    })
}

fn unimplemented(call: &Call) -> Answer {
    let Call { service, method, .. } = call;
    tracing::debug!(service, method, "refused a call of an unknown method");
    Answer::refuse(Code::Unimplemented, format!("{service}/{method} is not implemented"))
}
