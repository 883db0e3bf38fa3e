//! A scheduler that allocates devices: it evaluates claims' CEL and writes what it decided through
//! the API, as kube-scheduler and kube-controller-manager do together.
//!
//! It schedules one pod at a time onto a node that it is told; nothing but devices is looked at.

mod cel;
mod decide;
mod search;
mod share;

use std::io;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    Device, DeviceClass, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate,
    ResourceSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

pub use self::decide::{World, decide};

/// Why a pod could not be scheduled.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("request {request} names DeviceClass {class}, which does not exist")]
    NoClass { request: String, class: String },
    #[error("request {request}: selector {expression:?}: {message}")]
    Selector { request: String, expression: String, message: String },
    #[error("request {request} wants {count} devices; {fitting} fit and {free} of them free")]
    NotEnough { request: String, count: usize, fitting: usize, free: usize },
    #[error("each request can be met, but not all of them together")]
    Together,
    #[error("pod {pod} names no claim and no template for {claim}")]
    NoSource { pod: String, claim: String },
    #[error("make a share id")]
    ShareId(#[source] io::Error),
    #[error("start a thread for CEL")]
    Thread(#[source] io::Error),
    #[error("{verb} {what}")]
    Api { verb: &'static str, what: String, source: Box<kube::Error> },
}

fn failed(
    verb: &'static str,
    what: impl Into<String>,
) -> impl FnOnce(kube::Error) -> ScheduleError {
    let what = what.into();
    move |source| ScheduleError::Api { verb, what, source: Box::new(source) }
}

/// Whether each of these devices of `driver` fits the selector `expression`.
///
/// # Errors
///
/// That it is no selector, or cannot be evaluated for one of them, which is then named.
pub fn select(expression: &str, driver: &str, devices: &[Device]) -> Result<Vec<bool>, String> {
    let work = || {
        let compiled = cel::Expression::compile(expression)?;
        let of = |device: &Device| {
            let fits = compiled.matches(driver, device);
            fits.map_err(|error| format!("{}: {error}", device.name))
        };
        devices.iter().map(of).collect()
    };
    cel::on_large_stack(work).map_err(|error| error.to_string())?
}

/// Makes the pod's claims where templates ask for it, allocates and reserves them, and binds the
/// pod to `node`. Answers the claims as stored then.
///
/// # Errors
///
/// The first claim that cannot be had. Claims before it stay allocated.
pub async fn schedule(
    client: &Client,
    namespace: &str,
    pod: &str,
    node: &str,
) -> Result<Vec<ResourceClaim>, ScheduleError> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let pod = pods.get(pod).await.map_err(failed("read pod", pod))?;
    let mut claims = Vec::new();
    for name in claims_of(client, namespace, &pod).await? {
        claims.push(allocate(client, namespace, &name, &pod, node).await?);
    }
    let bind = Patch::Merge(json!({ "spec": { "nodeName": node } }));
    let bound = pods.patch(&pod.name_any(), &PatchParams::default(), &bind).await;
    bound.map_err(failed("bind pod", pod.name_any()))?;
    Ok(claims)
}

/// Allocates one claim, unless it is, and reserves it for `pod`.
///
/// # Errors
///
/// What stands against it; then the claim is as it was.
pub async fn allocate(
    client: &Client,
    namespace: &str,
    name: &str,
    pod: &Pod,
    node: &str,
) -> Result<ResourceClaim, ScheduleError> {
    let all = ListParams::default();
    let claims = Api::<ResourceClaim>::all(client.clone()).list(&all).await;
    let claims = claims.map_err(failed("list", "resourceclaims"))?.items;
    let slices = Api::<ResourceSlice>::all(client.clone()).list(&all).await;
    let slices = slices.map_err(failed("list", "resourceslices"))?.items;
    let classes = Api::<DeviceClass>::all(client.clone()).list(&all).await;
    let classes = classes.map_err(failed("list", "deviceclasses"))?.items;
    let api = Api::<ResourceClaim>::namespaced(client.clone(), namespace);
    let mut claim = api.get(name).await.map_err(failed("read claim", name))?;

    let mut status = claim.status.clone().unwrap_or_default();
    if status.allocation.is_none() {
        let world = World { classes: &classes, slices: &slices, claims: &claims, node };
        status.allocation = Some(decide(&claim, &world)?);
    }
    let uid = pod.uid().unwrap_or_default();
    let consumers = status.reserved_for.get_or_insert_default();
    if consumers.iter().all(|consumer| consumer.uid != uid) {
        consumers.push(ResourceClaimConsumerReference {
            resource: "pods".to_owned(),
            name: pod.name_any(),
            uid,
            ..Default::default()
        });
    }
    claim.status = Some(status);
    let stored = api.replace_status(name, &PostParams::default(), &claim).await;
    stored.map_err(failed("allocate claim", name))
}

/// The names of the pod's claims. A claim that a template asks for is made, once, and named in the
/// pod's status.
async fn claims_of(
    client: &Client,
    namespace: &str,
    pod: &Pod,
) -> Result<Vec<String>, ScheduleError> {
    let mut names = Vec::new();
    for claim in pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten()) {
        let made = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
        let mut made = made.filter(|status| status.name == claim.name);
        let made = made.find_map(|status| status.resource_claim_name.clone());
        let name = match (&claim.resource_claim_name, made, &claim.resource_claim_template_name) {
            (Some(name), _, _) => name.clone(),
            (None, Some(made), _) => made,
            (None, None, Some(template)) => {
                from_template(client, namespace, pod, &claim.name, template).await?
            }
            (None, None, None) => {
                let (pod, claim) = (pod.name_any(), claim.name.clone());
                return Err(ScheduleError::NoSource { pod, claim });
            }
        };
        names.push(name);
    }
    Ok(names)
}

