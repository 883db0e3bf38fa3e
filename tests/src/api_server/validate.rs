//! The checks of the real server that a network driver can fail.
//!
//! Limits and texts follow `pkg/apis/resource/validation/validation.go` and the constants of
//! `k8s.io/api/resource/v1/types.go` (Kubernetes 1.36). Each wrong starts with its field path.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::kind::Kind;
use crate::quantity::thousandths;

const DEVICES_PER_SLICE: usize = 128;
/// For slices with a device that has taints or consumes counters.
const DEVICES_PER_SLICE_WITH_EXTRAS: usize = 64;
const ATTRIBUTES_AND_CAPACITIES: usize = 32;
const STRING_LEN: usize = 64;
const ID_LEN: usize = 32;
const DOMAIN_LEN: usize = 63;
const POOL_LEN: usize = 253;
const TAINTS: usize = 16;
const OPAQUE_LEN: usize = 10 * 1024;
const CONDITIONS: usize = 8;
const IPS: usize = 16;
const NOTE_LEN: usize = 1024;
const VALID_VALUES: usize = 10;

pub(super) fn wrongs(kind: &Kind, existing: Option<&Value>, object: &Value) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let name = text(object, "/metadata/name");
    if !is_subdomain(name) {
        wrongs.invalid("metadata.name", name, "a lowercase RFC 1123 subdomain is needed");
    }
    match kind.name {
        "ResourceSlice" => slice(&mut wrongs, existing, object),
        "ResourceClaim" => claim(&mut wrongs, existing, object),
        "Event" if kind.group == "events.k8s.io" => event(&mut wrongs, existing, object),
        _ => {}
    }
    wrongs.0
}

#[derive(Default)]
struct Wrongs(Vec<String>);

impl Wrongs {
    fn invalid(&mut self, path: &str, value: impl std::fmt::Debug, why: &str) {
        self.0.push(format!("{path}: Invalid value: {value:?}: {why}"));
    }

    fn too_long(&mut self, path: &str, limit: usize) {
        self.0.push(format!("{path}: Too long: may not be more than {limit} bytes"));
    }

    fn too_many(&mut self, path: &str, found: usize, limit: usize) {
        self.0.push(format!("{path}: Too many: {found}: must have at most {limit} items"));
    }

    fn required(&mut self, path: &str, why: &str) {
        self.0.push(format!("{path}: Required value: {why}"));
    }

