//! The API server reads quantities and writes them again in a form of its own, whoever sent which.

use serde_json::Value;

use crate::quantity::canonical;

/// Where devices, requests and allocations have quantities; `*` is every item of a list or a map.
const PLACES: [&str; 9] = [
    "spec/devices/*/capacity/*/value",
    "spec/devices/*/capacity/*/requestPolicy/default",
    "spec/devices/*/capacity/*/requestPolicy/validValues/*",
    "spec/devices/*/capacity/*/requestPolicy/validRange/*",
    "spec/sharedCounters/*/counters/*/value",
    "spec/devices/requests/*/exactly/capacity/requests/*",
    "spec/devices/requests/*/firstAvailable/*/capacity/requests/*",
    "spec/spec/devices/requests/*/exactly/capacity/requests/*",
    "status/allocation/devices/results/*/consumedCapacity/*",
];

/// Writes each quantity of the object in its canonical form. What is none stays as it is.
pub(super) fn write(object: &mut Value) {
    for place in PLACES {
        let path: Vec<_> = place.split('/').collect();
        write_at(object, &path);
    }
}

fn write_at(value: &mut Value, path: &[&str]) {
    match (path, value) {
        ([], Value::String(text)) => {
            if let Some(written) = canonical(text) {
                *text = written;
            }
        }
        (["*", rest @ ..], Value::Array(items)) => {
            for item in items {
                write_at(item, rest);
            }
        }
        (["*", rest @ ..], Value::Object(fields)) => {
            fields.values_mut().for_each(|field| write_at(field, rest));
        }
        ([name, rest @ ..], Value::Object(fields)) => {
            if let Some(field) = fields.get_mut(*name) {
                write_at(field, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_written_anew_and_nothing_else() {
        let slice = |value: &str, policy: &str, range: &str| {
            json!({ "spec": { "pool": { "name": "1000" }, "devices": [{
                "name": "eth1",
                "attributes": { "weir.dev/alias": { "string": "1000" } },
                "capacity": { "weir.dev/shares": {
                    "value": value,
                    "requestPolicy": {
                        "default": policy, "validValues": [policy], "validRange": { "min": range },
                    },
                } },
            }] } })
        };
        let mut object = slice("1000", "1000M", "0.5");
        write(&mut object);
        assert_eq!(object, slice("1k", "1G", "500m"));
    }
}
