//! The schema against the parser.

use std::collections::BTreeSet;

use super::*;
use crate::claim::{Origin, Source, parse};

/// Whether a document fits a schema, as far as the schema uses the language; what it uses beyond
/// that is an error.
pub(crate) fn fits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    const SILENT: [&str; 4] = ["$schema", "title", "description", "definitions"];
    for (keyword, said) in schema.as_object().ok_or("no schema")? {
        let fits = match keyword.as_str() {
            "$ref" => {
                let target = said.as_str().unwrap().trim_start_matches('#');
                fits(root, root.pointer(target).ok_or("nothing there")?, value)?;
                true
            }
            "allOf" => all(said).iter().all(|it| fits(root, it, value).is_ok()),
            "anyOf" => all(said).iter().any(|it| fits(root, it, value).is_ok()),
            "properties" | "additionalProperties" => fields(root, schema, value)?,
            "items" => {
                all(value).iter().try_for_each(|item| fits(root, said, item))?;
                true
            }
            "pattern" => {
                // The only form in use: digits with zeros before them.
                let text = said.as_str().unwrap();
                let numbers = text.strip_prefix("^0*(").and_then(|it| it.strip_suffix(")$"));
                let numbers: Vec<_> = numbers.ok_or("another pattern")?.split('|').collect();
                let digits = value.as_str().unwrap_or_default();
                (0..digits.len()).any(|zeros| {
                    digits[..zeros].bytes().all(|b| b == b'0')
                        && numbers.contains(&&digits[zeros..])
                })
            }
            keyword if SILENT.contains(&keyword) => true,
            keyword => is_within(keyword, said, value)?,
        };
        if !fits {
            return Err(format!("{value} has not {keyword} {said}"));
        }
    }
    Ok(())
}

fn fields(root: &Value, schema: &Value, value: &Value) -> Result<bool, String> {
    for (name, value) in value.as_object().into_iter().flatten() {
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(field), _) | (None, Some(field @ Value::Object(_))) => fits(root, field, value)?,
            (None, Some(Value::Bool(false))) => return Err(format!("{name} is not known")),
            (None, _) => {}
        }
    }
    Ok(true)
}

/// The keywords about one value. Those about another type hold.
fn is_within(keyword: &str, said: &Value, value: &Value) -> Result<bool, String> {
    let limit = || said.as_u64().ok_or("no limit");
    let length = match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    } as u64;
    Ok(match keyword {
        "type" => match said.as_str().unwrap_or_default() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            other => return Err(format!("another type: {other}")),
        },
        "const" => value == said,
        "enum" => all(said).contains(value),
        "minimum" => value.as_u64() >= Some(limit()?),
        "maximum" => value.as_u64().is_some_and(|value| Ok(value) <= limit()),
        "required" => all(said).iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
        "minLength" | "minItems" => length >= limit()?,
        "maxLength" | "maxItems" | "maxProperties" => length <= limit()?,
        other => return Err(format!("another keyword: {other}")),
    })
}

fn all(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Without the fields that are null, which count as left out.
pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Object(fields) => {
            let said = fields.iter().filter(|(_, value)| !value.is_null());
            said.map(|(name, value)| (name.clone(), without_nulls(value))).collect()
        }
        value => value.clone(),
    }
}

/// Every object of the schema, with a document in which the parser comes to it, and where.
fn objects(
    at: &Value,
    schema: &Value,
    path: &[Step],
    found: &mut Vec<(Vec<Step>, BTreeSet<String>)>,
) {
    let target =
        at["$ref"].as_str().map(|target| schema.pointer(target.trim_start_matches('#')).unwrap());
    if let Some(target) = target {
        return objects(target, schema, path, found);
    }
    for part in ["allOf", "anyOf"].into_iter().flat_map(|part| all(&at[part])) {
        objects(part, schema, path, found);
    }
    if at["items"].is_object() {
        objects(&at["items"], schema, &[path, &[Step::Item]].concat(), found);
    }
    if let Some(fields) = at["properties"].as_object() {
        found.push((path.to_vec(), fields.keys().cloned().collect()));
        for (name, field) in fields {
            objects(field, schema, &[path, &[Step::Field(name.clone())]].concat(), found);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Item,
}

/// What the parser says it knows where a field is that nobody knows.
fn known(path: &[Step]) -> BTreeSet<String> {
    const ODD: &str = "0";
    let innermost = json!({ ODD: 1 });
    let mut document = path.iter().rev().fold(innermost, |inner, step| match step {
        Step::Field(name) => json!({ name: inner }),
        Step::Item => json!([inner]),
    });
    extend(&mut document, json!({ "apiVersion": layer::API_VERSION, "kind": layer::KIND }));
    let source = Source { origin: Origin::Claim, index: 0, parameters: &document };
    let problems = parse(&[source]).unwrap_err();
    let said = problems
        .iter()
        .find_map(|problem| problem.message.strip_prefix("unknown field, known are "));
    said.unwrap_or_else(|| panic!("{path:?}: {problems}")).split(", ").map(str::to_owned).collect()
}

#[test]
fn the_schema_has_the_fields_that_the_parser_knows() {
    let (schema, mut found) = (schema(), Vec::new());
    objects(&schema, &schema, &[], &mut found);
    // Of settings the parser tells in another way; its own test names each of them.
    found.retain(|(path, _)| !matches!(path.last(), Some(Step::Field(name)) if name == "sysctls"));
    assert!(found.len() >= 18, "only {} objects", found.len());
    for (path, fields) in found {
        assert_eq!(fields, known(&path), "{path:?}");
    }
}

#[test]
fn the_schema_refuses_what_is_plainly_wrong() {
    let schema = schema();
    let of = |fields: Value| {
        let mut document = json!({ "apiVersion": layer::API_VERSION, "kind": layer::KIND });
        extend(&mut document, fields);
        fits(&schema, &schema, &document).is_ok()
    };
    assert!(of(
        json!({ "interface": { "mtu": 68, "arpIgnore": 8, "disableEbpfPrograms": ["a"] } })
    ));
    assert!(of(json!({ "interface": { "sysctls": { "net.ipv4.conf.IFNAME.rp_filter": "02" } } })));
    for wrong in [
        json!({ "kind": "NodePolicy" }),
        json!({ "interfaces": {} }),
        json!({ "interface": { "mtu": 67 } }),
        json!({ "interface": { "mtu": "68" } }),
        json!({ "interface": { "arpIgnore": 4 } }),
        json!({ "interface": { "disableEbpfPrograms": [] } }),
        json!({ "interface": { "sysctls": { "net.ipv4.conf.IFNAME.rp_filter": "3" } } }),
        json!({ "interface": { "sysctls": { "net.ipv4.ip_forward": "1" } } }),
        json!({ "routes": [{}] }),
        json!({ "routes": [{ "destination": "::/0", "scope": 254 }] }),
        json!({ "subinterface": { "type": "vlan", "vlanId": 4095 } }),
        json!({ "ethtool": { "features": { "gro": 1 } } }),
        json!({ "ebpf": { "filter": { "egress": { "rules": [{ "name": "r" }] } } } }),
    ] {
        assert!(!of(wrong.clone()), "{wrong}");
    }
}
