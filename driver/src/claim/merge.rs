//! The layers on top of each other: class before claim and, within one of them, in their order.
//!
//! The claim's word replaces the class's, field by field. Two sources of the same origin that say
//! different things contradict each other: nobody ranks them, so neither is taken.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::layer::Layer;
use super::reader::{Leaf, quote};
use super::{Located, Origin, Source};
use crate::model::Problem;

/// Values of a map, each with its key. They are merged one by one.
pub(super) type Entries<K, V> = BTreeMap<K, Entry<V>>;

/// A value of a map, and the field that says it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry<V> {
    pub(super) path: String,
    pub(super) value: V,
}

/// A field of the format: where it is, and where a layer has it.
#[derive(Debug)]
pub(super) struct Field<T> {
    pub(super) path: &'static str,
    pub(super) of: fn(&Layer) -> &Leaf<T>,
}

/// The layers, and what is found wrong when they are put together.
pub(super) struct Merge<'a> {
    sources: &'a [Source<'a>],
    layers: &'a [Layer],
    problems: Vec<Located>,
}

impl<'a> Merge<'a> {
    /// `sources` and `layers` are in the order of their rank, the last of which has the last word.
    pub(super) fn new(sources: &'a [Source<'a>], layers: &'a [Layer]) -> Self {
        Self { sources, layers, problems: Vec::new() }
    }

    pub(super) fn problems(self) -> Vec<Located> {
        self.problems
    }

    /// What each source that says anything about a field says, the last last.
    fn all<T: 'a>(
        &self,
        field: &Field<T>,
    ) -> impl DoubleEndedIterator<Item = (&'a Source<'a>, &'a Layer, &'a Leaf<T>)> + use<'a, T>
    {
        let (sources, layers, of) = (self.sources, self.layers, field.of);
        let all = sources.iter().zip(layers);
        all.map(move |(source, layer)| (source, layer, of(layer)))
            .filter(|(_, _, leaf)| !leaf.is_unsaid())
    }

    /// The source that has the last word on a field, and what it says.
    pub(super) fn last<T: 'a>(&self, field: &Field<T>) -> Option<(&'a Source<'a>, &'a Leaf<T>)> {
        self.all(field).next_back().map(|(source, _, leaf)| (source, leaf))
    }

    /// The layer that has the last word on a field.
    pub(super) fn layer<T: 'a>(&self, field: &Field<T>) -> Option<&'a Layer> {
        self.all(field).next_back().map(|(_, layer, _)| layer)
    }

    /// What a field is said to be in the end, if that is right.
    pub(super) fn value<T: Clone + 'a>(&self, field: &Field<T>) -> Option<T> {
        self.last(field).and_then(|(_, leaf)| leaf.clone().said())
    }

    /// The same, and tells of contradictions between sources of the same origin.
    pub(super) fn settle<T: Clone + PartialEq + 'a>(&mut self, field: &Field<T>) -> Option<T> {
        let said: Vec<_> = self
            .all(field)
            .filter_map(|(source, _, leaf)| Some((source, leaf.as_ref().said()?)))
            .collect();
        for (nth, (source, value)) in said.iter().enumerate() {
            let same_origin = |(other, _): &&(&Source<'_>, _)| other.origin == source.origin;
            let first = said[..nth].iter().find(same_origin);
            if let Some((other, _)) = first.filter(|(_, earlier)| earlier != value) {
                let [ours, theirs] = [source, other].map(|it| shown(it.parameters, field.path));
                self.contradiction(source, field.path, &ours, other, &theirs);
            }
        }
        self.value(field)
    }

    /// The same for a map, key by key. Each value comes with its source.
    pub(super) fn settle_map<K: Clone + Ord + 'a, V: Clone + fmt::Debug + PartialEq + 'a>(
        &mut self,
        field: &Field<Entries<K, V>>,
    ) -> BTreeMap<K, (&'a Source<'a>, &'a Entry<V>)> {
        let mut merged: BTreeMap<K, (&'a Source<'a>, &'a Entry<V>)> = BTreeMap::new();
        let said =
            self.all(field).filter_map(|(source, _, leaf)| Some((source, leaf.as_ref().said()?)));
        for (source, entries) in said {
            for (key, entry) in entries {
                let before = merged.insert(key.clone(), (source, entry));
                if let Some((other, earlier)) = before
                    && other.origin == source.origin
                    && earlier.value != entry.value
                {
                    let [ours, theirs] = [entry, earlier].map(|it| format!("{:?}", it.value));
                    self.contradiction(source, &entry.path, &ours, other, &theirs);
                }
            }
        }
        merged
    }

    fn contradiction(
        &mut self,
        source: &Source<'_>,
        path: &str,
        ours: &str,
        other: &Source<'_>,
        theirs: &str,
    ) {
        let message = format!("is {ours}, but {theirs} in {}", other.place());
        self.add(source, path, message);
    }

    /// Reports a problem of a field in the source that has the last word on it.
    pub(super) fn refuse<T: 'a>(&mut self, field: &Field<T>, message: impl fmt::Display) {
        self.refuse_at(field, field.path, message);
    }

    /// The same for a part of the field.
    pub(super) fn refuse_at<T: 'a>(
        &mut self,
        field: &Field<T>,
        path: &str,
        message: impl fmt::Display,
    ) {
        if let Some((source, _)) = self.last(field) {
            self.add(source, path, message);
        }
    }

    /// Reports that a field does not go together with another one, which may be in another source.
    pub(super) fn clash<T: 'a, U: 'a>(
        &mut self,
        field: &Field<T>,
        other: &Field<U>,
        message: impl fmt::Display,
    ) {
        self.clash_at(field, field.path, other, message);
    }

    /// The same for a part of the field.
    pub(super) fn clash_at<T: 'a, U: 'a>(
        &mut self,
        field: &Field<T>,
        path: &str,
        other: &Field<U>,
        message: impl fmt::Display,
    ) {
        let Some((source, _)) = self.last(field) else { return };
        let there = self.last(other).map(|(source, _)| (source, other.path));
        self.clash_of(source, path, there, message);
    }

    /// The same, where it is known who says what.
    pub(super) fn clash_of(
        &mut self,
        source: &Source<'_>,
        path: &str,
        other: Option<(&Source<'_>, &str)>,
        message: impl fmt::Display,
    ) {
        match other.filter(|(other, _)| !other.is(source)) {
            Some((other, there)) => {
                self.add(source, path, format_args!("{message} ({there} in {})", other.place()));
            }
            None => self.add(source, path, message),
        }
    }

    pub(super) fn add(&mut self, source: &Source<'_>, path: &str, message: impl fmt::Display) {
        let problem = Problem { path: path.to_owned(), message: message.to_string() };
        let located = source.locate(problem);
        // One field can stand for several settings.
        if !self.problems.contains(&located) {
            self.problems.push(located);
        }
    }
}

impl Source<'_> {
    fn is(&self, other: &Source<'_>) -> bool {
        (self.origin, self.index) == (other.origin, other.index)
    }

    /// For messages about another source.
    pub(super) fn place(&self) -> String {
        match self.origin {
            Origin::Provider => "what a provider says of the device".to_owned(),
            Origin::Profile => "what a provider made of the profile".to_owned(),
            Origin::Class => format!("config[{}] of the class", self.index),
            Origin::Claim => format!("config[{}] of the claim", self.index),
        }
    }
}

/// What a source has at a path of plain names, as it was written.
fn shown(parameters: &Value, path: &str) -> String {
    match path.split('.').fold(parameters, |value, name| &value[name]) {
        Value::String(text) => quote(text),
        value => {
            let text = value.to_string();
            let cut = quote(&text);
            // Without the quotation marks, unless it is cut off.
            if cut.ends_with('"') { text } else { cut }
        }
    }
}
