//! What providers have to say of the devices of a claim: below what class and claim say of each.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;

use super::ClaimError;
use super::claims::said;
use crate::attach::{PrepareClaim, Wanted};
use crate::claim::Origin;
use crate::model::{Device, DeviceName, Record, ShareId};
use crate::provider::{Granting, Providers};

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

/// Has the profiles of a claim resolved, and adds them. What is answered has to be kept until the
/// claim is recorded, or is not going to be.
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
) -> Result<Granting, ClaimError> {
    let claim = &wanted.claim;
    let granting = providers.granting(&claim.uid);
    for Wanted { name, share, found, wishes, .. } in &wanted.devices {
        let Some(profile) = &wishes.profile else { continue };
        let recorded = || records.iter().find(|record| record.device.name == *name);
        let device: Option<&Device> =
            found.as_ref().or_else(|| recorded().map(|record| &record.device));
        // Of a device that is nowhere the worker has to tell.
        let Some(device) = device else { continue };
        let config = said(object, name, share.as_ref(), driver, profile);
        let place = (device, share.as_ref());
        let answer = providers.grant(object, &claim.uid, place, profile, &config).await;
        match answer {
            Ok(answer) => {
                let all = below.entry((name.clone(), share.clone())).or_default();
                all.push((Origin::Profile, answer));
            }
            Err(source) => {
                let (claim, device) = (claim.clone(), name.clone());
                return Err(ClaimError::Profile { claim, device, source: Box::new(source) });
            }
        }
    }
    Ok(granting)
}
