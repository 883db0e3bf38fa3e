//! Which devices a claim gets: a pure decision over what the API server holds.

use std::collections::BTreeMap;
use std::fs;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, CapacityRequirements, Device, DeviceAllocationConfiguration,
    DeviceAllocationResult, DeviceClaim, DeviceClass, DeviceRequest, DeviceRequestAllocationResult,
    DeviceSelector, DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice,
};

use super::ScheduleError;
use super::cel::{self, Expression};
use super::search::{Alternative, Offer, Search, is_named};
use super::share::{Amounts, amounts, consumption, has_room, is_shared, quantities};

/// What a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    pub classes: &'a [DeviceClass],
    pub slices: &'a [ResourceSlice],
    pub claims: &'a [ResourceClaim],
    pub node: &'a str,
}

/// What each offer that is shared gives, by its number.
type Consumed = BTreeMap<usize, Amounts>;

/// What a request or sub-request says, in one form.
struct Wanted<'a> {
    name: String,
    class: &'a str,
    selectors: &'a [DeviceSelector],
    mode: &'a str,
    count: i64,
    tolerations: &'a [DeviceToleration],
    capacity: Option<&'a CapacityRequirements>,
}

/// The allocation of `claim` on a node, by first fit in the order of pools, slices and devices.
///
/// Only the newest generation of a pool counts, and only when all its slices are there. Devices
/// that other claims hold, and devices with a taint that the request does not tolerate, are not on
/// offer. Of a device that is shared, what is left of its capacity is.
///
/// # Errors
///
/// The first request that cannot be satisfied, and why.
pub fn decide(claim: &ResourceClaim, world: &World<'_>) -> Result<AllocationResult, ScheduleError> {
    let work = || decide_here(claim, world);
    cel::on_large_stack(work).map_err(ScheduleError::Thread)?
}

fn decide_here(
    claim: &ResourceClaim,
    world: &World<'_>,
) -> Result<AllocationResult, ScheduleError> {
    let none = DeviceClaim::default();
    let wanted = claim.spec.devices.as_ref().unwrap_or(&none);
    let offers = offers(world);
    let mut requests = Vec::new();
    for request in wanted.requests.iter().flatten() {
        requests.push(alternatives(request, world, &offers)?);
    }
    let constraints = wanted.constraints.as_deref().unwrap_or_default();
    let mut search = Search { offers: &offers, constraints, chosen: Vec::new() };
    if !search.assign(&requests) {
        return Err(ScheduleError::Together);
    }
    let results = search.chosen.iter().map(|(alternative, offer)| {
        let Offer { driver, pool, device, .. } = &offers[*offer];
        let consumed = alternative.consumed.get(offer);
        Ok(DeviceRequestAllocationResult {
            request: alternative.name.clone(),
            driver: (*driver).to_owned(),
            pool: (*pool).to_owned(),
            device: device.name.clone(),
            share_id: consumed.map(|_| share_id()).transpose()?,
            consumed_capacity: consumed.map(quantities),
            ..Default::default()
        })
    });
    let results = results.collect::<Result<Vec<_>, ScheduleError>>()?;
    let chosen: BTreeMap<&str, &str> = search
        .chosen
        .iter()
        .map(|(alternative, _)| (alternative.name.as_str(), alternative.class))
        .collect();
    Ok(AllocationResult {
        devices: Some(DeviceAllocationResult {
            config: Some(configurations(wanted, world, &chosen)),
            results: Some(results),
        }),
        node_selector: Some(only(world.node)),
        ..Default::default()
    })
}

fn share_id() -> Result<String, ScheduleError> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid");
    id.map(|id| id.trim().to_owned()).map_err(ScheduleError::ShareId)
}

