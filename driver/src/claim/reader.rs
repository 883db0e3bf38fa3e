//! Reads a JSON value field by field and collects what is wrong, instead of stopping at the first
//! thing: the author of a claim sees all of it in one event.
//!
//! A field that is `null` counts as left out, as it does everywhere in Kubernetes.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::model::Problems;

/// Longest piece of somebody's text that a message repeats, in characters.
const LONGEST_QUOTE: usize = 64;

/// A value and where it is.
#[derive(Clone, Debug)]
pub(super) struct Spot<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
}

/// An object whose unknown fields have been reported.
#[derive(Debug)]
pub(super) struct Object<'a> {
    path: String,
    fields: &'a Map<String, Value>,
}

/// What a source says about one field.
///
/// A wrong value has been reported, and it still counts as said, so that nothing is reported a
/// second time as its echo.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Leaf<T> {
    #[default]
    Unsaid,
    Wrong,
    Said(T),
}

impl<T> Leaf<T> {
    /// The field at `spot`, if it is there, as `read` has it; `read` answers `None` for what is
    /// wrong.
    pub(super) fn read<'a>(
        spot: Option<Spot<'a>>,
        read: impl FnOnce(&Spot<'a>) -> Option<T>,
    ) -> Self {
        let Some(spot) = spot else {
            return Self::Unsaid;
        };
        match read(&spot) {
            Some(value) => Self::Said(value),
            None => Self::Wrong,
        }
    }

    pub(super) fn is_unsaid(&self) -> bool {
        matches!(self, Self::Unsaid)
    }

    /// What was said, or `unsaid` where nothing was; `None` where it was wrong.
    pub(super) fn or(self, unsaid: T) -> Option<T> {
        match self {
            Self::Unsaid => Some(unsaid),
            Self::Wrong => None,
            Self::Said(value) => Some(value),
        }
    }

    pub(super) fn as_ref(&self) -> Leaf<&T> {
        match self {
            Self::Unsaid => Leaf::Unsaid,
            Self::Wrong => Leaf::Wrong,
            Self::Said(value) => Leaf::Said(value),
        }
    }

    /// What was said; `None` also where it was wrong.
    pub(super) fn said(self) -> Option<T> {
        match self {
            Self::Said(value) => Some(value),
            Self::Unsaid | Self::Wrong => None,
        }
    }
}

