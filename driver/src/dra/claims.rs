//! From a claim as the API server has it to what the worker is asked for.

use k8s_openapi::api::resource::v1::{
    DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimStatus,
};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::error::{ClaimError, DeviceFault, DeviceProblem, api_text};
use super::profiles::Below;
use super::{API_TIMEOUT, Pool};
use crate::attach::{PrepareClaim, Wanted};
use crate::claim::{self, Origin, Source};
use crate::model::{ClaimRef, Device, DeviceName, PodRef, ShareId, Wishes};
use crate::provider;

/// The claim as it is now, which need not be the one that was asked for: see [`wanted`].
pub(super) async fn fetch(client: &Client, claim: &ClaimRef) -> Result<ResourceClaim, ClaimError> {
    let api = Api::<ResourceClaim>::namespaced(client.clone(), &claim.namespace);
    let message = match timeout(API_TIMEOUT, api.get(&claim.name)).await {
        Ok(Ok(object)) => return Ok(object),
        Ok(Err(error)) => api_text(&error),
        Err(_) => format!("no answer from the API server within {} s", API_TIMEOUT.as_secs()),
    };
    Err(ClaimError::Fetch { claim: claim.clone(), message })
}

/// What `object` was allocated of our pool, and what it wishes of each device. `None` where it was
/// allocated nothing of our driver's. `devices` is what the inventory sees now, `below` what
/// providers say of them.
///
/// # Errors
///
/// Any [`ClaimError`] about the claim itself; [`ClaimError::Devices`] with everything that is wrong
/// with single devices.
pub(super) fn wanted(
    claim: ClaimRef,
    object: &ResourceClaim,
    pool: &Pool,
    devices: &[Device],
    below: &Below,
) -> Result<Option<PrepareClaim>, ClaimError> {
    let found = object.metadata.uid.as_deref().unwrap_or_default();
    if found != claim.uid.as_str() {
        return Err(ClaimError::Replaced { claim, found: found.to_owned() });
    }
    let status = object.status.as_ref();
    let Some(allocation) = status.and_then(|status| status.allocation.as_ref()) else {
        return Err(ClaimError::NotAllocated { claim });
    };
    let nothing = DeviceAllocationResult::default();
    let allocated = allocation.devices.as_ref().unwrap_or(&nothing);
    let ours: Vec<_> =
        allocated.results.iter().flatten().filter(|result| result.driver == pool.driver).collect();
    if ours.is_empty() {
        return Ok(None);
    }

    let pod = consumer(&claim, status)?;
    let configs = allocated.config.as_deref().unwrap_or_default();
    let mut wanted = Vec::with_capacity(ours.len());
    let mut problems = Vec::new();
    for result in ours {
        match want(result, configs, pool, (devices, below), &wanted) {
            Ok(device) => wanted.push(device),
            Err(fault) => problems.push(DeviceProblem {
                request: result.request.clone(),
                device: result.device.clone(),
                fault,
            }),
        }
    }
    if problems.is_empty() {
        Ok(Some(PrepareClaim { claim, pod, devices: wanted }))
    } else {
        Err(ClaimError::Devices { claim, problems })
    }
}

/// The one pod that the claim is reserved for.
fn consumer(claim: &ClaimRef, status: Option<&ResourceClaimStatus>) -> Result<PodRef, ClaimError> {
    let consumers = status.and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
    let [consumer] = consumers else {
        let (claim, consumers) = (claim.clone(), consumers.len());
        return Err(ClaimError::Consumers { claim, consumers });
    };
    let ResourceClaimConsumerReference { api_group, resource, name, uid } = consumer;
    if resource != "pods" || api_group.as_deref().is_some_and(|group| !group.is_empty()) {
        let consumer = format!("{resource} {name}");
        return Err(ClaimError::NotAPod { claim: claim.clone(), consumer });
    }
    let namespace = claim.namespace.clone();
    match uid.parse() {
        Ok(uid) => Ok(PodRef { namespace, name: name.clone(), uid }),
        Err(source) => Err(ClaimError::Uid { namespace, name: name.clone(), source }),
    }
}

