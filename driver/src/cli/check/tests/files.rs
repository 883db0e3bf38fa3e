//! What is shown and what is wrong, as files: examples, documents, the schema's copy.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::*;
use crate::claim;
use crate::claim::schema_tests::{fits, without_nulls};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Each file of wrong documents begins with what is to be said of them: line, path and message, one
/// comment for each problem, in their order.
#[test]
fn what_is_wrong_is_told_with_path_and_line() {
    let folder = top().join("tests/fixtures/wrong");
    let mut files = Vec::new();
    yaml_below(&folder, &mut files);
    assert!(files.len() >= 100, "only {} files", files.len());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<_> = text.lines().map_while(|line| line.strip_prefix("# ")).collect();
        let reports = reports(&[path.to_str().unwrap().to_owned()], "weir.dev");
        let said: Vec<_> = reports
            .iter()
            .flat_map(|report| &report.problems)
            .map(|Found { line, path, message }| format!("{line}: {path}: {message}"))
            .collect();
        assert!(!expected.is_empty() && said == expected, "{}: {said:#?}", path.display());
        assert!(!said.iter().any(|said| said.contains(": : ")), "without a path: {said:?}");
    }
}

#[test]
fn every_example_is_valid() {
    let deploy = top().join("deploy");
    let mut files = Vec::new();
    yaml_below(&deploy, &mut files);
    let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap().to_owned()).collect();
    let reports = reports(&files, "weir.dev");
    let text = text(&reports, "weir.dev");
    assert!(reports.iter().all(|report| report.problems.is_empty()), "{text}");
    let valid: Vec<_> = reports.iter().filter(|report| report.outcome == Outcome::Valid).collect();
    assert!(valid.len() >= 13, "{text}");
}

fn yaml_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_below(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
}

#[test]
fn the_checked_in_schema_is_that_of_the_parser() {
    for (kind, schema) in
        [("NetworkConfig", claim::schema()), ("NodeConfig", claim::node_config_schema())]
    {
        let file = format!("deploy/schema/{}.schema.json", kind.to_lowercase());
        let copy = fs::read_to_string(top().join(&file)).unwrap();
        let copy: Value = serde_json::from_str(&copy).unwrap();
        assert!(copy == schema, "run: cargo run -p driver -- check --schema {kind} > {file}");
    }
}

#[test]
fn every_example_fits_the_schema() {
    let (schema, mut files) = (claim::schema(), Vec::new());
    yaml_below(&top().join("deploy"), &mut files);
    let mut texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for file in [
        "README.md",
        "docs/README.md",
        "docs/configuration.md",
        "docs/filters.md",
        "docs/node-config.md",
    ] {
        let text = fs::read_to_string(top().join(file)).unwrap();
        let blocks = text.split("```yaml\n").skip(1);
        texts.extend(blocks.map(|block| block.split("```").next().unwrap().to_owned()));
    }
    let documents =
        texts.iter().flat_map(|text| serde_saphyr::from_multiple::<Value>(text).unwrap());
    let configurations: usize = documents.map(|document| examine(&schema, &document)).sum();
    assert!(configurations >= 12, "only {configurations}");
}

/// Holds all that is a configuration against the schema, however deep it is; answers how many there
/// were.
fn examine(schema: &Value, value: &Value) -> usize {
    if value["kind"] == "NodeConfig" {
        let schema = claim::node_config_schema();
        fits(&schema, &schema, value).unwrap_or_else(|said| panic!("{said}"));
        return 0;
    }
    if value["kind"] == "NetworkConfig" {
        fits(schema, schema, &without_nulls(value)).unwrap_or_else(|said| panic!("{said}"));
        return 1;
    }
    match value {
        Value::Array(items) => items.iter().map(|item| examine(schema, item)).sum(),
        Value::Object(fields) => fields.values().map(|field| examine(schema, field)).sum(),
        _ => 0,
    }
}
