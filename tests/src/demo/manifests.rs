//! The manifests of the demo, and what it needs to know of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::ResourceExt;
use serde_json::Value;

use super::scene;
use crate::api_server::Server;
use crate::node::NODE;

/// Applies the Node and every manifest of `examples`, in the order of their names.
pub(super) fn apply(server: &Server, examples: &Path) -> Result<()> {
    let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{ name: {NODE} }}\n");
    server.apply(&node)?;
    let directory =
        fs::read_dir(examples).with_context(|| format!("read {}", examples.display()))?;
    let mut files: Vec<_> = directory.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    files.sort();
    ensure!(!files.is_empty(), "no manifests in {}", examples.display());
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        server.apply(&text).with_context(|| format!("apply {}", file.display()))?;
    }
    Ok(())
}

/// The pod that uses a claim with both of the demo's requests.
pub(super) fn pod(server: &Server) -> Result<Pod> {
    let claims = server.objects::<ResourceClaim>();
    let fits = |claim: &ResourceClaim| {
        let selectors = selectors(claim);
        [scene::FILTERED, scene::PLAIN].iter().all(|request| selectors.contains_key(*request))
    };
    let pod = server.objects::<Pod>().into_iter().find(|pod| {
        let names = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
        let mut names = names.filter_map(|claim| claim.resource_claim_name.as_deref());
        names.any(|name| {
            let same =
                |c: &&ResourceClaim| c.name_any() == name && c.namespace() == pod.namespace();
            claims.iter().find(same).is_some_and(fits)
        })
    });
    pod.with_context(|| {
        format!("no pod uses a claim with requests {} and {}", scene::FILTERED, scene::PLAIN)
    })
}

/// The CEL of each request; several expressions of one request joined as they are meant.
pub(super) fn selectors(claim: &ResourceClaim) -> BTreeMap<String, String> {
    let requests = claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    let expression = |request: &k8s_openapi::api::resource::v1::DeviceRequest| {
        let exactly = request.exactly.as_ref();
        let selectors = exactly.and_then(|exactly| exactly.selectors.as_deref());
        let expressions = selectors.unwrap_or_default().iter().filter_map(|s| s.cel.as_ref());
        expressions.map(|cel| cel.expression.trim()).collect::<Vec<_>>().join(" && ")
    };
    requests.map(|request| (request.name.clone(), expression(request))).collect()
}

/// The device of each request, as allocated.
pub(super) fn allocated(claim: &ResourceClaim) -> BTreeMap<String, String> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let results = allocation.and_then(|a| a.devices.as_ref()).and_then(|d| d.results.as_deref());
    let results = results.unwrap_or_default().iter();
    results.map(|result| (result.request.clone(), result.device.clone())).collect()
}

/// What the claim itself configures for a request.
#[derive(Clone, Debug)]
pub(super) struct Configured {
    pub interface: String,
    pub address: IpNet,
    /// Whether what no rule of the ingress filter matches is dropped.
    pub denies_by_default: bool,
    pub has_filter: bool,
}

pub(super) fn configured(claim: &ResourceClaim, request: &str) -> Result<Configured> {
    let configs = claim.spec.devices.iter().flat_map(|devices| devices.config.iter().flatten());
    let parameters: Option<Value> = configs
        .filter(|config| {
            config.requests.as_ref().is_none_or(|names| names.iter().any(|name| name == request))
        })
        .find_map(|config| config.opaque.as_ref().map(|opaque| opaque.parameters.0.clone()));
    let parameters =
        parameters.with_context(|| format!("the claim configures nothing for {request}"))?;
    let text = |pointer: &str| parameters.pointer(pointer).and_then(Value::as_str);
    let interface = text("/interface/name").context("interface.name is not configured")?;
    let address =
        text("/interface/addresses/0").context("interface.addresses is not configured")?;
    let default = text("/ebpf/filter/ingress/defaultAction").unwrap_or("allow");
    Ok(Configured {
        interface: interface.to_owned(),
        address: address.parse().with_context(|| format!("address {address}"))?,
        denies_by_default: default.eq_ignore_ascii_case("deny"),
        has_filter: parameters.pointer("/ebpf/filter/ingress").is_some(),
    })
}