fn want(
    result: &DeviceRequestAllocationResult,
    configs: &[DeviceAllocationConfiguration],
    pool: &Pool,
    (devices, below): (&[Device], &Below),
    earlier: &[Wanted],
) -> Result<Wanted, DeviceFault> {
    if result.pool != pool.node {
        let (pool, ours) = (result.pool.clone(), pool.node.clone());
        return Err(DeviceFault::OtherPool { pool, ours });
    }
    if result.admin_access == Some(true) {
        return Err(DeviceFault::AdminAccess);
    }
    let name: DeviceName = result.device.parse().map_err(|_| DeviceFault::Name)?;
    let share = match &result.share_id {
        Some(id) => Some(id.parse().map_err(|_| DeviceFault::ShareId(id.clone()))?),
        None => None,
    };
    let is_same = |device: &Wanted| {
        device.name == name && (device.share.is_none() || share.is_none() || device.share == share)
    };
    if earlier.iter().any(is_same) {
        return Err(DeviceFault::Twice);
    }
    let below = below.get(&(name.clone(), share.clone())).map_or(&[][..], Vec::as_slice);
    let wishes = wishes(&result.request, configs, &pool.driver, below)?;
    check_share(share.as_ref(), &wishes)?;
    Ok(Wanted {
        requests: vec![main_request(&result.request).to_owned()],
        pool: result.pool.clone(),
        share,
        found: devices.iter().find(|device| device.name == name).cloned(),
        wishes,
        name,
    })
}

/// What was allocated as one of several shares has to be an interface of its own. What of the
/// device's capacity was consumed is the scheduler's account, and says nothing here.
fn check_share(share: Option<&ShareId>, wishes: &Wishes) -> Result<(), DeviceFault> {
    match (share, &wishes.subinterface) {
        (Some(_), None) => Err(DeviceFault::SharedWhole),
        _ => Ok(()),
    }
}

/// What the class and the claim wish of the device that answers `request`, over what is below them.
fn wishes(
    request: &str,
    configs: &[DeviceAllocationConfiguration],
    driver: &str,
    below: &[(Origin, Value)],
) -> Result<Wishes, DeviceFault> {
    let below = below.iter().map(|(origin, config)| Source {
        origin: *origin,
        index: 0,
        parameters: config,
    });
    let mut sources: Vec<_> = below.collect();
    sources.extend(self::sources(request, configs, driver));
    claim::parse(&sources).map_err(DeviceFault::Config)
}

/// The configurations of class and claim for `request`, the claim's last.
fn sources<'a>(
    request: &str,
    configs: &'a [DeviceAllocationConfiguration],
    driver: &str,
) -> Vec<Source<'a>> {
    let mut sources: Vec<_> = configs
        .iter()
        .enumerate()
        .filter(|(_, config)| is_meant(config.requests.as_deref().unwrap_or_default(), request))
        .filter_map(|(index, config)| {
            let opaque = config.opaque.as_ref().filter(|opaque| opaque.driver == driver)?;
            // Whatever is not from the claim ranks as the class does, below the claim.
            let origin = if config.source == "FromClaim" { Origin::Claim } else { Origin::Class };
            Some(Source { origin, index, parameters: &opaque.parameters.0 })
        })
        .collect();
    // Stable, so that within one origin the API server's order decides.
    sources.sort_by_key(|source| matches!(source.origin, Origin::Claim));
    sources
}

/// Fields of our own format that mean the same to a provider, which has been told of DraNet's.
const SHARED_FIELDS: [&str; 5] = ["name", "addresses", "dhcp", "mtu", "hardwareAddr"];

/// What class and claim say of an allocated device, in one, as a provider is told of it.
pub(super) fn said(
    object: &ResourceClaim,
    device: &DeviceName,
    share: Option<&ShareId>,
    driver: &str,
    profile: &str,
) -> Value {
    let allocation = object.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    let is_it = |result: &&DeviceRequestAllocationResult| {
        let same_share = result.share_id.as_deref() == share.map(ShareId::as_str);
        result.driver == driver && result.device == device.as_str() && same_share
    };
    let results = devices.and_then(|devices| devices.results.as_ref());
    let request = results.into_iter().flatten().find(is_it).map_or("", |it| &it.request);
    let configs = devices.and_then(|devices| devices.config.as_deref()).unwrap_or_default();
    let mut said = json!({});
    for source in sources(request, configs, driver) {
        let is_ours = source.parameters.get("apiVersion").is_some();
        if !is_ours {
            said = provider::over(source.parameters, said);
        } else if let Some(Value::Object(fields)) = source.parameters.get("interface") {
            let shared = fields.iter().filter(|(name, _)| SHARED_FIELDS.contains(&name.as_str()));
            let shared: Map<_, _> =
                shared.map(|(name, value)| (name.clone(), value.clone())).collect();
            said = provider::over(&json!({ "interface": shared }), said);
        }
    }
    provider::over(&json!({ "profile": profile }), said)
}

/// Whether a configuration for `requests` is meant for the device that answers `request`. A
/// configuration that names no request is meant for all, one that names a request with alternatives
/// is meant for each of them.
pub(crate) fn is_meant(requests: &[String], request: &str) -> bool {
    requests.is_empty()
        || requests.iter().any(|name| name == request || name == main_request(request))
}