impl<'a> Spot<'a> {
    /// The value as an object with no fields but `known`.
    pub(super) fn object(&self, known: &[&str], problems: &mut Problems) -> Option<Object<'a>> {
        let fields = self.any_object(problems)?;
        for name in fields.names().filter(|name| !known.contains(name)) {
            problems.add(fields.path_of(name), UnknownField { name, known });
        }
        Some(fields)
    }

    /// The value as an object with whatever fields.
    pub(super) fn any_object(&self, problems: &mut Problems) -> Option<Object<'a>> {
        match self.value {
            Value::Object(fields) => Some(Object { path: self.path.clone(), fields }),
            _ => self.refuse_type("an object", problems),
        }
    }

    /// The value as a list.
    pub(super) fn list(&self, problems: &mut Problems) -> Option<Vec<Spot<'a>>> {
        let Value::Array(items) = self.value else {
            return self.refuse_type("a list", problems);
        };
        let spot = |(nth, value)| Spot { path: format!("{}[{nth}]", self.path), value };
        Some(items.iter().enumerate().map(spot).collect())
    }

    /// The value as a list of at most so many items. A longer one is not looked at.
    pub(super) fn list_up_to(
        &self,
        most: usize,
        noun: &str,
        problems: &mut Problems,
    ) -> Option<Vec<Spot<'a>>> {
        match self.value {
            Value::Array(items) if items.len() > most => {
                let count = items.len();
                self.refuse(format_args!("{count} {noun} are more than {most}"), problems)
            }
            _ => self.list(problems),
        }
    }

    pub(super) fn flag(&self, problems: &mut Problems) -> Option<bool> {
        match self.value {
            Value::Bool(flag) => Some(*flag),
            _ => self.refuse_type("a boolean", problems),
        }
    }

    pub(super) fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        match self.value {
            Value::String(text) => Some(text),
            _ => self.refuse_type("a string", problems),
        }
    }

    /// The value as an integer within `range`.
    pub(super) fn integer<T: Copy + fmt::Display + PartialOrd + TryFrom<u64>>(
        &self,
        range: RangeInclusive<T>,
        problems: &mut Problems,
    ) -> Option<T> {
        let Value::Number(number) = self.value else {
            return self.refuse_type("an integer", problems);
        };
        let (lowest, highest) = (range.start(), range.end());
        if !number.is_i64() && !number.is_u64() {
            return self.refuse(format_args!("{number} is not an integer"), problems);
        }
        match number.as_u64().map(T::try_from) {
            Some(Ok(fits)) if range.contains(&fits) => Some(fits),
            Some(Ok(small)) if small < *lowest => {
                self.refuse(format_args!("{number} is below {lowest}"), problems)
            }
            Some(_) => self.refuse(format_args!("{number} is above {highest}"), problems),
            None => self.refuse(format_args!("{number} is below {lowest}"), problems),
        }
    }

    /// The value as a text that `T` accepts. `T` says what is wrong, and is told of which text.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(
        &self,
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(problems)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => self.refuse(format_args!("{}: {error}", quote(text)), problems),
        }
    }

    /// The value as one of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
        let text = self.text(problems)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let of = if words.len() > 1 { "one of " } else { "" };
            let message = format!("{} is not {of}{}", quote(text), words.join(", "));
            return self.refuse(message, problems);
        }
        found
    }

    /// Reports a value of the wrong JSON type. Always `None`, so that it can stand as the answer.
    pub(super) fn refuse_type<T>(&self, expected: &str, problems: &mut Problems) -> Option<T> {
        let message = format!("is {}, not {expected}", type_of(self.value));
        self.refuse(message, problems)
    }

    /// Reports the value. Always `None`, so that it can stand as the answer.
    pub(super) fn refuse<T>(
        &self,
        message: impl fmt::Display,
        problems: &mut Problems,
    ) -> Option<T> {
        problems.add(&self.path, message);
        None
    }
}

impl<'a> Object<'a> {
    /// Of all fields, in the order of the alphabet.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.fields.keys().map(String::as_str)
    }

    /// What is there, each thing with its name.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Spot<'a>)> {
        self.names().filter_map(|name| Some((name, self.field(name)?)))
    }

    /// What is there under `name`, if anything.
    pub(super) fn field(&self, name: &str) -> Option<Spot<'a>> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        Some(Spot { path: self.path_of(name), value })
    }

    /// What is there under `name`; reported where nothing is.
    pub(super) fn required(&self, name: &str, problems: &mut Problems) -> Option<Spot<'a>> {
        let field = self.field(name);
        if field.is_none() {
            problems.add(self.path_of(name), "is required");
        }
        field
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        below(&self.path, name)
    }
}

/// The path of the field `name` of the object at `path`.
pub(super) fn below(path: &str, name: &str) -> String {
    let is_plain = !name.is_empty()
        && name.len() <= LONGEST_QUOTE
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    match (path, is_plain) {
        ("", true) => name.to_owned(),
        (path, true) => format!("{path}.{name}"),
        (path, false) => format!("{path}[{}]", quote(name)),
    }
}

/// Somebody's text in quotation marks, on one line and not longer than a message can bear. Field
/// names that are no plain words stand in paths as this, in brackets.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTE) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Says that a field is not known, and which one may have been meant.
struct UnknownField<'a> {
    name: &'a str,
    known: &'a [&'a str],
}

impl fmt::Display for UnknownField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known = self.known.iter();
        let same = known.clone().find(|known| bare(known) == bare(self.name));
        match same.or_else(|| known.find(|known| is_slip(self.name, known))) {
            Some(meant) => write!(f, "unknown field, did you mean {meant}?"),
            None => write!(f, "unknown field, known are {}", self.known.join(", ")),
        }
    }
}

