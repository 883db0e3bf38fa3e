//! `weir check`: whether files hold what prepare, or the driver, would take. Asks nobody.

mod document;
mod judge;
mod lines;

use std::fmt::Write as _;

use serde::Serialize;

use self::document::Document;
use self::judge::Judged;
use super::args::{CheckArgs, SchemaKind};
use super::output::{pretty, print};
use super::{CliError, Output};
use crate::claim;

/// What there is to say of a document, or of a file that has none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    file: String,
    line: u64,
    /// `None` where the file cannot be read.
    kind: Option<String>,
    name: Option<String>,
    outcome: Outcome,
    problems: Vec<Found>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    Valid,
    NotValid,
    /// Nothing in it is for this driver.
    Skipped,
}

/// One problem.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    line: u64,
    /// From the root of the document; empty for a file that cannot be read.
    path: String,
    message: String,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), CliError> {
    if let Some(kind) = args.schema {
        let schema = match kind {
            SchemaKind::NetworkConfig => claim::schema(),
            SchemaKind::NodeConfig => claim::node_config_schema(),
        };
        return print(&pretty(&schema)?);
    }
    let reports = reports(&args.files, &args.driver_name);
    print(&match args.output {
        Output::Table => text(&reports, &args.driver_name),
        Output::Json => pretty(&reports)?,
    })?;
    match reports.iter().map(|report| report.problems.len()).sum() {
        0 => Ok(()),
        problems => Err(CliError::NotValid(problems)),
    }
}

/// One for each document of each file, in their order, and for each file that cannot be read.
fn reports(files: &[String], driver: &str) -> Vec<Report> {
    let (mut documents, mut unread) = (Vec::new(), Vec::new());
    for file in files {
        match document::read(file) {
            Ok(found) => documents.extend(found),
            Err((line, message)) => unread.push(unreadable(file, line, message)),
        }
    }
    let judged = judge::judge(&documents, driver);
    let judged = documents.iter().zip(judged).map(|(document, judged)| report(document, judged));
    let mut reports: Vec<_> = judged.chain(unread).collect();
    // Stable, so that documents of a file stay in their order.
    reports.sort_by_key(|report| files.iter().position(|file| *file == report.file));
    reports
}

fn unreadable(file: &str, line: u64, message: String) -> Report {
    Report {
        file: file.to_owned(),
        line,
        kind: None,
        name: None,
        outcome: Outcome::NotValid,
        problems: vec![Found { line, path: String::new(), message }],
    }
}

fn report(document: &Document, judged: Judged) -> Report {
    let (outcome, problems) = match judged {
        Judged::Skipped => (Outcome::Skipped, Vec::new()),
        Judged::Examined(problems) if problems.is_empty() => (Outcome::Valid, problems),
        Judged::Examined(problems) => (Outcome::NotValid, problems),
    };
    let found = |problem: crate::model::Problem| Found {
        line: document.line_of(&problem.path),
        path: document.whole(&problem.path),
        message: problem.message,
    };
    Report {
        file: document.file.clone(),
        line: document.line_of(""),
        kind: document.kind().map(str::to_owned),
        name: document.name(),
        outcome,
        problems: problems.into_iter().map(found).collect(),
    }
}

/// A line for each problem and each document that was skipped, as compilers have them, and the sum.
fn text(reports: &[Report], driver: &str) -> String {
    let mut text: String = reports.iter().map(|report| lines_of(report, driver)).collect();
    let count = |outcome| reports.iter().filter(|report| report.outcome == outcome).count();
    let [valid, not_valid, skipped] =
        [Outcome::Valid, Outcome::NotValid, Outcome::Skipped].map(count);
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(text, "{valid} valid, {not_valid} not valid, {skipped} skipped");
    text
}

fn lines_of(report: &Report, driver: &str) -> String {
    let Report { file, line, kind, name, outcome, problems } = report;
    let mut text = String::new();
    if *outcome == Outcome::Skipped {
        let kind = kind.as_deref().unwrap_or("document");
        let name = name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let _ =
            writeln!(text, "{file}:{line}: {kind}{name}: skipped, nothing in it is for {driver}");
    }
    for Found { line, path, message } in problems {
        let colon = if path.is_empty() { "" } else { ": " };
        let _ = writeln!(text, "{file}:{line}: {path}{colon}{message}");
    }
    text
}

#[cfg(test)]
mod tests;