/// `main` of `main/sub`. Kubelet and pods know only that part.
fn main_request(request: &str) -> &str {
    request.split_once('/').map_or(request, |(main, _)| main)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, pool};
    use crate::model::{MacvlanMode, SubinterfaceKind};

    const UID: &str = "6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c11";

    fn claim_ref() -> ClaimRef {
        ClaimRef {
            namespace: "default".to_owned(),
            name: "nics".to_owned(),
            uid: UID.parse().unwrap(),
        }
    }

    fn result(request: &str, device: &str) -> Value {
        json!({"request": request, "driver": "weir.dev", "pool": "node-a", "device": device})
    }

    fn config(source: &str, requests: &[&str], mtu: u32) -> Value {
        json!({
            "source": source, "requests": requests,
            "opaque": {"driver": "weir.dev", "parameters": {
                "apiVersion": "weir.dev/v1alpha1",
                "kind": "NetworkConfig",
                "interface": {"mtu": mtu},
            }},
        })
    }

    fn claim(results: &[Value], configs: &[Value]) -> Value {
        json!({
            "metadata": {"namespace": "default", "name": "nics", "uid": UID},
            "spec": {},
            "status": {
                "allocation": {"devices": {"results": results, "config": configs}},
                "reservedFor": [{"resource": "pods", "name": "pod-a", "uid": "0a"}],
            },
        })
    }

    fn read(object: Value) -> Result<Option<PrepareClaim>, ClaimError> {
        let object = serde_json::from_value(object).unwrap();
        wanted(claim_ref(), &object, &pool(), &[device("eth1"), device("eth2")], &Below::new())
    }

    fn refusal(object: Value) -> String {
        read(object).expect_err("must be refused").to_string()
    }

    fn mtu_for(request: &str, configs: &[Value]) -> Option<u32> {
        let wanted = read(claim(&[result(request, "eth1")], configs)).unwrap().unwrap();
        wanted.devices[0].wishes.interface.mtu
    }

    #[test]
    fn an_allocation_becomes_what_the_worker_needs() {
        let wanted = read(claim(&[result("a/fast", "eth1"), result("b", "eth9")], &[]));

        let wanted = wanted.unwrap().unwrap();
        assert_eq!(wanted.pod.to_string(), "default/pod-a");
        assert_eq!(wanted.devices[0].requests, ["a"]);
        assert_eq!(wanted.devices[0].found, Some(device("eth1")));
        assert_eq!(wanted.devices[1].found, None, "what is in a pod is not in the inventory");
    }

    #[test]
    fn a_claim_with_nothing_of_ours_wants_nothing() {
        let mut other = result("a", "gpu-0");
        other["driver"] = json!("gpu.example.com");
        assert!(read(claim(&[other], &[])).unwrap().is_none());
    }

    #[test]
    fn the_claim_outranks_the_class_whatever_their_order() {
        let (class, own) = (config("FromClass", &[], 1400), config("FromClaim", &[], 9000));
        assert_eq!(mtu_for("a", &[class.clone(), own.clone()]), Some(9000));
        assert_eq!(mtu_for("a", &[own, class]), Some(9000));
    }

    #[test]
    fn a_configuration_reaches_the_requests_that_it_names() {
        let named = |name| [config("FromClaim", &[name], 9000)];
        assert_eq!(mtu_for("a", &named("a")), Some(9000));
        assert_eq!(mtu_for("a/fast", &named("a")), Some(9000));
        assert_eq!(mtu_for("a/fast", &named("a/fast")), Some(9000));
        assert_eq!(mtu_for("a/slow", &named("a/fast")), None);
        assert_eq!(mtu_for("b", &named("a")), None);

        let mut foreign = config("FromClaim", &[], 9000);
        foreign["opaque"]["driver"] = json!("gpu.example.com");
        assert_eq!(mtu_for("a", &[foreign]), None);
    }

    #[test]
    fn all_devices_problems_are_told_at_once() {
        let mut elsewhere = result("c", "eth3");
        elsewhere["pool"] = json!("node-b");
        let results = [result("a", "eth1"), result("b", "eth2"), elsewhere, result("d", "eth2")];
        let configs = [config("FromClaim", &["a", "b"], 1)];

        assert_eq!(
            refusal(claim(&results, &configs)),
            "claim default/nics: \
             request a, device eth1: interface.mtu: 1 is below 68; \
             request b, device eth2: interface.mtu: 1 is below 68; \
             request c, device eth3: is in pool node-b, this node has pool node-a"
        );
    }

    /// More than the API server lets into one configuration, so nobody else would notice.
    #[test]
    fn a_filter_of_too_many_rules_is_refused_with_its_path() {
        let rule = |n| json!({"name": format!("r{n}"), "action": "deny"});
        let mut many = config("FromClaim", &[], 1500);
        let rules: Vec<_> = (0..4097).map(rule).collect();
        many["opaque"]["parameters"]["ebpf"] = json!({"filter": {"egress": {"rules": rules}}});
        assert_eq!(
            refusal(claim(&[result("a", "eth1")], &[many])),
            "claim default/nics: request a, device eth1: \
             ebpf.filter.egress.rules: 4097 rules are more than 4096"
        );
    }

    #[test]
    fn a_device_that_could_only_be_taken_away_is_refused() {
        let mut watched = result("a", "eth1");
        watched["adminAccess"] = json!(true);
        assert!(refusal(claim(&[watched], &[])).contains("admin access is not supported"));
        let twice = [result("a", "eth1"), result("b", "eth1")];
        assert!(refusal(claim(&twice, &[])).contains("request b, device eth1: is allocated twice"));
    }

    #[test]
    fn a_share_without_a_subinterface_is_refused_and_the_field_is_named() {
        let mut share = result("a", "eth1");
        share["shareID"] = json!("6b1b2a5e-9a51-4b6c-8f3a-2f5a6f0a7c12");
        share["consumedCapacity"] = json!({"weir.dev/shares": "1"});
        let text = refusal(claim(&[share.clone()], &[]));
        assert!(text.contains("request a, device eth1: is shared"), "{text}");
        assert!(text.contains("`subinterface`"), "{text}");

        share["shareID"] = json!("../x");
        let text = refusal(claim(&[share], &[]));
        assert!(text.contains("has the share id \"../x\", which is none"), "{text}");
    }

    #[test]
    fn a_share_with_a_subinterface_and_a_whole_device_without_are_fine() {
        let share: ShareId = "s1".parse().unwrap();
        let kind = SubinterfaceKind::Macvlan { mode: MacvlanMode::Bridge };
        let upon = Wishes { subinterface: Some(kind), ..Wishes::default() };
        assert!(check_share(Some(&share), &upon).is_ok());
        assert!(check_share(None, &upon).is_ok(), "its claim has it to itself");
        assert!(check_share(None, &Wishes::default()).is_ok());
    }

    #[test]
    fn the_same_device_twice_is_fine_where_the_shares_differ() {
        let share = |request: &str, id: &str| {
            let mut share = result(request, "eth1");
            share["shareID"] = json!(id);
            share
        };
        let earlier = |share: Option<&str>| Wanted {
            requests: Vec::new(),
            pool: pool().node,
            name: "eth1".parse().unwrap(),
            share: share.map(|share| share.parse().unwrap()),
            found: None,
            wishes: Wishes::default(),
        };
        let is_twice = |earlier: Wanted, result: Value| {
            let result = serde_json::from_value(result).unwrap();
            matches!(
                want(&result, &[], &pool(), (&[], &Below::new()), &[earlier]),
                Err(DeviceFault::Twice)
            )
        };
        assert!(is_twice(earlier(Some("s1")), share("b", "s1")));
        assert!(is_twice(earlier(Some("s1")), result("b", "eth1")), "one has all of it");
        assert!(is_twice(earlier(None), share("b", "s1")));
        assert!(!is_twice(earlier(Some("s1")), share("b", "s2")));
    }

    #[test]
    fn a_claim_that_is_not_the_one_asked_for_is_refused() {
        let mut other = claim(&[result("a", "eth1")], &[]);
        other["metadata"]["uid"] = json!("ffff");
        assert_eq!(
            refusal(other),
            format!("claim default/nics has the UID ffff now, {UID} was asked for")
        );
        let mut unallocated = claim(&[], &[]);
        unallocated["status"]["allocation"] = Value::Null;
        assert_eq!(refusal(unallocated), "claim default/nics has no allocation");
    }

    #[test]
    fn a_claim_must_be_reserved_for_exactly_one_pod() {
        let reserved = |consumers: Value| {
            let mut object = claim(&[result("a", "eth1")], &[]);
            object["status"]["reservedFor"] = consumers;
            refusal(object)
        };
        let pod = json!({"resource": "pods", "name": "pod-a", "uid": "0a"});
        assert!(reserved(json!([])).contains("reserved for 0 consumers"));
        let many = reserved(json!([pod, pod]));
        assert!(many.contains("reserved for 2 consumers"), "{many}");
        assert!(many.contains("give each pod a claim of its own"), "{many}");
        let group = json!({"apiGroup": "x.io", "resource": "podgroups", "name": "g", "uid": "0b"});
        assert!(reserved(json!([group])).contains("podgroups g, which is no pod"));
    }
}