    fn duplicate(&mut self, path: &str, value: &str) {
        self.0.push(format!("{path}: Duplicate value: {value:?}"));
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn slice(wrongs: &mut Wrongs, existing: Option<&Value>, object: &Value) {
    let driver = text(object, "/spec/driver");
    if !is_subdomain(driver) || driver.len() > DOMAIN_LEN {
        wrongs.invalid("spec.driver", driver, "a DNS subdomain of at most 63 bytes is needed");
    }
    let pool = text(object, "/spec/pool/name");
    if pool.len() > POOL_LEN || !pool.split('/').all(is_subdomain) {
        wrongs.invalid("spec.pool.name", pool, "DNS subdomains with `/` between them are needed");
    }
    let count = object.pointer("/spec/pool/resourceSliceCount").and_then(Value::as_i64);
    if count.unwrap_or_default() < 1 {
        wrongs.invalid("spec.pool.resourceSliceCount", count, "must be greater than zero");
    }
    if object.pointer("/spec/pool/generation").and_then(Value::as_i64).unwrap_or_default() < 0 {
        wrongs.invalid("spec.pool.generation", -1, "must be greater than or equal to zero");
    }
    let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let places = places.iter().filter(|place| object["spec"].get(*place).is_some()).count();
    if places != 1 {
        let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection`";
        wrongs.required("spec", why);
    }
    if let Some(existing) = existing {
        for field in ["driver", "nodeName", "pool.name"] {
            let pointer = format!("/spec/{}", field.replace('.', "/"));
            if existing.pointer(&pointer) != object.pointer(&pointer) {
                let value = object.pointer(&pointer);
                wrongs.invalid(&format!("spec.{field}"), value, "field is immutable");
            }
        }
    }
    devices(wrongs, items(object, "/spec/devices"));
}

fn devices(wrongs: &mut Wrongs, devices: &[Value]) {
    let has_extras = devices
        .iter()
        .any(|device| device.get("taints").is_some() || device.get("consumesCounters").is_some());
    let limit = if has_extras { DEVICES_PER_SLICE_WITH_EXTRAS } else { DEVICES_PER_SLICE };
    if devices.len() > limit {
        wrongs.too_many("spec.devices", devices.len(), limit);
    }
    let mut names = BTreeSet::new();
    for (nth, device) in devices.iter().enumerate() {
        let path = format!("spec.devices[{nth}]");
        let name = text(device, "/name");
        if !is_label(name) {
            wrongs.invalid(&format!("{path}.name"), name, "a lowercase RFC 1123 label is needed");
        }
        if !names.insert(name) {
            wrongs.duplicate(&format!("{path}.name"), name);
        }
        let none = Map::new();
        let map = |field: &str| device.get(field).and_then(Value::as_object).unwrap_or(&none);
        let (attributes, capacity) = (map("attributes"), map("capacity"));
        let total = attributes.len() + capacity.len();
        if total > ATTRIBUTES_AND_CAPACITIES {
            let path = format!("{path}.attributes");
            wrongs.too_many(&path, total, ATTRIBUTES_AND_CAPACITIES);
        }
        taints(wrongs, &path, items(device, "/taints"));
        for (id, value) in attributes {
            let path = format!("{path}.attributes[{id}]");
            qualified_name(wrongs, &path, id);
            attribute(wrongs, &path, value);
        }
        let is_shared = device.get("allowMultipleAllocations") == Some(&Value::Bool(true));
        for (id, capacity) in capacity {
            let path = format!("{path}.capacity[{id}]");
            qualified_name(wrongs, &path, id);
            quantity(wrongs, &format!("{path}.value"), &capacity["value"]);
            if let Some(policy) = capacity.get("requestPolicy").filter(|policy| !policy.is_null()) {
                if !is_shared {
                    let why = "requestPolicy needs allowMultipleAllocations";
                    wrongs.invalid(&format!("{path}.requestPolicy"), policy, why);
                }
                request_policy(wrongs, &path, &capacity["value"], policy);
            }
        }
    }
}

fn taints(wrongs: &mut Wrongs, path: &str, taints: &[Value]) {
    if taints.len() > TAINTS {
        wrongs.too_many(&format!("{path}.taints"), taints.len(), TAINTS);
    }
    for (nth, taint) in taints.iter().enumerate() {
        let path = format!("{path}.taints[{nth}]");
        let key = text(taint, "/key");
        let (domain, name) = key.split_once('/').unwrap_or(("a", key));
        if !is_subdomain(domain) || !is_label(&name.to_ascii_lowercase()) {
            wrongs.invalid(&format!("{path}.key"), key, "a qualified name is needed");
        }
        let effect = text(taint, "/effect");
        if !["NoSchedule", "NoExecute", "None"].contains(&effect) {
            wrongs.invalid(&format!("{path}.effect"), effect, "unsupported value");
        }
    }
}

/// The quantity in thousandths.
fn quantity(wrongs: &mut Wrongs, path: &str, value: &Value) -> Option<i128> {
    let read = value.as_str().and_then(thousandths);
    if read.is_none() {
        wrongs.invalid(path, value, "a quantity is needed");
    }
    read
}

/// `validateRequestPolicy` and what it calls.
fn request_policy(wrongs: &mut Wrongs, path: &str, whole: &Value, policy: &Value) {
    let path = format!("{path}.requestPolicy");
    let whole = whole.as_str().and_then(thousandths).unwrap_or_default();
    let values = items(policy, "/validValues");
    let range = policy.get("validRange").filter(|range| !range.is_null());
    if !values.is_empty() && range.is_some() {
        wrongs.invalid(&path, policy, "exactly one of validValues and validRange can be given");
    }
    if (!values.is_empty() || range.is_some()) && policy.get("default").is_none() {
        wrongs.required(&format!("{path}.default"), "there are valid values");
    }
    let default =
        policy.get("default").and_then(|value| quantity(wrongs, &format!("{path}.default"), value));
    if values.len() > VALID_VALUES {
        wrongs.too_many(&format!("{path}.validValues"), values.len(), VALID_VALUES);
    }
    let mut read = Vec::new();
    for (nth, value) in values.iter().enumerate() {
        read.extend(quantity(wrongs, &format!("{path}.validValues[{nth}]"), value));
    }
    let is_valid = |value: &i128| read.is_empty() || read.contains(value);
    if !read.is_sorted() || read.last().is_some_and(|most| *most > whole) {
        wrongs.invalid(
            &format!("{path}.validValues"),
            values,
            "not ascending, or beyond the value",
        );
    }
    if default.is_some_and(|default| default > whole || !is_valid(&default)) {
        wrongs.invalid(&format!("{path}.default"), default, "not among the valid values");
    }
    let Some(range) = range else { return };
    let mut bound = |name: &str| {
        let value = range.get(name).filter(|value| !value.is_null())?;
        quantity(wrongs, &format!("{path}.validRange.{name}"), value)
    };
    let (least, most) = (bound("min"), bound("max").unwrap_or(whole));
    let step = bound("step");
    let Some(least) = least else {
        return wrongs.required(&format!("{path}.validRange.min"), "");
    };
    let is_step = |value: i128| step.is_none_or(|step| step > 0 && (value - least) % step == 0);
    let is_in_order = least <= most && most <= whole;
    if !is_in_order || !is_step(most) {
        wrongs.invalid(
            &format!("{path}.validRange"),
            range,
            "not within the value, or not in steps",
        );
    }
    if default.is_some_and(|default| default < least || default > most || !is_step(default)) {
        wrongs.invalid(&format!("{path}.default"), default, "not within the valid range");
    }
}

fn qualified_name(wrongs: &mut Wrongs, path: &str, name: &str) {
    let (domain, id) = match name.split_once('/') {
        Some((domain, id)) => (Some(domain), id),
        None => (None, name),
    };
    if let Some(domain) = domain
        && (domain.len() > DOMAIN_LEN || !is_subdomain(domain))
    {
        wrongs.invalid(path, domain, "the domain is no DNS subdomain of at most 63 bytes");
    }
    let is_identifier = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if id.len() > ID_LEN {
        wrongs.too_long(path, ID_LEN);
    } else if !is_identifier {
        wrongs.invalid(path, id, "a valid C identifier is needed");
    }
}

fn attribute(wrongs: &mut Wrongs, path: &str, value: &Value) {
    let kinds = ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];
    let given: Vec<&str> =
        kinds.into_iter().filter(|kind| value.get(kind).is_some_and(|v| !v.is_null())).collect();
    if given.len() != 1 {
        wrongs.invalid(path, given, "exactly one value must be specified");
    }
    if let Some(string) = value.get("string").and_then(Value::as_str)
        && string.len() > STRING_LEN
    {
        wrongs.too_long(&format!("{path}.string"), STRING_LEN);
    }
    if let Some(version) = value.get("version").and_then(Value::as_str) {
        let path = format!("{path}.version");
        if version.len() > STRING_LEN {
            wrongs.too_long(&path, STRING_LEN);
        } else if !is_semver(version) {
            wrongs.invalid(
                &path,
                version,
                "must be a string compatible with semver.org spec 2.0.0",
            );
        }
    }
}

/// The checks of `pkg/apis/core/validation/events.go` for what comes through `events.k8s.io/v1`.
fn event(wrongs: &mut Wrongs, existing: Option<&Value>, object: &Value) {
    for (field, limit) in [
        ("reportingController", 253),
        ("reportingInstance", 128),
        ("action", 128),
        ("reason", 128),
        ("eventTime", 64),
    ] {
        match text(object, &format!("/{field}")) {
            "" => wrongs.required(field, ""),
            value if value.len() > limit => wrongs.too_long(field, limit),
            _ => {}
        }
    }
    if text(object, "/note").len() > NOTE_LEN {
        wrongs.too_long("note", NOTE_LEN);
    }
    let kind = text(object, "/type");
    if !["Normal", "Warning"].contains(&kind) {
        wrongs.invalid("type", kind, "has invalid value");
    }
    if text(object, "/regarding/namespace") != text(object, "/metadata/namespace") {
        let namespace = text(object, "/regarding/namespace");
        wrongs.invalid("regarding.namespace", namespace, "does not match event.namespace");
    }
    let deprecated = object.as_object().into_iter().flatten();
    for (field, value) in deprecated.filter(|(field, _)| field.starts_with("deprecated")) {
        wrongs.invalid(field, value, "needs to be unset");
    }
    if let Some(series) = object.get("series").filter(|series| !series.is_null())
        && series["count"].as_i64().unwrap_or_default() < 2
    {
        wrongs.invalid("series.count", &series["count"], "should be at least 2");
    }
    // Nothing but the series can be changed.
    let Some(existing) = existing else { return };
    for field in ["regarding", "related", "reason", "note", "type", "eventTime", "action"] {
        if existing.get(field) != object.get(field) {
            wrongs.invalid(field, object.get(field), "field is immutable");
        }
    }
}

fn claim(wrongs: &mut Wrongs, existing: Option<&Value>, object: &Value) {
    if let Some(existing) = existing {
        if existing.get("spec") != object.get("spec") {
            wrongs.invalid("spec", "…", "field is immutable");
        }
        let allocation = |claim: &Value| claim.pointer("/status/allocation").cloned();
        if let (Some(old), Some(new)) = (allocation(existing), allocation(object))
            && old != new
        {
            wrongs.invalid("status.allocation", "…", "field is immutable");
        }
    }
    for (nth, config) in items(object, "/spec/devices/config").iter().enumerate() {
        if let Some(opaque) = config.pointer("/opaque/parameters")
            && opaque.to_string().len() > OPAQUE_LEN
        {
            let path = format!("spec.devices.config[{nth}].opaque.parameters");
            wrongs.too_long(&path, OPAQUE_LEN);
        }
    }
    let results = items(object, "/status/allocation/devices/results");
    for (nth, result) in results.iter().enumerate() {
        if let Some(share) = result.get("shareID").and_then(Value::as_str)
            && !is_uuid(share)
        {
            let path = format!("status.allocation.devices.results[{nth}].shareID");
            wrongs.invalid(&path, share, "must be a lowercase UUID");
        }
    }
    let allocated: Vec<_> = results.iter().map(device_key).collect();
    let mut seen = BTreeSet::new();
    for (nth, device) in items(object, "/status/devices").iter().enumerate() {
        let path = format!("status.devices[{nth}]");
        let key = device_key(device);
        if !allocated.contains(&key) {
            wrongs.invalid(&path, key, "must be an allocated device in the claim");
        }
        if !seen.insert(key) {
            wrongs.duplicate(&path, text(device, "/device"));
        }
        device_status(wrongs, &path, device);
    }
}

fn device_key(device: &Value) -> [&str; 4] {
    ["/driver", "/pool", "/device", "/shareID"].map(|pointer| text(device, pointer))
}

fn device_status(wrongs: &mut Wrongs, path: &str, device: &Value) {
    let conditions = items(device, "/conditions").len();
    if conditions > CONDITIONS {
        wrongs.too_many(&format!("{path}.conditions"), conditions, CONDITIONS);
    }
    if device.get("data").is_some_and(|data| data.to_string().len() > OPAQUE_LEN) {
        wrongs.too_long(&format!("{path}.data"), OPAQUE_LEN);
    }
    for (field, limit) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if text(device, &format!("/networkData/{field}")).len() > limit {
            wrongs.too_long(&format!("{path}.networkData.{field}"), limit);
        }
    }
    let ips = items(device, "/networkData/ips");
    if ips.len() > IPS {
        wrongs.too_many(&format!("{path}.networkData.ips"), ips.len(), IPS);
    }
    let mut seen = BTreeSet::new();
    for (nth, ip) in ips.iter().enumerate() {
        let path = format!("{path}.networkData.ips[{nth}]");
        let ip = ip.as_str().unwrap_or_default();
        // The canonical form only: `192.0.2.010/24` and the like are refused.
        if ip.parse::<IpNet>().map(|net| net.to_string()).ok().as_deref() != Some(ip) {
            wrongs.invalid(&path, ip, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24)");
        }
        if !seen.insert(ip) {
            wrongs.duplicate(&path, ip);
        }
    }
}

fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let is_hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    text.split('-').map(str::len).eq(lengths) && text.split('-').all(is_hex)
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= POOL_LEN && text.split('.').all(is_label)
}

/// `major.minor.patch` without leading zeroes, then perhaps `-pre` and `+build`.
fn is_semver(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(t, b)| (t, Some(b)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(c, p)| (c, Some(p)));
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_pre = |part: &str| {
        is_word(part) && (!part.bytes().all(|b| b.is_ascii_digit()) || is_number(part))
    };
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_pre))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_version_is_a_semver_only_when_cut_to_form() {
        for good in ["6.18.44", "6.12.107-deb13.1", "1.0.0+build.7", "0.0.0-0.a"] {
            assert!(is_semver(good), "{good}");
        }
        for bad in ["6.18", "6.18.44_fc", "06.1.2", "6.1.2-", "v6.1.2", "6.1.2-01", "1.2.3.4"] {
            assert!(!is_semver(bad), "{bad}");
        }
    }

    #[test]
    fn a_request_policy_stays_within_what_there_is() {
        let wrong = |policy: serde_json::Value| {
            let mut wrongs = Wrongs::default();
            request_policy(&mut wrongs, "c", &"10G".into(), &policy);
            !wrongs.0.is_empty()
        };
        let range = |default: &str, min: &str, max: &str, step: &str| {
            let range = serde_json::json!({"min": min, "max": max, "step": step});
            serde_json::json!({"default": default, "validRange": range})
        };
        assert!(!wrong(range("1250M", "1M", "10G", "1M")));
        assert!(wrong(range("1250500k", "1M", "10G", "1M")), "the default is no step");
        assert!(wrong(range("1M", "1M", "11G", "1M")), "beyond the value");
        assert!(wrong(range("1k", "1M", "10G", "1M")), "below the least");
        assert!(wrong(serde_json::json!({"validValues": ["1"]})), "no default");
        assert!(wrong(serde_json::json!({"default": "2", "validValues": ["1"]})));
        assert!(!wrong(serde_json::json!({"default": "1", "validValues": ["1", "2"]})));
    }

    #[test]
    fn an_attribute_name_is_an_identifier_below_a_domain() {
        let wrong = |name: &str| {
            let mut wrongs = Wrongs::default();
            qualified_name(&mut wrongs, "a", name);
            !wrongs.0.is_empty()
        };
        for good in ["ifName", "weir.dev/ifName", "_x", &"a".repeat(32)] {
            assert!(!wrong(good), "{good}");
        }
        for bad in ["if-name", "1x", "", "a/b/c", "Weir/x", &"a".repeat(33)] {
            assert!(wrong(bad), "{bad}");
        }
    }
}
