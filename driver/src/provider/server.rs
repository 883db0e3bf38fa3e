//! One provider, and what it says when it is asked about devices.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::Value;
use tokio::runtime::Handle;

use super::attributes::{Attributes, read};
use super::call::Caller;
use super::{Identity, ProviderError, file};
use crate::model::{Device, DeviceName, ProviderPlace, ProviderRule};
use crate::sys::disk::on_disk;

const HEALTH: &str = "/health";
const ATTRIBUTES: &str = "/GetDeviceAttributes";
const CONFIG: &str = "/GetDeviceConfig";
const RUNTIME_HOOK: &str = "/GetRuntimeHook";

/// About how many devices it is asked at once.
const AT_ONCE: usize = 4;
/// After how many questions without an answer the others are not asked.
const LATE_IN_A_ROW: usize = 2 * AT_ONCE;

/// What a provider says of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) attributes: Attributes,
    /// What lies below everything that class and claim say.
    pub(super) config: Option<Value>,
}

/// What a provider says of each device; `None` where it could not say this time.
pub(super) type Round = BTreeMap<DeviceName, Option<Said>>;

/// What a server says that it can do (`Capabilities` of the protocol).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Abilities {
    pub(super) knows_devices: bool,
    pub(super) has_profiles: bool,
    /// Whether a profile may come with a program to be run on the node. Only with profiles.
    pub(super) has_runtime_hooks: bool,
}

/// One provider.
pub(super) struct Server {
    pub(super) rule: ProviderRule,
    reached: Mutex<Option<Reached>>,
    /// As it was told last.
    abilities: Mutex<Option<Abilities>>,
}

/// The way to a server, and the authority's certificates that it was made with.
struct Reached {
    caller: Caller,
    authority: Option<Vec<u8>>,
}

