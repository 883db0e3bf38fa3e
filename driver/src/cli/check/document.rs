//! Files to documents.

use serde_json::Value;

use super::lines::Lines;
use crate::cli::{CliError, input};

/// An object that a file has, and where.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) file: String,
    /// Where it is in its YAML document: empty, or `items[N]` of a list.
    path: String,
    pub(super) value: Value,
    lines: std::rc::Rc<Lines>,
}

impl Document {
    /// All that `text` has, the items of lists one by one.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and on which line; that of the whole file where nobody knows.
    pub(super) fn read(file: &str, text: &str) -> Result<Vec<Self>, (u64, String)> {
        let failed = |error: serde_saphyr::Error| {
            let line = error.location().map_or(1, |location| location.line());
            (line, format!("is no YAML: {}", error.without_snippet()))
        };
        let values = serde_saphyr::from_multiple::<Value>(text).map_err(failed)?;
        let lines = Lines::of(text).map_err(failed)?;
        let mut documents = Vec::new();
        for (value, lines) in values.into_iter().zip(lines) {
            let (file, lines) = (file.to_owned(), lines.into());
            Self { file, path: String::new(), value, lines }.unpack(&mut documents);
        }
        Ok(documents)
    }

    /// Adds the document or, where it is a list as `kubectl get` prints it, its items.
    fn unpack(mut self, into: &mut Vec<Self>) {
        if self.kind() != Some("List") {
            return into.push(self);
        }
        let items = self.value.get_mut("items").and_then(Value::as_array_mut);
        for (nth, value) in items.map(std::mem::take).into_iter().flatten().enumerate() {
            let (file, lines) = (self.file.clone(), std::rc::Rc::clone(&self.lines));
            into.push(Self { file, path: format!("items[{nth}]"), value, lines });
        }
    }

    pub(super) fn kind(&self) -> Option<&str> {
        self.value["kind"].as_str()
    }

    pub(super) fn api_version(&self) -> Option<&str> {
        self.value["apiVersion"].as_str()
    }

    pub(super) fn name(&self) -> Option<String> {
        let name = self.value["metadata"]["name"].as_str()?;
        let namespace = self.value["metadata"]["namespace"].as_str();
        Some(namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}")))
    }

    /// The line on which it begins, or that of a field in it.
    pub(super) fn line_of(&self, path: &str) -> u64 {
        self.lines.line_of(&self.whole(path))
    }

    /// A path from the document's root as one from the root of what the file has.
    pub(super) fn whole(&self, path: &str) -> String {
        match (self.path.as_str(), path) {
            ("", path) => path.to_owned(),
            (list, "") => list.to_owned(),
            (list, path) => format!("{list}.{path}"),
        }
    }
}

/// What a file has, or why nobody can tell.
pub(super) fn read(file: &str) -> Result<Vec<Document>, (u64, String)> {
    let text = input::read(file).map_err(|error| match error {
        CliError::Read { source, .. } => (1, format!("cannot be read: {source}")),
        error => (1, error.to_string()),
    })?;
    Document::read(file, &text)
}