async fn from_template(
    client: &Client,
    namespace: &str,
    pod: &Pod,
    pod_claim: &str,
    template: &str,
) -> Result<String, ScheduleError> {
    let templates = Api::<ResourceClaimTemplate>::namespaced(client.clone(), namespace);
    let template = templates.get(template).await.map_err(failed("read template", template))?;
    let metadata = template.spec.metadata.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert("resource.kubernetes.io/pod-claim-name".to_owned(), pod_claim.to_owned());
    let owner = OwnerReference {
        api_version: Pod::api_version(&()).into_owned(),
        kind: Pod::kind(&()).into_owned(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let claim = ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-{pod_claim}-", pod.name_any())),
            annotations: Some(annotations),
            labels: metadata.labels,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.spec,
        status: None,
    };
    let claims = Api::<ResourceClaim>::namespaced(client.clone(), namespace);
    let made = claims.create(&PostParams::default(), &claim).await;
    let name = made.map_err(failed("create claim for", pod_claim))?.name_any();
    let mut statuses = pod.status.clone().unwrap_or_default().resource_claim_statuses;
    let status = json!({ "name": pod_claim, "resourceClaimName": name });
    let statuses: Vec<_> =
        statuses.iter_mut().flatten().map(|s| json!(s)).chain([status]).collect();
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({ "status": { "resourceClaimStatuses": statuses } }));
    let patched = pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
    patched.map_err(failed("write the status of pod", pod.name_any()))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_server::Server;

    const MANIFESTS: &str = "
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: { name: nic }
spec: { selectors: [{ cel: { expression: \"device.driver == 'weir.dev'\" } }] }
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: { name: a }
spec:
  driver: weir.dev
  nodeName: node-a
  pool: { name: node-a, generation: 1, resourceSliceCount: 1 }
  devices: [{ name: nic0 }]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: { name: one, namespace: default }
spec: { spec: { devices: { requests: [{ name: x, exactly: { deviceClassName: nic } }] } } }
---
apiVersion: v1
kind: Pod
metadata: { name: p, namespace: default }
spec:
  containers: [{ name: c, image: i }]
  resourceClaims: [{ name: net, resourceClaimTemplateName: one }]
---
apiVersion: v1
kind: Pod
metadata: { name: q, namespace: default }
spec:
  containers: [{ name: c, image: i }]
  resourceClaims: [{ name: net, resourceClaimTemplateName: one }]
";

    #[tokio::test]
    async fn a_pod_gets_a_claim_of_its_own_and_a_node() {
        let server = Server::start().await.unwrap();
        server.apply(MANIFESTS).unwrap();
        let client = server.client().unwrap();

        let claims = schedule(&client, "default", "p", "node-a").await.unwrap();

        let [claim] = claims.as_slice() else { panic!("one claim, not {claims:?}") };
        assert!(claim.name_any().starts_with("p-net-"));
        assert_eq!(claim.annotations()["resource.kubernetes.io/pod-claim-name"], "net");
        let status = claim.status.as_ref().unwrap();
        assert_eq!(status.reserved_for.as_ref().unwrap()[0].name, "p");
        let pod: Pod = server.object(Some("default"), "p").unwrap();
        assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("node-a"));

        // Again, as a scheduler that starts over would: nothing new is made or allocated.
        let again = schedule(&client, "default", "p", "node-a").await.unwrap();
        assert_eq!(again, claims);

        let error = schedule(&client, "default", "q", "node-a").await.unwrap_err();
        assert_eq!(error.to_string(), "request x wants 1 devices; 1 fit and 0 of them free");
    }
}
