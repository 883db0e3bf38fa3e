//! What a provider says of a device, held against what the API takes: one bad attribute would have
//! the API server refuse the whole slice.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::ProvidedValue;

/// Attributes by their full names.
pub(super) type Attributes = BTreeMap<String, ProvidedValue>;

/// Longest text or version (`DeviceAttributeMaxValueLength` in `api/resource/v1`, Kubernetes 1.36).
const LONGEST_VALUE: usize = 64;
/// Longest domain (`DeviceMaxDomainLength`).
const LONGEST_DOMAIN: usize = 63;
/// Longest name within a domain (`DeviceMaxIDLength`).
const LONGEST_ID: usize = 32;
/// More than a device can have.
const MOST: usize = 32;

/// Reads attributes, each as the API has them or, for those that write files, as a plain value. The
/// second part says what was left out, and why.
pub(super) fn read(said: &Value, driver: &str) -> (Attributes, Vec<String>) {
    let (mut attributes, mut left_out) = (Attributes::new(), Vec::new());
    for (name, value) in said.as_object().into_iter().flatten() {
        let read = full_name(name, driver).and_then(|name| Ok((name, value_of(value)?)));
        match read {
            Ok(_) if attributes.len() >= MOST => {
                left_out.push(format!("{name:.64?} is one more than {MOST}"));
            }
            Ok((name, value)) => drop(attributes.insert(name, value)),
            Err(reason) => left_out.push(format!("{name:.64?} {reason}")),
        }
    }
    (attributes, left_out)
}

/// A name without a domain is in the driver's.
fn full_name(name: &str, driver: &str) -> Result<String, &'static str> {
    let (domain, id) = name.split_once('/').unwrap_or((driver, name));
    let is_label = |label: &str| {
        let is_end =
            |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        is_end(label.bytes().next())
            && is_end(label.bytes().next_back())
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    if domain.len() > LONGEST_DOMAIN || !domain.split('.').all(is_label) {
        return Err("has no DNS name before the slash");
    }
    let starts = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_word = id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    if !starts || !is_word || id.len() > LONGEST_ID {
        return Err("is no name of at most 32 letters, digits and _");
    }
    Ok(format!("{domain}/{id}"))
}

fn value_of(value: &Value) -> Result<ProvidedValue, &'static str> {
    match value {
        Value::Bool(flag) => Ok(ProvidedValue::Bool(*flag)),
        Value::Number(number) => {
            number.as_i64().map(ProvidedValue::Int).ok_or("is no integer of 64 bits")
        }
        Value::String(text) => string(text),
        Value::Object(fields) if fields.len() == 1 => match fields.iter().next() {
            Some((kind, Value::String(text))) if kind == "version" => version(text),
            Some((kind, Value::String(text))) if kind == "string" => string(text),
            Some((kind, value @ Value::Number(_))) if kind == "int" => value_of(value),
            Some((kind, Value::Bool(flag))) if kind == "bool" => Ok(ProvidedValue::Bool(*flag)),
            _ => Err("has neither bool nor int, string or version"),
        },
        _ => Err("has not one value"),
    }
}

fn string(text: &str) -> Result<ProvidedValue, &'static str> {
    if text.len() > LONGEST_VALUE {
        return Err("is longer than 64 bytes");
    }
    Ok(ProvidedValue::String(text.to_owned()))
}

/// As in semantic versioning 2.0, which is what the API checks.
fn version(text: &str) -> Result<ProvidedValue, &'static str> {
    let (core, build) = text.split_once('+').map_or((text, None), |(core, it)| (core, Some(it)));
    let (core, pre) = core.split_once('-').map_or((core, None), |(core, it)| (core, Some(it)));
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|c| c.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    let is_digits = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    let is_version = text.len() <= LONGEST_VALUE
        && core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|it| {
            it.split('.').all(|part| is_word(part) && (!is_digits(part) || is_number(part)))
        })
        && build.is_none_or(|it| it.split('.').all(is_word));
    if is_version {
        Ok(ProvidedValue::Version(text.to_owned()))
    } else {
        Err("is no semantic version of at most 64 bytes")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attributes_are_read_as_the_api_has_them_and_as_plain_values() {
        let (read, left_out) = read(
            &json!({
                "gce.dra.net/block": { "string": "b1" }, "rail": 3, "fast": true,
                "gce.dra.net/ipAliases": "10.0.0.0/24", "fw": { "version": "1.2.3-rc.1+b" },
            }),
            "weir.dev",
        );
        assert_eq!(left_out, Vec::<String>::new());
        let text = |text: &str| ProvidedValue::String(text.to_owned());
        let expected = [
            ("gce.dra.net/block", text("b1")),
            ("gce.dra.net/ipAliases", text("10.0.0.0/24")),
            ("weir.dev/fast", ProvidedValue::Bool(true)),
            ("weir.dev/fw", ProvidedValue::Version("1.2.3-rc.1+b".to_owned())),
            ("weir.dev/rail", ProvidedValue::Int(3)),
        ];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }

    #[test]
    fn a_bad_attribute_is_left_out_and_the_others_stay() {
        let (read, left_out) = read(
            &json!({
                "good": "x", "Bad.Domain/a": "x", "-a": "x", "a-b": "x", "long": "x".repeat(65),
                "float": 1.5, "list": ["x"], "none": {}, "two": { "int": 1, "bool": true },
                "v": { "version": "1.2" }, "z": { "version": "01.2.3" }, "int": { "int": "1" },
                "i".repeat(33): "x",
            }),
            "weir.dev",
        );
        assert_eq!(read.keys().collect::<Vec<_>>(), ["weir.dev/good"]);
        assert_eq!(left_out.len(), 12, "{left_out:#?}");
    }
}