/// The devices of all slices as rows: name, interface, link kind, and what eBPF can do.
pub(super) fn rows(slices: &[ResourceSlice]) -> Vec<[String; 6]> {
    let devices = slices.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
    let row = |device: &k8s_openapi::api::resource::v1::Device| {
        let attribute = |id: &str| {
            let attributes = device.attributes.iter().flatten();
            let mut values = attributes
                .filter(|(name, _)| name.split_once('/').map_or(name.as_str(), |(_, id)| id) == id);
            let Some((_, value)) = values.next() else { return "-".to_owned() };
            let text = value.string.clone().or_else(|| value.version.clone());
            let text = text.or_else(|| value.bool.map(|b| if b { "yes" } else { "no" }.to_owned()));
            text.or_else(|| value.int.map(|int| int.to_string())).unwrap_or_else(|| "-".to_owned())
        };
        [
            device.name.clone(),
            attribute("ifName"),
            attribute("type"),
            attribute("mtu"),
            attribute("xdpNative"),
            attribute("tcx"),
        ]
    };
    devices.map(row).collect()
}

/// Lines of `rows` below `heads`, in columns.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let mut widths = heads.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |cells: [&str; N]| {
        let cells: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(heads)).chain(body).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::node::DRIVER;

    #[test]
    fn a_claim_says_what_the_demo_needs_to_know() {
        let claim: ResourceClaim = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "c" },
            "spec": { "devices": {
                "requests": [{ "name": "filtered", "exactly": {
                    "deviceClassName": "nic",
                    "selectors": [
                        { "cel": { "expression": "a" } },
                        { "cel": { "expression": "b" } },
                    ],
                }}],
                "config": [{
                    "requests": ["filtered"],
                    "opaque": { "driver": "weir.dev", "parameters": {
                        "interface": { "name": "net1", "addresses": ["192.0.2.10/24"] },
                        "ebpf": { "filter": { "ingress": { "defaultAction": "deny" } } },
                    }},
                }],
            }},
        }))
        .unwrap();

        let configured = configured(&claim, "filtered").unwrap();

        assert_eq!(configured.interface, "net1");
        assert!(configured.denies_by_default && configured.has_filter);
        assert_eq!(selectors(&claim)["filtered"], "a && b");
        assert!(super::configured(&claim, "plain").is_err());
    }

    fn slice() -> Value {
        let device = |nth: u8| {
            serde_json::json!({ "name": format!("nic{nth}"), "attributes": {
                "ifName": { "string": format!("nic{nth}") },
                "type": { "string": "veth" },
                "mtu": { "int": 1500 - 10 * i32::from(nth) },
                "tcx": { "bool": true },
                "xdpNative": { "bool": true },
                "xdpInUse": { "bool": false },
            }})
        };
        serde_json::json!({
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": { "name": "a" },
            "spec": {
                "driver": DRIVER, "nodeName": NODE,
                "pool": { "name": NODE, "generation": 1, "resourceSliceCount": 1 },
                "devices": [device(0), device(1), device(2)],
            },
        })
    }

    #[tokio::test]
    async fn the_examples_can_be_applied_and_allocated() {
        let server = Server::start().await.unwrap();
        apply(&server, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")).unwrap();
        server.apply(&slice().to_string()).unwrap();

        let pod = pod(&server).unwrap();
        let client = server.client().unwrap();
        let (namespace, name) = (pod.namespace().unwrap(), pod.name_any());
        let claims = crate::scheduler::schedule(&client, &namespace, &name, NODE);
        let claims = claims.await.unwrap();

        let allocated = allocated(&claims[0]);
        assert_eq!(allocated[scene::FILTERED], "nic0");
        assert_eq!(allocated[scene::PLAIN], "nic1");
        let filtered = configured(&claims[0], scene::FILTERED).unwrap();
        assert!(filtered.has_filter && filtered.denies_by_default);
        assert!(filtered.address.contains(&IpAddr::from(scene::BLOCKED_PEER)));
        assert!(!configured(&claims[0], scene::PLAIN).unwrap().has_filter);
        let rows = rows(&server.objects());
        assert_eq!(
            rows[1].each_ref().map(String::as_str),
            ["nic1", "nic1", "veth", "1490", "yes", "yes"]
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [["nic0".to_owned(), "yes".to_owned()], ["n".to_owned(), "no".to_owned()]];
        let lines = table(["NAME", "X"], &rows);
        assert_eq!(lines, ["NAME  X", "nic0  yes", "n     no"]);
    }
}