/// A name without case and separators.
fn bare(text: &str) -> Vec<u8> {
    text.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase()).collect()
}

/// Whether `written` is `meant` but for case, separators, a missing or added end, or one slip of
/// the keyboard.
fn is_slip(written: &str, meant: &str) -> bool {
    let (written, meant) = (bare(written), bare(meant));
    if written.len() >= 3 && (meant.starts_with(&written) || written.starts_with(&meant)) {
        return true;
    }
    let same_start = written.iter().zip(&meant).take_while(|(a, b)| a == b).count();
    let (written, meant) = (&written[same_start..], &meant[same_start..]);
    let same_end = written.iter().rev().zip(meant.iter().rev()).take_while(|(a, b)| a == b).count();
    match (&written[..written.len() - same_end], &meant[..meant.len() - same_end]) {
        ([a, b], [c, d]) => a == d && b == c,
        (written, meant) => same_start + same_end >= 2 && written.len() <= 1 && meant.len() <= 1,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn told<T>(value: &Value, read: impl FnOnce(Spot<'_>, &mut Problems) -> Option<T>) -> String {
        let mut problems = Problems::default();
        let answer = read(Spot { path: "x".to_owned(), value }, &mut problems);
        assert_eq!(answer.is_none(), !problems.is_empty(), "{problems}");
        problems.to_string()
    }

    #[rstest]
    #[case(json!(null), "x: is null, not an integer")]
    #[case(json!(true), "x: is a boolean, not an integer")]
    #[case(json!("9"), "x: is a string, not an integer")]
    #[case(json!([9]), "x: is a list, not an integer")]
    #[case(json!({}), "x: is an object, not an integer")]
    #[case(json!(9.5), "x: 9.5 is not an integer")]
    #[case(json!(-1), "x: -1 is below 3")]
    #[case(json!(2), "x: 2 is below 3")]
    #[case(json!(10), "x: 10 is above 9")]
    #[case(json!(18_446_744_073_709_551_615_u64), "x: 18446744073709551615 is above 9")]
    #[case(json!(3), "")]
    #[case(json!(9), "")]
    fn an_integer_is_in_its_range_or_said_not_to_be(#[case] value: Value, #[case] said: &str) {
        assert_eq!(told(&value, |spot, problems| spot.integer(3..=9_u32, problems)), said);
    }

    #[test]
    fn a_word_is_one_of_those_offered() {
        let words = [("on", 1), ("off", 2)];
        let said = |value| told(&value, |spot, problems| spot.word(&words, problems));
        assert_eq!(said(json!("off")), "");
        assert_eq!(said(json!("Off")), r#"x: "Off" is not one of on, off"#);
        assert_eq!(said(json!(false)), "x: is a boolean, not a string");
    }

    #[rstest]
    #[case("MTU", Some("mtu"))]
    #[case("hardware_addr", Some("hardwareAddr"))]
    #[case("hardwareAddress", Some("hardwareAddr"))]
    #[case("adresses", Some("addresses"))]
    #[case("address", Some("addresses"))]
    #[case("nmae", Some("name"))]
    #[case("mut", Some("mtu"))]
    #[case("m", None)]
    #[case("", None)]
    #[case("vlan", None)]
    fn only_an_obvious_slip_is_guessed_at(#[case] written: &str, #[case] meant: Option<&str>) {
        let known = ["name", "addresses", "mtu", "hardwareAddr"];
        let guess = known.into_iter().find(|known| is_slip(written, known));
        assert_eq!(guess, meant);
    }

    #[test]
    fn an_odd_field_name_cannot_forge_a_path_or_a_line() {
        let value = json!({ "a.b": 1, "c\nd": 2 });
        let said = told(&value, |spot, problems| {
            spot.object(&["mtu"], problems).is_some_and(|_| problems.is_empty()).then_some(())
        });
        assert_eq!(
            said,
            r#"x["a.b"]: unknown field, known are mtu; x["c\nd"]: unknown field, known are mtu"#
        );
        assert_eq!(quote(&"é".repeat(65)), format!("\"{}\"…", "é".repeat(64)));
    }
}