fn offers<'a>(world: &World<'a>) -> Vec<Offer<'a>> {
    let mut pools: BTreeMap<(&str, &str), Vec<&ResourceSlice>> = BTreeMap::new();
    for slice in world.slices {
        let spec = &slice.spec;
        if spec.all_nodes == Some(true) || spec.node_name.as_deref() == Some(world.node) {
            pools.entry((&spec.driver, &spec.pool.name)).or_default().push(slice);
        }
    }
    let mut offers = Vec::new();
    for ((driver, pool), mut slices) in pools {
        let newest =
            slices.iter().map(|slice| slice.spec.pool.generation).max().unwrap_or_default();
        slices.retain(|slice| slice.spec.pool.generation == newest);
        slices.sort_by_key(|slice| slice.metadata.name.as_deref());
        let is_complete = slices
            .iter()
            .all(|s| usize::try_from(s.spec.pool.resource_slice_count) == Ok(slices.len()));
        if !is_complete {
            continue;
        }
        for device in slices.into_iter().flat_map(|slice| slice.spec.devices.iter().flatten()) {
            let is_of = |result: &&DeviceRequestAllocationResult| {
                result.driver == driver && result.pool == pool && result.device == device.name
            };
            let holders = world.claims.iter().flat_map(held).filter(is_of);
            let consumed = holders.clone().filter_map(|it| it.consumed_capacity.as_ref());
            let used = consumed.map(amounts).collect();
            let is_taken = !is_shared(device) && holders.count() > 0;
            offers.push(Offer { driver, pool, device, is_taken, used });
        }
    }
    offers
}

fn held(claim: &ResourceClaim) -> &[DeviceRequestAllocationResult] {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let results = allocation.and_then(|allocation| allocation.devices.as_ref()?.results.as_deref());
    results.unwrap_or_default()
}

/// Whether a request that tolerates `tolerations` may have the device.
fn is_tolerated(device: &Device, tolerations: &[DeviceToleration]) -> bool {
    let is_tolerated = |taint: &DeviceTaint| {
        tolerations.iter().any(|toleration| {
            let is_any = |said: &Option<String>| said.as_deref().is_none_or(str::is_empty);
            let same = |said: &Option<String>, what: &str| said.as_deref() == Some(what);
            let exists = same(&toleration.operator, "Exists");
            (is_any(&toleration.key) && exists || same(&toleration.key, &taint.key))
                && (is_any(&toleration.effect) || same(&toleration.effect, &taint.effect))
                && (exists
                    || toleration.value.as_deref().unwrap_or_default()
                        == taint.value.as_deref().unwrap_or_default())
        })
    };
    let mut taints = device.taints.iter().flatten().filter(|taint| taint.effect != "None");
    taints.all(is_tolerated)
}

