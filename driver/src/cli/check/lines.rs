//! On which line of a file each field is.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::claim::quote;

/// A document's shape, without its scalars.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// From 1.
    line: u64,
    below: Below,
}

#[derive(Debug, Default)]
enum Below {
    #[default]
    Nothing,
    Items(Vec<Lines>),
    Fields(Vec<(String, Lines)>),
}

impl Lines {
    /// The shape of each document, in the order in which `serde_saphyr` has them as values.
    pub(super) fn of(text: &str) -> Result<Vec<Self>, serde_saphyr::Error> {
        let documents = serde_saphyr::from_multiple::<Spanned<Below>>(text)?;
        Ok(documents.into_iter().map(Self::from).collect())
    }

    /// The line of the field at a path such as `spec.config[0].opaque`, or of the innermost part of
    /// that path which is there.
    pub(super) fn line_of(&self, path: &str) -> u64 {
        self.at(path).line
    }

    /// What is at a path, or at the innermost part of it which is there.
    fn at(&self, path: &str) -> &Self {
        let path = path.trim_start_matches('.');
        let end = path.find(['.', '[']).unwrap_or(path.len());
        let next = match (&self.below, path.strip_prefix('[').and_then(|rest| rest.split_once(']')))
        {
            (Below::Items(items), Some((nth, rest))) => {
                nth.parse().ok().and_then(|nth: usize| items.get(nth)).map(|item| (item, rest))
            }
            (Below::Fields(fields), None) => {
                let (name, rest) = path.split_at(end);
                fields.iter().find(|(field, _)| field == name).map(|(_, below)| (below, rest))
            }
            // A name with dots in it stands in brackets, as a text.
            (Below::Fields(fields), Some(_)) => fields.iter().find_map(|(field, below)| {
                Some((below, path.strip_prefix(&format!("[{}]", quote(field)))?))
            }),
            _ => None,
        };
        next.map_or(self, |(next, rest)| next.at(rest))
    }
}

impl From<Spanned<Below>> for Lines {
    fn from(spanned: Spanned<Below>) -> Self {
        Self { line: spanned.referenced.line(), below: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Below {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyShape)
    }
}

struct AnyShape;

impl<'de> Visitor<'de> for AnyShape {
    type Value = Below;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Below, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Below>>()? {
            found.push(item.into());
        }
        Ok(Below::Items(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Below, A::Error> {
        let mut found = Vec::new();
        while let Some((name, below)) = fields.next_entry::<String, Spanned<Below>>()? {
            found.push((name, below.into()));
        }
        Ok(Below::Fields(found))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Below, E> {
        Ok(Below::Nothing)
    }

    fn visit_none<E: de::Error>(self) -> Result<Below, E> {
        Ok(Below::Nothing)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Below, E> {
        Ok(Below::Nothing)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Below, E> {
        Ok(Below::Nothing)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Below, E> {
        Ok(Below::Nothing)
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Below, E> {
        Ok(Below::Nothing)
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Below, E> {
        Ok(Below::Nothing)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Below, E> {
        Ok(Below::Nothing)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Below, E> {
        Ok(Below::Nothing)
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<Below, E> {
        Ok(Below::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_line_and_one_that_ends_early_to_what_is_there() {
        let text = "\
a: 1
b:
  - c: {d: x}
  # in between
  - c:
      d: [1, 2,
          3]
---
{\"e\": [
  null, true],
  \"x.y\": {\"a]\":
     1}}
";
        let documents = Lines::of(text).unwrap();
        let [first, second] = &documents[..] else { panic!("{documents:?}") };
        for (path, line) in [
            ("", 1),
            ("a", 1),
            ("b[0].c.d", 3),
            ("b[1].c.d[2]", 7),
            ("b[1].c.d[9]", 6),
            ("b[1].c.z.y", 6),
            ("b[1][\"x.y\"]", 5),
            ("z", 1),
        ] {
            assert_eq!(first.line_of(path), line, "{path}");
        }
        assert_eq!(second.line_of("e[1]"), 10);
        assert_eq!(second.line_of("[\"x.y\"]"), 11);
        assert_eq!(second.line_of("[\"x.y\"][\"a]\"]"), 12);
    }
}
