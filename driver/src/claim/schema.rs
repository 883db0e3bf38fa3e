//! The format as a JSON schema, for editors and for whoever writes claims by program.
//!
//! It is made of the parser's own names, words and ranges. What only the parser knows, such as what
//! goes together and what is in an address, the descriptions tell; so whatever the parser takes, the
//! schema takes, and not the other way round. Documents for DraNet are not in it.

mod filter;
mod network;
mod node;

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

pub use self::node::node_config_schema;
use super::{alignment, ebpf, layer, profile};

/// The schema of a `NetworkConfig`: JSON Schema, draft 7, which editors understand.
pub fn schema() -> Value {
    let fields = [
        ("apiVersion", constant(layer::API_VERSION)),
        ("kind", constant(layer::KIND)),
        (
            "profile",
            json!({
                "description": "What a provider of the node shall make up for the claim, such as an address.",
                "type": "string", "minLength": 1, "maxLength": profile::LONGEST,
            }),
        ),
        ("interface", network::interface()),
        ("routes", network::routes()),
        ("rules", network::rules()),
        ("neighbors", network::neighbors()),
        ("ethtool", network::ethtool()),
        ("sriov", network::sriov()),
        ("subinterface", network::subinterface()),
        ("alignment", alignment()),
        ("ebpf", programs()),
    ];
    let mut schema =
        object("What a pod's network interface shall be like.", &["apiVersion", "kind"], fields);
    let head = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "NetworkConfig of weir.dev/v1alpha1",
        "definitions": filter::definitions(),
    });
    extend(&mut schema, head);
    schema
}

fn alignment() -> Value {
    // Unquoted, YAML 1.1 makes a boolean of `off`.
    let cpus = json!({ "anyOf": [words(&alignment::CPUS), { "const": false }] });
    let text = "On which CPUs the containers that name the claim may run. Default: off.";
    object("What shall be near the device.", &[], [("cpus", described(text, cpus))])
}

fn programs() -> Value {
    let flow_fields = [
        (
            "entries",
            described(
                "Places for flows on each CPU, a power of two. Default: 4096.",
                integer(ebpf::FLOW_ENTRIES),
            ),
        ),
        (
            "exportPackets",
            described(
                "A flow of as many packets is handed on when it leaves the cache. Default: 16.",
                integer(ebpf::EXPORT_PACKETS),
            ),
        ),
    ];
    let direction =
        |name: &str, text| described(text, json!({ "$ref": format!("#/definitions/{name}") }));
    let filter_fields = [
        ("ingress", direction("ingress", "What comes in, as the pod sees it.")),
        ("egress", direction("egress", "What goes out, as the pod sees it.")),
    ];
    // Unquoted, YAML 1.1 makes a boolean of `off`.
    let telemetry = json!({ "anyOf": [words(&ebpf::TELEMETRIES), { "const": false }] });
    object(
        "Programs on the interface.",
        &[],
        [
            (
                "hook",
                described(
                    "Where the program for incoming packets is. Default: auto.",
                    words(&ebpf::HOOKS),
                ),
            ),
            (
                "telemetry",
                described("What is counted. Default: counters, or off with hook none.", telemetry),
            ),
            ("flows", object("How flows are kept; with telemetry: flows.", &[], flow_fields)),
            ("filter", object("What may pass.", &[], filter_fields)),
        ],
    )
}

/// An object with these fields and no others.
fn object<const N: usize>(
    description: &str,
    required: &[&str],
    properties: [(&str, Value); N],
) -> Value {
    let properties: Map<_, _> =
        properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut object = json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        extend(&mut object, json!({ "required": required }));
    }
    object
}

/// An object with whatever names, each with such a value.
fn map(description: &str, most: usize, value: &Value) -> Value {
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": value,
        "maxProperties": most,
    })
}

fn list(description: &str, most: usize, item: &Value) -> Value {
    json!({ "description": description, "type": "array", "items": item, "maxItems": most })
}

fn integer<T: Copy + Into<u64>>(range: RangeInclusive<T>) -> Value {
    let (lowest, highest): (u64, u64) = ((*range.start()).into(), (*range.end()).into());
    json!({ "type": "integer", "minimum": lowest, "maximum": highest })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn words<T>(words: &[(&str, T)]) -> Value {
    json!({ "type": "string", "enum": words.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
}

fn constant(word: &str) -> Value {
    json!({ "type": "string", "const": word })
}

fn described(description: impl fmt::Display, mut schema: Value) -> Value {
    // Next to a `$ref` nothing else counts in draft 7.
    if schema.get("$ref").is_some() {
        schema = json!({ "allOf": [schema] });
    }
    extend(&mut schema, json!({ "description": description.to_string() }));
    schema
}

/// Adds the fields of `more`.
fn extend(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}

#[cfg(test)]
pub(crate) mod tests;
