//! One provider, and what it says when it is asked about devices.

use std::collections::BTreeMap;

use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::Value;

use super::attributes::{Attributes, read};
use super::call::Caller;
use super::{Identity, ProviderError, file};
use crate::model::{Device, DeviceName, ProviderPlace, ProviderRule};

const HEALTH: &str = "/health";
const ATTRIBUTES: &str = "/GetDeviceAttributes";
const CONFIG: &str = "/GetDeviceConfig";

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
}

/// One provider.
pub(super) struct Server {
    pub(super) rule: ProviderRule,
    /// `None` for a file.
    pub(super) caller: Option<Caller>,
}

impl Server {
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
            let content = file::read(provider, path)?;
            let of = |device: &Device| {
                let (attributes, left_out) = content.of(device, driver);
                tell(provider, device, &left_out);
                (device.name.clone(), Some(Said { attributes, config: None }))
            };
            learn(devices.iter().map(of).collect());
            return Ok(());
        }
        let Some(caller) = &self.caller else { return Ok(()) };
        if !abilities(caller).await?.knows_devices {
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

/// What a server can do.
pub(super) async fn abilities(caller: &Caller) -> Result<Abilities, ProviderError> {
    let health = caller.get(HEALTH).await?;
    let is = |field: &str| health[field].as_bool() == Some(true);
    Ok(Abilities { knows_devices: is("cloudProvider"), has_profiles: is("profileProvider") })
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
