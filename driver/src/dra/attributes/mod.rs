//! What claims can select a device by.
//!
//! [`OURS`](catalog::OURS) and [`DRANET`](dranet::DRANET) are lists of attributes, the most important
//! first: the API takes 32 of them and of capacities, and what comes last is left out where a device has
//! more. docs/attributes.md shows the same lists.
//!
//! Our attributes live in a domain that is the driver's name unless somebody chose another one: with the
//! default name they are `weir.dev/ifName` and so on, and CEL finds them as
//! `device.attributes["weir.dev"].ifName`.

mod catalog;
mod dranet;
mod value;

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::DeviceAttribute;
use serde::{Deserialize, Serialize};

use self::catalog::OURS;
use self::dranet::DRANET;
use self::value::Value;
use crate::model::{Device, Form};

/// Attributes and capacities of one device at most (`ResourceSliceMaxAttributesAndCapacitiesPerDevice`
/// in `api/resource/v1`, Kubernetes 1.36).
pub(super) const MOST: usize = 32;

/// By which names devices are described.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Vocabulary {
    pub names: Names,
    /// What stands before the `/` of attributes and capacities.
    pub domain: String,
}

/// Whose attributes are published.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Names {
    #[default]
    Ours,
    /// Those of DraNet 1.4, with its meanings.
    Dranet,
}

impl Names {
    /// Whether a device is published at all. DraNet has none of those that user space drives, so that
    /// nothing in claims that were written for it keeps them away.
    pub fn has(self, device: &Device) -> bool {
        match self {
            Self::Ours => true,
            Self::Dranet => device.form() != Form::Vfio,
        }
    }

    fn entries(self) -> &'static [Entry] {
        match self {
            Self::Ours => OURS,
            Self::Dranet => DRANET,
        }
    }
}

/// One attribute.
struct Entry {
    /// With a domain where it is not ours.
    name: &'static str,
    /// As the documentation calls it.
    #[cfg_attr(not(test), expect(dead_code, reason = "what the documentation is held against"))]
    kind: &'static str,
    of: fn(&Seen<'_>) -> Option<Value>,
}

/// What attributes are read from.
struct Seen<'a> {
    device: &'a Device,
    /// The kernel's version, if it has one.
    kernel: Option<&'a str>,
}

/// Where the attributes of providers come in: whoever set up a provider wants them more than what
/// follows.
const PROVIDED: &str = "(provided)";

/// The attributes of `device`, at most `room`. What is not known is left out, so selectors must ask
/// `has()` for what is not said to be always there.
pub(super) fn attributes(
    device: &Device,
    vocabulary: &Vocabulary,
    kernel: Option<&str>,
    room: usize,
) -> BTreeMap<String, DeviceAttribute> {
    let seen = Seen { device, kernel };
    let mut all = BTreeMap::new();
    for entry in vocabulary.names.entries() {
        if entry.name == PROVIDED {
            let provided = device.provided.iter();
            let provided =
                provided.map(|(name, value)| (name.clone(), Value::from(value).attribute()));
            all.extend(provided.take(room.saturating_sub(all.len())));
        }
        if all.len() == room {
            break;
        }
        let Some(value) = (entry.of)(&seen) else { continue };
        let name = if entry.name.contains('/') {
            entry.name.to_owned()
        } else {
            format!("{}/{}", vocabulary.domain, entry.name)
        };
        // What a provider says of it, it knows better.
        all.entry(name).or_insert_with(|| value.attribute());
    }
    all
}

/// The part of a kernel release that is a version: `6.18.44` of `6.18.44-cloud-amd64`. `None` where
/// there is none.
pub(super) fn kernel_version(release: &str) -> Option<String> {
    let (major, rest) = leading_number(release)?;
    let (minor, rest) = leading_number(rest.strip_prefix('.')?)?;
    // A release candidate may have only two numbers; a version always has three.
    let patch = rest.strip_prefix('.').and_then(leading_number).map_or(0, |(patch, _)| patch);
    Some(format!("{major}.{minor}.{patch}"))
}

/// The number that `text` begins with, and what follows it.
fn leading_number(text: &str) -> Option<(u32, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    number.parse().ok().map(|number| (number, rest))
}

#[cfg(test)]
mod tests;
