//! Configurations as they are written for DraNet: a document with neither `apiVersion` nor `kind`
//! has its fields and its way to read them, wherever they mean the same here.

use serde_json::Value;

use super::layer::{API_VERSION, KIND};
use super::reader::{Object, Spot};
use crate::model::{MacAddr, Problems};

/// Whose words a document uses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Dialect {
    #[default]
    Ours,
    Dranet,
}

/// The fields that an object can have, in each dialect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub(super) ours: &'static [&'static str],
    /// Those that DraNet has, too.
    pub(super) dranet: &'static [&'static str],
}

impl Fields {
    /// The same in both.
    pub(super) const fn same(fields: &'static [&'static str]) -> Self {
        Self { ours: fields, dranet: fields }
    }
}

impl Dialect {
    /// A document that says of itself what it is, is ours, and has to say all of it.
    pub(super) fn of(document: &Value) -> Self {
        let is_said = |field| document.get(field).is_some_and(|value: &Value| !value.is_null());
        if document.is_object() && !is_said("apiVersion") && !is_said("kind") {
            Self::Dranet
        } else {
            Self::Ours
        }
    }

    /// The value as an object with no fields but those of the dialect.
    pub(super) fn object<'a>(
        self,
        spot: &Spot<'a>,
        fields: Fields,
        problems: &mut Problems,
    ) -> Option<Object<'a>> {
        if self == Self::Ours {
            return spot.object(fields.ours, problems);
        }
        let is_ours = |name: &&str| fields.ours.contains(name) && !fields.dranet.contains(name);
        let object = spot.any_object(problems)?;
        for name in object.names().filter(is_ours) {
            let message = format!(
                "needs apiVersion: {API_VERSION} and kind: {KIND}, without which DraNet's fields \
                 are read"
            );
            problems.add(object.path_of(name), message);
        }
        // What has been told is not told again as unknown.
        let known =
            if object.names().any(|name| is_ours(&name)) { fields.ours } else { fields.dranet };
        spot.object(known, problems)
    }

    /// Go's `net.ParseMAC` also takes dashes, and groups of four digits with dots.
    pub(super) fn mac(self, text: &str) -> Option<MacAddr> {
        let exact = text.parse().ok();
        if exact.is_some() || self == Self::Ours {
            return exact;
        }
        let digits = match text.split('.').map(str::len).collect::<Vec<_>>()[..] {
            [4, 4, 4] => text.replace('.', ""),
            _ => return text.replace('-', ":").parse().ok(),
        };
        let pairs: Vec<_> = digits.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
        pairs.join(":").parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_read_as_go_reads_it() {
        let mac = MacAddr([0x02, 0, 0x5e, 0x10, 0, 0x0f]);
        for text in ["02:00:5e:10:00:0F", "02-00-5e-10-00-0f", "0200.5e10.000f"] {
            assert_eq!(Dialect::Dranet.mac(text), Some(mac), "{text}");
            assert_eq!(Dialect::Ours.mac(text).is_some(), text.contains(':'), "{text}");
        }
        for text in ["0200.5e10", "02005e10000f", "0200.5e10.00é", "02:00-5e:10:00:0f:11", "...."]
        {
            assert_eq!(Dialect::Dranet.mac(text), None, "{text}");
        }
    }
}
