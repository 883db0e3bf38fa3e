//! Devices that several claims share: what of their capacity is left, and what a request consumes
//! (KEP-5075, `staging/src/k8s.io/dynamic-resource-allocation/structured`, Kubernetes 1.36).

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, Device};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::{text, thousandths};

/// Amounts by the capacity's name, in thousandths.
pub(super) type Amounts = BTreeMap<String, i128>;

pub(super) fn is_shared(device: &Device) -> bool {
    device.allow_multiple_allocations == Some(true)
}

/// What a request for `asked` consumes of each capacity; `None` where the device does not give that.
pub(super) fn consumption(
    device: &Device,
    driver: &str,
    asked: &BTreeMap<String, Quantity>,
) -> Option<Amounts> {
    let named = |name: &str| {
        let own = name.strip_prefix(driver).and_then(|rest| rest.strip_prefix('/'));
        asked.get(name).or_else(|| asked.get(own?))
    };
    let mut consumed = Amounts::new();
    for (name, capacity) in device.capacity.iter().flatten() {
        let whole = thousandths(&capacity.value.0)?;
        let asked = match named(name) {
            Some(asked) => Some(thousandths(&asked.0)?),
            None => None,
        };
        let amount = match &capacity.request_policy {
            Some(policy) => by_policy(policy, asked, whole)?,
            None => asked.unwrap_or(whole),
        };
        consumed.insert(name.clone(), amount);
    }
    let is_known = |name: &String| {
        consumed.contains_key(name) || consumed.contains_key(&format!("{driver}/{name}"))
    };
    asked.keys().all(is_known).then_some(consumed)
}

/// Rounded up to what the policy allows.
fn by_policy(policy: &CapacityRequestPolicy, asked: Option<i128>, whole: i128) -> Option<i128> {
    let Some(asked) = asked else {
        return policy.default.as_ref().map_or(Some(whole), |default| thousandths(&default.0));
    };
    if let Some(values) = &policy.valid_values {
        let values: Option<Vec<_>> = values.iter().map(|value| thousandths(&value.0)).collect();
        return values?.into_iter().filter(|value| *value >= asked).min();
    }
    let Some(range) = &policy.valid_range else { return Some(asked) };
    let least = thousandths(&range.min.0)?;
    let mut amount = asked.max(least);
    if let Some(step) = range.step.as_ref().and_then(|step| thousandths(&step.0)) {
        amount = least + (amount - least + step - 1) / step * step;
    }
    let most = range.max.as_ref().map_or(Some(whole), |max| thousandths(&max.0))?;
    (amount <= most).then_some(amount)
}

/// Whether `device` has room for `wanted` beside what is `used`.
pub(super) fn has_room<'a>(
    device: &Device,
    used: impl Iterator<Item = &'a Amounts>,
    wanted: &Amounts,
) -> bool {
    let used: Vec<_> = used.collect();
    device.capacity.iter().flatten().all(|(name, capacity)| {
        let amount = |amounts: &Amounts| amounts.get(name).copied().unwrap_or_default();
        let used: i128 = used.iter().copied().map(amount).sum();
        thousandths(&capacity.value.0).is_some_and(|whole| used + amount(wanted) <= whole)
    })
}

/// Amounts as an allocation has them, and back.
pub(super) fn quantities(amounts: &Amounts) -> BTreeMap<String, Quantity> {
    amounts.iter().map(|(name, amount)| (name.clone(), Quantity(text(*amount)))).collect()
}

pub(super) fn amounts(quantities: &BTreeMap<String, Quantity>) -> Amounts {
    let read =
        |(name, quantity): (&String, &Quantity)| Some((name.clone(), thousandths(&quantity.0)?));
    quantities.iter().filter_map(read).collect()
}
