//! What providers have to say of the devices of a claim: below what class and claim say of each.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::ClaimError;
use super::claims::said;
use crate::attach::{PrepareClaim, Wanted};
use crate::claim::Origin;
use crate::model::{DeviceName, Record, ShareId};
use crate::provider::{ProviderError, Providers};

/// How long all profiles of a claim may take together. Kubelet gives up a call after 45 s, and the
/// worker needs some of them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Configurations of devices, each of a share, by who made them.
pub(super) type Below = BTreeMap<(DeviceName, Option<ShareId>), Vec<(Origin, Value)>>;

/// What is known already of the devices that a claim was allocated. Asks nobody.
pub(super) fn known(providers: &Providers, object: &ResourceClaim, driver: &str) -> Below {
    let mut below = Below::new();
    let allocation = object.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    for result in devices.into_iter().flat_map(|devices| devices.results.iter().flatten()) {
        let share = result.share_id.as_ref().and_then(|id| id.parse().ok());
        let Ok(name) = result.device.parse::<DeviceName>() else { continue };
        if result.driver == driver
            && let Some(config) = providers.config_of(&name)
        {
            below.entry((name, share)).or_default().push((Origin::Provider, config));
        }
    }
    below
}

/// Has the profiles of a claim resolved, all at once, and adds them. Of what is recorded nobody is
/// asked: see [`keep`]. What is answered has to be kept until the claim is recorded, or is not going
/// to be, so whoever calls holds a [`Granting`](crate::provider::Granting).
///
/// # Errors
///
/// [`ClaimError::Profile`] with the first that could not be.
pub(super) async fn resolve(
    providers: &Providers,
    object: &ResourceClaim,
    wanted: &PrepareClaim,
    (driver, records): (&str, &[Record]),
    below: &mut Below,
) -> Result<(), ClaimError> {
    let claim = &wanted.claim;
    let deadline = Instant::now() + PATIENCE;
    let mut asked = Vec::with_capacity(wanted.devices.len());
    for device in &wanted.devices {
        let Some(profile) = &device.wishes.profile else { continue };
        if of_claim(wanted, device, records).is_some() {
            continue;
        }
        // Of a device that is nowhere the worker has to tell.
        let recorded = records.iter().find(|record| record.device.name == device.name);
        let recorded = recorded.map(|record| &record.device);
        let Some(found) = device.found.as_ref().or(recorded) else { continue };
        let (name, share) = (&device.name, device.share.as_ref());
        let question = async move {
            let config = said(object, name, share, driver, profile);
            let answer = providers.grant(object, &claim.uid, (found, share), profile, &config);
            let answer = match timeout_at(deadline, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(ProviderError::Slow { profile: profile.clone(), limit: PATIENCE }),
            };
            (name, share, answer)
        };
        asked.push(question.boxed());
    }
    for (name, share, answer) in join_all(asked).await {
        let (claim, device) = (claim.clone(), name.clone());
        let answer = answer.map_err(|source| {
            let source = Box::new(source);
            ClaimError::Profile { claim, device, source }
        })?;
        let all = below.entry((name.clone(), share.cloned())).or_default();
        all.push((Origin::Profile, answer));
    }
    Ok(())
}

/// Leaves devices that this claim has already with what was wished of them then, profile and all: a
/// repeated call changes nothing, and no provider has to be there for it.
pub(super) fn keep(wanted: &mut PrepareClaim, records: &[Record]) {
    let kept: Vec<_> = wanted
        .devices
        .iter()
        .map(|device| of_claim(wanted, device, records).map(|record| record.wishes.clone()))
        .collect();
    for (device, wishes) in wanted.devices.iter_mut().zip(kept) {
        if let Some(wishes) = wishes {
            device.wishes = wishes;
        }
    }
}

/// The record of a device of this claim with the profile that is wished of it.
fn of_claim<'a>(
    wanted: &PrepareClaim,
    device: &Wanted,
    records: &'a [Record],
) -> Option<&'a Record> {
    records.iter().find(|record| {
        record.claim.uid == wanted.claim.uid
            && record.device.name == device.name
            && record.share == device.share
            && device.wishes.profile.is_some()
            && record.wishes.profile == device.wishes.profile
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, record};

    #[test]
    fn a_device_that_a_claim_has_keeps_what_was_wished_of_it() {
        let mut held = record(device("eth1"));
        held.wishes.profile = Some("pool".to_owned());
        held.wishes.interface.mtu = Some(1450);
        let wanted = |profile: &str| PrepareClaim {
            claim: held.claim.clone(),
            pod: held.pod.clone(),
            devices: vec![Wanted {
                requests: Vec::new(),
                pool: "node-a".to_owned(),
                name: held.device.name.clone(),
                share: None,
                found: None,
                wishes: crate::model::Wishes {
                    profile: Some(profile.to_owned()),
                    ..crate::model::Wishes::default()
                },
            }],
        };
        let mtu = |mut wanted: PrepareClaim| {
            keep(&mut wanted, std::slice::from_ref(&held));
            wanted.devices[0].wishes.interface.mtu
        };
        assert_eq!(mtu(wanted("pool")), Some(1450));
        assert_eq!(mtu(wanted("other")), None);
        let mut others = wanted("pool");
        others.claim.uid = "someone-else".parse().unwrap();
        assert_eq!(mtu(others), None);
    }
}
