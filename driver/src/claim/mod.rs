//! Stands in for the room that parses claims until that is merged.

use serde_json::Value;

use crate::model::{Problems, Wishes};

/// Who wrote a piece of configuration.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    Class,
    Claim,
}

/// One piece of opaque configuration.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub origin: Origin,
    /// Position in `status.allocation.devices.config`.
    pub index: usize,
    pub parameters: &'a Value,
}

/// Reads `interface.mtu` and `interface.name` and refuses unknown fields of the top level.
pub fn parse(sources: &[Source<'_>]) -> Result<Wishes, Problems> {
    let mut wishes = Wishes::default();
    let mut problems = Problems::default();
    for source in sources {
        for (key, value) in source.parameters.as_object().into_iter().flatten() {
            match key.as_str() {
                "apiVersion" | "kind" | "routes" | "ebpf" => {}
                "interface" => read_interface(value, &mut wishes, &mut problems),
                other => problems.add(other, "unknown field"),
            }
        }
    }
    problems.or(wishes)
}

fn read_interface(value: &Value, wishes: &mut Wishes, problems: &mut Problems) {
    if let Some(mtu) = value.get("mtu") {
        match mtu.as_u64().and_then(|mtu| u32::try_from(mtu).ok()) {
            Some(mtu @ 68..=65535) => wishes.interface.mtu = Some(mtu),
            _ => problems.add("interface.mtu", format!("{mtu} is not between 68 and 65535")),
        }
    }
    if let Some(name) = value.get("name").and_then(Value::as_str) {
        match name.parse() {
            Ok(name) => wishes.interface.name = Some(name),
            Err(error) => problems.add("interface.name", error),
        }
    }
}
