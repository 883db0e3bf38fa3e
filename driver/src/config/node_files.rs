//! The configuration files of kind `NodeConfig`, and what they come to on this node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::claim;
use crate::dra::{CompileError, Filter};
use crate::model::{NodeConfig, NodeLayer, NodeRules, Problems};

/// Where the files are. They can change while the driver runs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeFiles {
    /// That of all nodes. It must be there.
    pub shared: Option<PathBuf>,
    /// That of this node, which may be there and replaces fields of the other.
    pub own: Option<PathBuf>,
}

/// The files, read and checked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeSettings {
    shared: NodeConfig,
    own: NodeLayer,
}

/// The node's label names a profile that no file has.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no profile {0:?} in the configuration file")]
pub struct UnknownProfile(pub String);

impl NodeFiles {
    /// Reads both. Takes some milliseconds where there are filters, which are compiled to see whether
    /// they can be. One that nobody could find that out of now is left to whoever uses it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them, each problem with its file and its path.
    pub fn read(&self) -> Result<NodeSettings, Problems> {
        let mut problems = Problems::default();
        let mut settings = NodeSettings::default();
        if let Some(file) = &self.shared {
            settings.shared = read(file, &mut problems).unwrap_or_default();
        }
        if let Some(file) = self.own.as_ref().filter(|file| is_there(file)) {
            let own = read(file, &mut problems).unwrap_or_default();
            if !own.profiles.is_empty() {
                let message = "are for all nodes, and belong into the file of --config";
                problems.add(format!("{}: profiles", file.display()), message);
            }
            settings.own = own.layer;
        }
        problems.or(settings)
    }

    /// What the files say now, byte by byte, for whoever looks out for changes. One that cannot be
    /// read says nothing.
    pub fn contents(&self) -> [Option<Vec<u8>>; 2] {
        [&self.shared, &self.own].map(|file| file.as_ref().and_then(|file| fs::read(file).ok()))
    }
}

fn is_there(file: &Path) -> bool {
    !matches!(file.metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

fn read(file: &Path, problems: &mut Problems) -> Option<NodeConfig> {
    let place = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            problems.add(place.to_string(), format_args!("cannot be read: {error}"));
            return None;
        }
    };
    let documents = match serde_saphyr::from_multiple::<Value>(&text) {
        Ok(documents) => documents,
        Err(error) => {
            let error = error.without_snippet();
            problems.add(place.to_string(), format_args!("is no YAML: {error}"));
            return None;
        }
    };
    let [document] = &documents[..] else {
        let count = documents.len();
        problems.add(place.to_string(), format_args!("has {count} documents, not one"));
        return None;
    };
    match checked(document, |error| !error.may_pass()) {
        Ok(config) => Some(config),
        Err(found) => {
            for problem in &found {
                problems.add(format!("{place}: {}", problem.path), &problem.message);
            }
            None
        }
    }
}

/// Reads a `NodeConfig`, with its filters.
///
/// # Errors
///
/// Everything that is wrong with it, each problem with its path.
pub fn node_config(document: &Value) -> Result<NodeConfig, Problems> {
    checked(document, |_| true)
}

fn checked(
    document: &Value,
    counts: impl Fn(&CompileError) -> bool,
) -> Result<NodeConfig, Problems> {
    let config = claim::parse_node_config(document)?;
    let mut problems = Problems::default();
    for (path, filter) in claim::filters(&config) {
        if let Err(error) = Filter::compile(filter)
            && counts(&error)
        {
            problems.add(path, error);
        }
    }
    problems.or(config)
}

impl NodeSettings {
    /// Whether what holds depends on the node's label.
    pub fn has_profiles(&self) -> bool {
        !self.shared.profiles.is_empty()
    }

    /// What holds where the node's label names this profile.
    ///
    /// # Errors
    ///
    /// [`UnknownProfile`].
    pub fn rules(self, profile: Option<&str>) -> Result<NodeRules, UnknownProfile> {
        let Self { shared: NodeConfig { layer, mut profiles }, own } = self;
        let profile = match profile {
            None => NodeLayer::default(),
            Some(name) => profiles.remove(name).ok_or_else(|| UnknownProfile(name.to_owned()))?,
        };
        Ok(own.over(profile.over(layer)).settled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: weir.dev/v1alpha1\nkind: NodeConfig\n";

    /// The files with these texts; the first is shared.
    fn files(directory: &Path, texts: [&str; 2]) -> NodeFiles {
        let [shared, own] = ["shared.yaml", "own.yaml"].map(|name| directory.join(name));
        fs::write(&shared, HEAD.to_owned() + texts[0]).unwrap();
        fs::write(&own, HEAD.to_owned() + texts[1]).unwrap();
        NodeFiles { shared: Some(shared), own: Some(own) }
    }

    #[test]
    fn the_nodes_file_is_over_the_profile_which_is_over_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let shared = "publish: {filter: 'true', exclude: [a]}\nprofiles:\n  gpu:\n    publish: {exclude: [b]}\n";
        let files = files(directory.path(), [shared, "publish: {include: [c]}\n"]);
        let settings = files.read().unwrap();
        assert!(settings.has_profiles());
        let publish = settings.clone().rules(Some("gpu")).unwrap().publish;
        assert_eq!(publish.filter.as_deref(), Some("true"));
        assert_eq!(publish.exclude, ["b".parse().unwrap()]);
        assert_eq!(publish.include, ["c".parse().unwrap()]);
        let publish = settings.clone().rules(None).unwrap().publish;
        assert_eq!(publish.exclude, ["a".parse().unwrap()]);
        let unknown = settings.rules(Some("cpu")).unwrap_err();
        assert_eq!(unknown.to_string(), "there is no profile \"cpu\" in the configuration file");
    }

    #[test]
    fn what_is_wrong_with_either_is_said_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(
            directory.path(),
            ["publish: {filter: node.name == 'a'}\n", "publsh: {}\nprofiles: {a: {}}\n"],
        );
        let said = files.read().unwrap_err().to_string();
        let said = said.replace(&format!("{}/", directory.path().display()), "");
        assert_eq!(
            said,
            "shared.yaml: publish.filter: \"node\" is not known here, only device is; \
             own.yaml: publsh: unknown field, did you mean publish?"
        );
    }

    #[test]
    fn only_the_shared_file_must_be_there() {
        let nowhere = || Some(PathBuf::from("/nowhere/at/all.yaml"));
        let files = NodeFiles { shared: None, own: nowhere() };
        assert_eq!(files.read(), Ok(NodeSettings::default()));
        let files = NodeFiles { shared: nowhere(), own: None };
        let said = files.read().unwrap_err().to_string();
        assert!(said.starts_with("/nowhere/at/all.yaml: cannot be read: "), "{said}");
    }

    #[test]
    fn profiles_belong_into_the_shared_file() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path(), ["{}\n", "profiles: {a: {}}\n"]);
        // The first is two documents run together, which is no YAML.
        let said = files.read().unwrap_err().to_string();
        assert!(said.contains("shared.yaml: is no YAML"), "{said}");
        assert!(said.contains("own.yaml: profiles: are for all nodes"), "{said}");
    }
}