impl Server {
    /// Reaches out to nobody yet.
    pub(super) fn new(rule: ProviderRule) -> Self {
        Self { rule, reached: Mutex::default(), abilities: Mutex::default() }
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self.rule.place, ProviderPlace::File(_))
    }

    /// The way to it, as it was made last.
    pub(super) async fn caller(&self) -> Result<Caller, ProviderError> {
        let known = locked(&self.reached).as_ref().map(|reached| reached.caller.clone());
        match known {
            Some(caller) => Ok(caller),
            None => self.reach().await,
        }
    }

    /// The way to it, made anew where there is none or other authorities are to be believed. What was
    /// good stays where what is there now is not.
    async fn reach(&self) -> Result<Caller, ProviderError> {
        let authority = match &self.rule.place {
            ProviderPlace::Url { ca: Some(ca), .. } => {
                let ca = ca.clone();
                // The client's own error says of a file that cannot be read that it cannot.
                on_disk(move || fs::read(ca)).await.ok()
            }
            _ => None,
        };
        let before =
            locked(&self.reached).as_ref().map(|it| (it.caller.clone(), it.authority == authority));
        if let Some((caller, true)) = before {
            return Ok(caller);
        }
        let (rule, runtime) = (self.rule.clone(), Handle::current());
        // It reads that file, and maybe those of the system.
        match (on_disk(move || runtime.block_on(Caller::new(&rule))).await, before) {
            (Ok(caller), _) => {
                *locked(&self.reached) = Some(Reached { caller: caller.clone(), authority });
                Ok(caller)
            }
            (Err(error), Some((caller, _))) => {
                tracing::warn!(%error, "the way to it stays as it was");
                Ok(caller)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// What it can do, as it said last; it is asked only where it never could say.
    pub(super) async fn abilities(&self) -> Result<Abilities, ProviderError> {
        let known = *locked(&self.abilities);
        match known {
            Some(abilities) => Ok(abilities),
            None => self.ask_abilities(&self.caller().await?).await,
        }
    }

    async fn ask_abilities(&self, caller: &Caller) -> Result<Abilities, ProviderError> {
        let health = caller.get(HEALTH).await?;
        let is = |field: &str| health[field].as_bool() == Some(true);
        let has_profiles = is("profileProvider");
        let abilities = Abilities {
            knows_devices: is("cloudProvider"),
            has_profiles,
            has_runtime_hooks: has_profiles && is("runtimeHook"),
        };
        *locked(&self.abilities) = Some(abilities);
        Ok(abilities)
    }

    /// Makes sure that nothing is to be run on the node for a profile, which was granted with the
    /// configuration that `question` has: what is run there is in the way of a pod's start, and by
    /// nobody's leave but the provider's.
    ///
    /// # Errors
    ///
    /// [`ProviderError::RuntimeHook`] where something is.
    pub(super) async fn check_runtime_hook(
        &self,
        caller: &Caller,
        question: &Value,
        profile: &str,
    ) -> Result<(), ProviderError> {
        if !self.abilities().await?.has_runtime_hooks {
            return Ok(());
        }
        match caller.post(RUNTIME_HOOK, question).await? {
            Value::Null => Ok(()),
            _ => Err(ProviderError::RuntimeHook {
                provider: self.rule.name.clone(),
                profile: profile.to_owned(),
            }),
        }
    }

    /// Asks about devices, and tells `learn` each answer as it arrives.
    ///
    /// # Errors
    ///
    /// The last [`ProviderError`] where it cannot be reached or read, or was late for some devices; a
    /// device of which it does not want to speak is none. What it did say has been told.
    pub(super) async fn round(
        &self,
        devices: &[Device],
        driver: &str,
        learn: &(dyn Fn(Round) + Sync),
    ) -> Result<(), ProviderError> {
        let provider = &self.rule.name;
        if let ProviderPlace::File(path) = &self.rule.place {
            let (name, path) = (provider.clone(), path.clone());
            let content = on_disk(move || file::read(&name, &path)).await?;
            let of = |device: &Device| {
                let (attributes, left_out) = content.of(device, driver);
                tell(provider, device, &left_out);
                (device.name.clone(), Some(Said { attributes, config: None }))
            };
            learn(devices.iter().map(of).collect());
            return Ok(());
        }
        let caller = &self.reach().await?;
        if !self.ask_abilities(caller).await?.knows_devices {
            // Nothing to say is what it says.
            learn(devices.iter().map(|device| (device.name.clone(), None)).collect());
            return Ok(());
        }
        let mut asked = Vec::with_capacity(devices.len());
        for device in devices {
            asked.push(self.about(caller, device, driver).boxed());
        }
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        let (mut late, mut outcome) = (0, Ok(()));
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => {
                    late = 0;
                    learn(Round::from([answer]));
                }
                Err(error @ ProviderError::Late { .. }) if late < LATE_IN_A_ROW => {
                    late += 1;
                    outcome = Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        outcome
    }

    async fn about(
        &self,
        caller: &Caller,
        device: &Device,
        driver: &str,
    ) -> Result<(DeviceName, Option<Said>), ProviderError> {
        let question = question(device);
        let said = async {
            let attributes = caller.post(ATTRIBUTES, &question).await?;
            let config = match caller.post(CONFIG, &question).await {
                // It may speak of attributes only.
                Err(ProviderError::Refused { status: 404 | 501, .. }) => None,
                answer => Some(answer?).filter(is_config),
            };
            Ok((attributes, config))
        };
        match said.await {
            Ok((attributes, config)) => {
                let (attributes, left_out) = read(&attributes, driver);
                tell(&self.rule.name, device, &left_out);
                Ok((device.name.clone(), Some(Said { attributes, config })))
            }
            Err(error @ (ProviderError::Refused { .. } | ProviderError::Nonsense { .. })) => {
                tracing::warn!(%error, device = %device.name, "nothing new of a device");
                Ok((device.name.clone(), None))
            }
            Err(error) => Err(error),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked has not left it half changed: each change is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn question(device: &Device) -> Value {
    // A device has texts only, of which JSON can be made.
    serde_json::to_value(Identity::from(device)).unwrap_or_default()
}

/// Whether there is anything in it.
fn is_config(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| !fields.is_empty())
}

fn tell(provider: &str, device: &Device, left_out: &[String]) {
    for attribute in left_out {
        tracing::warn!(provider, device = %device.name, attribute, "an attribute was left out");
    }
}
