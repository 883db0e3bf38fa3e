//! How a patch and what is stored become one object: merge-patch and server-side apply.
//!
//! Apply here knows one owner per field set: what a manager applied before and applies no longer is
//! removed, as the real server does; but two managers never conflict over a field, the later one
//! wins as if it had asked to force.

use serde_json::{Map, Value};

/// JSON merge-patch (RFC 7396): objects merge, `null` removes, anything else replaces.
pub(super) fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let fields = object(target);
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge_patch(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Brings `live` to what `applied` says, and takes out what the same manager applied `before` and
/// has now left out.
pub(super) fn apply(live: &mut Value, before: Option<&Value>, applied: &Value) {
    if let Some(before) = before {
        prune(live, before, applied, &mut Vec::new());
    }
    merge(live, applied, &mut Vec::new());
}

/// How a list merges.
enum Listing {
    /// Replaced as a whole.
    Atomic,
    /// A set of plain values.
    Set,
    /// Objects that these fields tell apart.
    Keyed(&'static [&'static str]),
}

/// The lists that are not atomic among the kinds that this server knows, as their Go types are
/// marked (`+listType`, `+listMapKey` in `k8s.io/api/resource/v1/types.go` and `core/v1`).
fn listing(path: &[String]) -> Listing {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["status", "devices"] => Listing::Keyed(&["driver", "device", "pool", "shareID"]),
        ["status", "reservedFor"] | ["metadata", "ownerReferences"] => Listing::Keyed(&["uid"]),
        ["metadata", "finalizers"] => Listing::Set,
        [.., "conditions"] => Listing::Keyed(&["type"]),
        _ => Listing::Atomic,
    }
}

fn merge(live: &mut Value, applied: &Value, path: &mut Vec<String>) {
    match applied {
        Value::Object(applied) => {
            let fields = object(live);
            for (name, value) in applied {
                path.push(name.clone());
                merge(fields.entry(name).or_insert(Value::Null), value, path);
                path.pop();
            }
        }
        Value::Array(applied) => merge_list(live, applied, path),
        plain => *live = plain.clone(),
    }
}

fn merge_list(live: &mut Value, applied: &[Value], path: &mut Vec<String>) {
    let keys = match listing(path) {
        Listing::Atomic => {
            *live = Value::Array(applied.to_vec());
            return;
        }
        Listing::Set => None,
        Listing::Keyed(keys) => Some(keys),
    };
    let items = list(live);
    for item in applied {
        match items.iter_mut().find(|other| same(keys, other, item)) {
            Some(other) => merge(other, item, path),
            None => items.push(item.clone()),
        }
    }
}

fn prune(live: &mut Value, before: &Value, applied: &Value, path: &mut Vec<String>) {
    match (live, before) {
        (Value::Object(live), Value::Object(before)) => {
            for (name, old) in before {
                path.push(name.clone());
                match (applied.get(name), live.get_mut(name)) {
                    (Some(new), Some(live)) => prune(live, old, new, path),
                    (None, _) => prune_field(live, name, old, path),
                    (Some(_), None) => {}
                }
                path.pop();
            }
        }
        (Value::Array(live), Value::Array(before)) => {
            let keys = match listing(path) {
                Listing::Atomic => return,
                Listing::Set => None,
                Listing::Keyed(keys) => Some(keys),
            };
            let kept = |item: &Value| {
                applied.as_array().is_some_and(|items| items.iter().any(|i| same(keys, i, item)))
            };
            live.retain(|item| kept(item) || !before.iter().any(|old| same(keys, old, item)));
        }
        _ => {}
    }
}

/// Takes a field out that was applied before and is not any more. What others put below it stays.
fn prune_field(live: &mut Map<String, Value>, name: &str, old: &Value, path: &mut Vec<String>) {
    let Some(value) = live.get_mut(name) else { return };
    let is_shared = match old {
        Value::Object(_) => true,
        Value::Array(_) => !matches!(listing(path), Listing::Atomic),
        _ => false,
    };
    if is_shared {
        prune(value, old, &Value::Null, path);
    }
    let is_empty = match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    if !is_shared || is_empty {
        live.remove(name);
    }
}

fn same(keys: Option<&[&str]>, a: &Value, b: &Value) -> bool {
    match keys {
        None => a == b,
        Some(keys) => keys.iter().all(|key| a.get(key) == b.get(key)),
    }
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

fn list(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(items) => items,
        _ => unreachable!("made a list above"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_removes_what_it_nulls() {
        let mut live = json!({ "a": 1, "b": { "c": 2, "d": 3 }, "list": [1, 2] });
        merge_patch(&mut live, &json!({ "a": null, "b": { "c": 4 }, "list": [3] }));
        assert_eq!(live, json!({ "b": { "c": 4, "d": 3 }, "list": [3] }));
    }

    #[test]
    fn two_drivers_share_the_device_list_of_a_claim() {
        let entry = |driver: &str, ips: &[&str]| {
            let network = json!({ "ips": ips });
            json!({ "driver": driver, "device": "d", "pool": "p", "networkData": network })
        };
        let mut live = json!({ "status": { "devices": [entry("a", &["1.1.1.1/32"])] } });
        let ours = json!({ "status": { "devices": [entry("b", &["2.2.2.2/32"])] } });
        apply(&mut live, None, &ours);
        assert_eq!(live["status"]["devices"].as_array().unwrap().len(), 2);

        // The addresses are an atomic list, the entries are not.
        let changed = json!({ "status": { "devices": [entry("b", &["3.3.3.3/32"])] } });
        apply(&mut live, Some(&ours), &changed);
        assert_eq!(live["status"]["devices"][1], entry("b", &["3.3.3.3/32"]));

        apply(&mut live, Some(&changed), &json!({ "status": {} }));
        assert_eq!(live, json!({ "status": { "devices": [entry("a", &["1.1.1.1/32"])] } }));
    }

    #[test]
    fn a_field_applied_no_longer_goes_away_and_others_stay() {
        let mut live = json!({ "metadata": { "labels": { "theirs": "1", "ours": "2" } } });
        let before = json!({ "metadata": { "labels": { "ours": "2" } } });
        apply(&mut live, Some(&before), &json!({ "metadata": {} }));
        assert_eq!(live, json!({ "metadata": { "labels": { "theirs": "1" } } }));
    }

    #[test]
    fn a_list_of_devices_in_a_slice_is_replaced_as_a_whole() {
        let mut live = json!({ "spec": { "devices": [{ "name": "a" }, { "name": "b" }] } });
        apply(&mut live, None, &json!({ "spec": { "devices": [{ "name": "c" }] } }));
        assert_eq!(live, json!({ "spec": { "devices": [{ "name": "c" }] } }));
    }
}