/// What each of these offers that is shared would give; those that cannot give it are left out.
fn consumed(
    fitting: &mut Vec<usize>,
    offers: &[Offer<'_>],
    capacity: Option<&CapacityRequirements>,
) -> Consumed {
    let none = BTreeMap::new();
    let asked = capacity.and_then(|capacity| capacity.requests.as_ref()).unwrap_or(&none);
    let mut consumed = BTreeMap::new();
    fitting.retain(|nth| {
        let Offer { driver, device, .. } = &offers[*nth];
        let Some(amounts) = consumption(device, driver, asked) else { return false };
        let fits = has_room(device, std::iter::empty(), &amounts);
        if is_shared(device) {
            consumed.insert(*nth, amounts);
        }
        fits
    });
    consumed
}

fn alternatives<'a>(
    request: &'a DeviceRequest,
    world: &World<'a>,
    offers: &[Offer<'_>],
) -> Result<Vec<Alternative<'a>>, ScheduleError> {
    let mut found = Vec::new();
    let mut failed = None;
    for wanted in wanted(request) {
        match alternative(&wanted, world, offers) {
            Ok((slots, consumed)) => {
                let Wanted { name, class, .. } = wanted;
                found.push(Alternative { name, class, slots, consumed });
            }
            Err(error @ ScheduleError::NotEnough { .. }) => failed = Some(error),
            Err(error) => return Err(error),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

fn wanted(request: &DeviceRequest) -> Vec<Wanted<'_>> {
    const EXACTLY: &str = "ExactCount";
    if let Some(exactly) = &request.exactly {
        return vec![Wanted {
            name: request.name.clone(),
            class: &exactly.device_class_name,
            selectors: exactly.selectors.as_deref().unwrap_or_default(),
            mode: exactly.allocation_mode.as_deref().unwrap_or(EXACTLY),
            count: exactly.count.unwrap_or(1),
            tolerations: exactly.tolerations.as_deref().unwrap_or_default(),
            capacity: exactly.capacity.as_ref(),
        }];
    }
    let subs = request.first_available.iter().flatten();
    subs.map(|sub| Wanted {
        name: format!("{}/{}", request.name, sub.name),
        class: &sub.device_class_name,
        selectors: sub.selectors.as_deref().unwrap_or_default(),
        mode: sub.allocation_mode.as_deref().unwrap_or(EXACTLY),
        count: sub.count.unwrap_or(1),
        tolerations: sub.tolerations.as_deref().unwrap_or_default(),
        capacity: sub.capacity.as_ref(),
    })
    .collect()
}

fn alternative(
    wanted: &Wanted<'_>,
    world: &World<'_>,
    offers: &[Offer<'_>],
) -> Result<(Vec<Vec<usize>>, Consumed), ScheduleError> {
    let request = || wanted.name.clone();
    let class = world.classes.iter().find(|c| c.metadata.name.as_deref() == Some(wanted.class));
    let class = class.ok_or_else(|| ScheduleError::NoClass {
        request: request(),
        class: wanted.class.to_owned(),
    })?;
    let selectors = class.spec.selectors.iter().flatten().chain(wanted.selectors);
    let is_tolerated = |nth: &usize| is_tolerated(offers[*nth].device, wanted.tolerations);
    let mut fitting: Vec<usize> = (0..offers.len()).filter(is_tolerated).collect();
    for selector in selectors {
        let source = selector.cel.as_ref().map_or("", |cel| cel.expression.as_str());
        let fail = |message: String| ScheduleError::Selector {
            request: request(),
            expression: source.to_owned(),
            message,
        };
        let expression = Expression::compile(source).map_err(fail)?;
        let mut kept = Vec::new();
        for nth in fitting {
            let offer = &offers[nth];
            if expression
                .matches(offer.driver, offer.device)
                .map_err(|message| fail(format!("device {}: {message}", offer.device.name)))?
            {
                kept.push(nth);
            }
        }
        fitting = kept;
    }
    let consumed = consumed(&mut fitting, offers, wanted.capacity);
    let is_free = |nth: &usize| {
        let offer = &offers[*nth];
        let has_room = |wanted| has_room(offer.device, offer.used.iter(), wanted);
        !offer.is_taken && consumed.get(nth).is_none_or(has_room)
    };
    let free: Vec<usize> = fitting.iter().copied().filter(is_free).collect();
    let not_enough = |count| ScheduleError::NotEnough {
        request: request(),
        count,
        fitting: fitting.len(),
        free: free.len(),
    };
    if wanted.mode == "All" {
        if fitting.is_empty() || free.len() < fitting.len() {
            return Err(not_enough(fitting.len().max(1)));
        }
        return Ok((free.into_iter().map(|nth| vec![nth]).collect(), consumed));
    }
    let count = usize::try_from(wanted.count).unwrap_or_default();
    if free.len() < count {
        return Err(not_enough(count));
    }
    Ok((vec![free; count], consumed))
}

fn configurations(
    wanted: &DeviceClaim,
    world: &World<'_>,
    chosen: &BTreeMap<&str, &str>,
) -> Vec<DeviceAllocationConfiguration> {
    let mut configurations = Vec::new();
    for (request, class) in chosen {
        let class = world.classes.iter().find(|c| c.metadata.name.as_deref() == Some(class));
        for config in class.iter().flat_map(|class| class.spec.config.iter().flatten()) {
            configurations.push(DeviceAllocationConfiguration {
                source: "FromClass".to_owned(),
                requests: Some(vec![(*request).to_owned()]),
                opaque: config.opaque.clone(),
            });
        }
    }
    for config in wanted.config.iter().flatten() {
        let names = config.requests.as_deref().unwrap_or_default();
        let is_used = names.is_empty()
            || names.iter().any(|name| chosen.keys().any(|request| is_named(name, request)));
        if is_used {
            configurations.push(DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
    }
    configurations
}

fn only(node: &str) -> NodeSelector {
    NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            ..Default::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn class() -> DeviceClass {
        parse(json!({
            "metadata": { "name": "nic" },
            "spec": {
                "selectors": [{ "cel": { "expression": "device.driver == 'weir.dev'" } }],
                "config": [{
                    "opaque": { "driver": "weir.dev", "parameters": { "from": "class" } },
                }],
            },
        }))
    }

    fn slice(
        name: &str,
        generation: i64,
        count: i64,
        devices: &[(&str, bool, i64)],
    ) -> ResourceSlice {
        let device = |(name, ebpf, numa): &(&str, bool, i64)| {
            json!({ "name": name, "attributes": {
                "ebpf": { "bool": ebpf },
                "resource.kubernetes.io/numaNode": { "int": numa },
            }})
        };
        parse(json!({
            "metadata": { "name": name },
            "spec": {
                "driver": "weir.dev", "nodeName": "node-a",
                "pool": { "name": "node-a", "generation": generation, "resourceSliceCount": count },
                "devices": devices.iter().map(device).collect::<Vec<_>>(),
            },
        }))
    }

    fn claim(requests: &Value) -> ResourceClaim {
        parse(json!({
            "metadata": { "name": "c" },
            "spec": { "devices": { "requests": requests } },
        }))
    }

    fn exactly(name: &str, selector: &str) -> Value {
        json!({ "name": name, "exactly": {
            "deviceClassName": "nic",
            "selectors": [{ "cel": { "expression": selector } }],
        }})
    }

    fn run(
        claim: &ResourceClaim,
        slices: &[ResourceSlice],
        claims: &[ResourceClaim],
    ) -> Result<Vec<String>, String> {
        let classes = [class()];
        let world = World { classes: &classes, slices, claims, node: "node-a" };
        let allocation = decide(claim, &world).map_err(|error| error.to_string())?;
        let results = allocation.devices.unwrap().results.unwrap();
        Ok(results.iter().map(|r| format!("{}={}", r.request, r.device)).collect())
    }

    const EBPF: &str = "device.attributes['weir.dev'].ebpf";
    const ANY: &str = "true";

    #[test]
    fn the_first_device_that_fits_is_taken_and_given_back_if_a_later_request_needs_it() {
        let slices =
            [slice("a", 1, 1, &[("nic0", true, 0), ("nic1", false, 0), ("nic2", true, 1)])];
        let both = claim(&json!([exactly("x", EBPF), exactly("y", EBPF)]));
        assert_eq!(run(&both, &slices, &[]).unwrap(), ["x=nic0", "y=nic2"]);

        let slices = [slice("a", 1, 1, &[("nic0", true, 0), ("nic1", false, 0)])];
        let greedy = claim(&json!([exactly("any", ANY), exactly("ebpf", EBPF)]));
        assert_eq!(run(&greedy, &slices, &[]).unwrap(), ["any=nic1", "ebpf=nic0"]);
    }

    #[test]
    fn what_another_claim_holds_is_not_on_offer() {
        let slices = [slice("a", 1, 1, &[("nic0", true, 0), ("nic1", true, 0)])];
        let mut other = claim(&json!([]));
        other.status = Some(parse(json!({ "allocation": { "devices": { "results": [
            { "request": "r", "driver": "weir.dev", "pool": "node-a", "device": "nic0" },
        ]}}})));
        let others = [other];
        assert_eq!(
            run(&claim(&json!([exactly("x", EBPF)])), &slices, &others).unwrap(),
            ["x=nic1"]
        );

        let two = json!([{ "name": "x", "exactly": { "deviceClassName": "nic", "count": 2 } }]);
        let error = run(&claim(&two), &slices, &others).unwrap_err();
        assert_eq!(error, "request x wants 2 devices; 2 fit and 1 of them free");
    }

    #[test]
    fn a_tainted_device_is_for_those_who_tolerate_it() {
        let mut slices = [slice("a", 1, 1, &[("nic0", true, 0)])];
        let devices = slices[0].spec.devices.as_mut().unwrap();
        let taint = json!([{ "key": "weir.dev/no-carrier", "effect": "NoSchedule" }]);
        devices[0].taints = Some(parse(taint));
        let asks = |tolerations: Value| {
            let request = json!([{ "name": "x", "exactly": {
                "deviceClassName": "nic", "tolerations": tolerations,
            }}]);
            run(&claim(&request), &slices, &[])
        };
        assert!(asks(json!([])).is_err());
        assert!(asks(json!([{ "key": "weir.dev/gone", "operator": "Exists" }])).is_err());
        assert!(asks(json!([{ "operator": "Exists", "effect": "NoExecute" }])).is_err());
        for tolerated in [
            json!([{ "operator": "Exists" }]),
            json!([{ "key": "weir.dev/no-carrier", "operator": "Exists" }]),
            json!([{ "key": "weir.dev/no-carrier", "effect": "NoSchedule" }]),
        ] {
            assert_eq!(asks(tolerated).unwrap(), ["x=nic0"]);
        }
    }

    fn shared() -> ResourceSlice {
        let mut slice = slice("a", 1, 1, &[("nic0", true, 0)]);
        let device = &mut slice.spec.devices.as_mut().unwrap()[0];
        device.allow_multiple_allocations = Some(true);
        device.capacity = Some(parse(json!({
            "weir.dev/shares": { "value": "3", "requestPolicy": {
                "default": "1", "validValues": ["1"],
            }},
            "weir.dev/bandwidth": { "value": "10G", "requestPolicy": {
                "default": "3G", "validRange": { "min": "1M", "max": "10G", "step": "1M" },
            }},
        })));
        slice
    }

    /// The allocation of a claim that asks for so much bandwidth of a shared device.
    fn ask(bandwidth: Option<&str>, others: &[ResourceClaim]) -> Result<ResourceClaim, String> {
        let mut exactly = json!({ "deviceClassName": "nic" });
        if let Some(bandwidth) = bandwidth {
            exactly["capacity"] = json!({ "requests": { "bandwidth": bandwidth } });
        }
        let mut asking = claim(&json!([{ "name": "x", "exactly": exactly }]));
        let (classes, slices) = ([class()], [shared()]);
        let world = World { classes: &classes, slices: &slices, claims: others, node: "node-a" };
        let allocation = decide(&asking, &world).map_err(|error| error.to_string())?;
        asking.status.get_or_insert_default().allocation = Some(allocation);
        Ok(asking)
    }

    #[test]
    fn a_shared_device_is_allocated_until_nothing_is_left() {
        let mut claims = vec![ask(None, &[]).unwrap()];
        claims.push(ask(Some("2500500k"), &claims).unwrap());
        let consumed = |claim: &ResourceClaim| held(claim)[0].consumed_capacity.clone().unwrap();
        assert_eq!(consumed(&claims[0])["weir.dev/bandwidth"].0, "3G");
        assert_eq!(consumed(&claims[1])["weir.dev/bandwidth"].0, "2501M", "rounded up to a step");
        assert_eq!(consumed(&claims[1])["weir.dev/shares"].0, "1");
        assert_ne!(held(&claims[0])[0].share_id, held(&claims[1])[0].share_id);

        assert!(ask(Some("4500M"), &claims).is_err(), "that much is not left");
        claims.push(ask(Some("4499M"), &claims).unwrap());
        assert!(ask(Some("1M"), &claims).is_err(), "there are three shares");
        assert!(ask(Some("11G"), &[]).is_err(), "more than there is");
    }

    #[test]
    fn only_the_newest_complete_generation_counts() {
        let old = slice("a", 1, 1, &[("old", true, 0)]);
        let new = slice("b", 2, 2, &[("new", true, 0)]);
        let one = claim(&json!([exactly("x", EBPF)]));
        assert!(run(&one, &[old.clone(), new.clone()], &[]).is_err());
        let rest = slice("c", 2, 2, &[("rest", false, 0)]);
        assert_eq!(run(&one, &[old, new, rest], &[]).unwrap(), ["x=new"]);
    }

    #[test]
    fn a_constraint_binds_requests_together() {
        let slices = [slice("a", 1, 1, &[("n0", true, 0), ("n1", false, 1), ("n2", true, 1)])];
        let mut aligned = claim(&json!([
            exactly("x", EBPF),
            exactly("y", "!(device.attributes['weir.dev'].ebpf)")
        ]));
        let matching = json!([{ "matchAttribute": "resource.kubernetes.io/numaNode" }]);
        aligned.spec.devices.as_mut().unwrap().constraints = Some(parse(matching));
        assert_eq!(run(&aligned, &slices, &[]).unwrap(), ["x=n2", "y=n1"]);
    }

    #[test]
    fn the_first_sub_request_that_can_be_met_is_taken() {
        let slices = [slice("a", 1, 1, &[("nic0", false, 0)])];
        let request = json!([{ "name": "x", "firstAvailable": [
            {
                "name": "fast", "deviceClassName": "nic",
                "selectors": [{ "cel": { "expression": EBPF } }],
            },
            { "name": "any", "deviceClassName": "nic" },
        ]}]);
        assert_eq!(run(&claim(&request), &slices, &[]).unwrap(), ["x/any=nic0"]);
    }

    #[test]
    fn all_means_every_device_that_fits() {
        let slices =
            [slice("a", 1, 1, &[("nic0", true, 0), ("nic1", false, 0), ("nic2", true, 0)])];
        let all = json!([{ "name": "x", "exactly": {
            "deviceClassName": "nic", "allocationMode": "All",
            "selectors": [{ "cel": { "expression": EBPF } }],
        }}]);
        assert_eq!(run(&claim(&all), &slices, &[]).unwrap(), ["x=nic0", "x=nic2"]);
    }

    #[test]
    fn configuration_comes_from_the_class_first() {
        let slices = [slice("a", 1, 1, &[("nic0", true, 0)])];
        let mut configured = claim(&json!([exactly("x", EBPF)]));
        let opaque = |from: &str| json!({ "driver": "weir.dev", "parameters": { "from": from } });
        configured.spec.devices.as_mut().unwrap().config = Some(parse(json!([
            { "requests": ["x"], "opaque": opaque("claim") },
            { "requests": ["elsewhere"], "opaque": opaque("nobody") },
        ])));
        let classes = [class()];
        let world = World { classes: &classes, slices: &slices, claims: &[], node: "node-a" };
        let config = decide(&configured, &world).unwrap().devices.unwrap().config.unwrap();
        let sources: Vec<&str> = config.iter().map(|config| config.source.as_str()).collect();
        assert_eq!(sources, ["FromClass", "FromClaim"]);
    }

    #[test]
    fn errors_name_the_request_and_the_reason() {
        let slices = [slice("a", 1, 1, &[("nic0", true, 0)])];
        let missing = json!([{ "name": "x", "exactly": { "deviceClassName": "gpu" } }]);
        let error = run(&claim(&missing), &slices, &[]).unwrap_err();
        assert_eq!(error, "request x names DeviceClass gpu, which does not exist");
        let error =
            run(&claim(&json!([exactly("x", "device.attributes['weir.dev'].rdma")])), &slices, &[]);
        let error = error.unwrap_err();
        assert!(error.starts_with("request x: selector"), "{error}");
        assert!(error.contains("nic0"), "{error}");
    }
}
