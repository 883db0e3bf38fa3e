//! Which devices go to which requests, so that all of them are met and the constraints hold.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{Device, DeviceConstraint};

use super::cel;
use super::share::{Amounts, has_room};

/// A device on offer.
#[derive(Clone, Debug)]
pub(super) struct Offer<'a> {
    pub driver: &'a str,
    pub pool: &'a str,
    pub device: &'a Device,
    /// Another claim holds it, and it cannot be shared.
    pub is_taken: bool,
    /// What other claims consume of a device that is shared.
    pub used: Vec<Amounts>,
}

/// One way to satisfy a request: by itself, or by one of its sub-requests.
pub(super) struct Alternative<'a> {
    /// `request`, or `request/subrequest`.
    pub name: String,
    pub class: &'a str,
    /// For each device wanted, the offers that fit.
    pub slots: Vec<Vec<usize>>,
    /// What each of these offers that is shared would give.
    pub consumed: BTreeMap<usize, Amounts>,
}

/// Depth-first, so that a choice which leaves a later request empty-handed is taken back.
pub(super) struct Search<'a> {
    pub offers: &'a [Offer<'a>],
    pub constraints: &'a [DeviceConstraint],
    pub chosen: Vec<(&'a Alternative<'a>, usize)>,
}

impl<'a> Search<'a> {
    pub(super) fn assign(&mut self, requests: &'a [Vec<Alternative<'a>>]) -> bool {
        let Some((first, rest)) = requests.split_first() else { return true };
        first.iter().any(|alternative| self.fill(alternative, &alternative.slots, rest))
    }

    fn fill(
        &mut self,
        alternative: &'a Alternative<'a>,
        slots: &'a [Vec<usize>],
        rest: &'a [Vec<Alternative<'a>>],
    ) -> bool {
        let Some((slot, more)) = slots.split_first() else { return self.assign(rest) };
        for offer in slot {
            if !self.is_free(alternative, *offer) {
                continue;
            }
            self.chosen.push((alternative, *offer));
            if self.is_consistent() && self.fill(alternative, more, rest) {
                return true;
            }
            self.chosen.pop();
        }
        false
    }

    /// Whether an offer can be chosen beside what is chosen already.
    fn is_free(&self, alternative: &Alternative<'_>, nth: usize) -> bool {
        let mut earlier = self.chosen.iter().filter(|(_, chosen)| *chosen == nth);
        let Some(wanted) = alternative.consumed.get(&nth) else { return earlier.next().is_none() };
        let earlier = earlier.filter_map(|(alternative, _)| alternative.consumed.get(&nth));
        let offer = &self.offers[nth];
        has_room(offer.device, offer.used.iter().chain(earlier), wanted)
    }

    fn is_consistent(&self) -> bool {
        self.constraints.iter().all(|constraint| {
            let names = constraint.requests.as_deref().unwrap_or_default();
            let concerned = self.chosen.iter().filter(|(alternative, _)| {
                names.is_empty() || names.iter().any(|name| is_named(name, &alternative.name))
            });
            let devices: Vec<&Offer<'_>> = concerned.map(|(_, nth)| &self.offers[*nth]).collect();
            let values = |attribute: &str| {
                let values = devices.iter().map(|offer| {
                    cel::attribute(offer.device.attributes.as_ref(), offer.driver, attribute)
                });
                values.collect::<Option<Vec<_>>>()
            };
            let matching = constraint.match_attribute.as_deref().is_none_or(|attribute| {
                values(attribute).is_some_and(|v| v.windows(2).all(|pair| pair[0] == pair[1]))
            });
            let distinct = constraint.distinct_attribute.as_deref().is_none_or(|attribute| {
                values(attribute)
                    .is_some_and(|v| (1..v.len()).all(|nth| !v[..nth].contains(&v[nth])))
            });
            matching && distinct
        })
    }
}

/// Whether `name` means `request`, which may be a sub-request `main/sub`.
pub(super) fn is_named(name: &str, request: &str) -> bool {
    name == request || request.split_once('/').is_some_and(|(main, _)| main == name)
}
