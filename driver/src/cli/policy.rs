//! `weir policy`: an operator's rules over those of a claim, while the pod runs.
//!
//! `apply` and `clear` ask the driver; `show` reads the checkpoint, driver or not.

mod args;
mod rules;

use std::time::Duration;

use serde_json::{Value, json};

pub use self::args::PolicyCommand;
use self::args::{SelectionArgs, ShowArgs};
use super::output::{columns, pretty, print};
use super::{CliError, Output, input};
use crate::admin::{self, Applied, CallError, Form, PolicyRequest, Verb};
use crate::model::Record;
use crate::{claim, state};

pub(super) fn run(command: &PolicyCommand) -> Result<(), CliError> {
    match command {
        PolicyCommand::Apply(args) => {
            let policy = read(&args.file)?;
            // What is wrong with it is said here, also where no driver runs.
            claim::parse_policy(&policy).map_err(|problems| {
                let problems = problems.iter().map(ToString::to_string).collect();
                CliError::Policy { file: args.file.clone(), problems }
            })?;
            ask(Verb::Apply, &args.selection, Some(policy), args.output, &args.file)
        }
        PolicyCommand::Clear(args) => ask(Verb::Clear, &args.selection, None, args.output, "-"),
        PolicyCommand::Show(args) => show(args),
    }
}

fn ask(
    verb: Verb,
    args: &SelectionArgs,
    policy: Option<Value>,
    output: Output,
    file: &str,
) -> Result<(), CliError> {
    let selection = args.selection().ok_or(CliError::NothingChosen)?;
    let request = PolicyRequest { selection, policy };
    let answer = admin::call(&args.state_dir, verb, &request).map_err(|error| match error {
        CallError::Refused { is_nothing_selected: true, .. } => {
            CliError::NothingSelected(request.selection.clone())
        }
        CallError::Refused { refusal, .. } if !refusal.problems.is_empty() => {
            let problems = refusal.problems.iter().map(|it| format!("{}: {}", it.path, it.message));
            CliError::Policy { file: file.to_owned(), problems: problems.collect() }
        }
        error => CliError::Call(error),
    })?;
    print(&match output {
        Output::Table if answer.applied.is_empty() && !answer.refused.is_empty() => String::new(),
        Output::Table => applied_text(&answer.applied),
        Output::Json => pretty(&answer.applied)?,
    })?;
    if answer.refused.is_empty() { Ok(()) } else { Err(CliError::NotEverywhere(answer.refused)) }
}

/// YAML, of which JSON is a part, from a file or, by `-`, from standard input.
fn read(file: &str) -> Result<Value, CliError> {
    serde_saphyr::from_str(&input::read(file)?)
        .map_err(|error| CliError::Yaml { file: file.to_owned(), reason: error.to_string() })
}

fn applied_text(applied: &[Applied]) -> String {
    if applied.is_empty() {
        // Only a policy that is cleared can be of a claim that is not prepared.
        return "A policy of before the node's restart is given up; nothing prepared had one.\n"
            .to_owned();
    }
    let row = |it: &Applied| {
        let took = Duration::from_micros(it.took_microseconds);
        let took = if took.is_zero() { "unchanged".to_owned() } else { format!("{took:.1?}") };
        vec![
            it.device.to_string(),
            it.pod.to_string(),
            it.generation.to_string(),
            it.operator_rules.to_string(),
            it.claim_rules.to_string(),
            it.form.name().to_owned(),
            took,
        ]
    };
    let titles = ["DEVICE", "POD", "GENERATION ", "OPERATOR'S ", "CLAIM'S ", "FORM", "TOOK "];
    columns(&titles, applied.iter().map(row))
}

fn show(args: &ShowArgs) -> Result<(), CliError> {
    let mut records = state::read_records(&args.selection.state_dir)?;
    let selection = args.selection.selection();
    if let Some(selection) = &selection {
        records.retain(|record| selection.has(record));
    }
    if records.is_empty()
        && let Some(selection) = selection
    {
        return Err(CliError::NothingSelected(selection));
    }
    print(&match args.output {
        Output::Table if records.is_empty() => "Nothing is prepared on this node.\n".to_owned(),
        Output::Table => records.iter().map(text).collect::<Vec<_>>().join("\n"),
        Output::Json => pretty(&records.iter().map(as_json).collect::<Vec<_>>())?,
    })
}

fn text(record: &Record) -> String {
    let Record { device, pod, claim, phase, .. } = record;
    let mut facts = vec![
        ("pod", format!("{pod} ({})", pod.uid)),
        ("claim", format!("{claim} ({})", claim.uid)),
        ("phase", phase.name().to_owned()),
    ];
    let filter = record.datapath.as_ref().and_then(|spec| spec.filter.as_ref());
    if let Some(spec) = &record.datapath {
        let state = if record.build.is_known() { "in force" } else { "not yet in force" };
        facts.push(("generation", format!("{}, {state}", spec.generation)));
        facts.push(("form", Form::of(filter).name().to_owned()));
    } else {
        facts.push(("generation", "none, it has no programs".to_owned()));
    }
    let policy = if record.policy.is_some() { "applied" } else { "none" };
    facts.push(("policy", policy.to_owned()));
    let facts = facts.into_iter().map(|(word, fact)| vec![word.to_owned(), fact]);
    let mut text = columns(&["DEVICE", device.name.as_str()], facts);
    if let Some(filter) = filter {
        text.push('\n');
        text.push_str(&columns(
            &["DIRECTION", "RULE", "ORIGIN", "ACTION", "WHAT"],
            rules::rows(filter, record.policy.as_ref()),
        ));
    }
    text
}

fn as_json(record: &Record) -> Value {
    let spec = record.datapath.as_ref();
    json!({
        "device": record.device.name,
        "pod": record.pod,
        "claim": record.claim,
        "phase": record.phase.name(),
        "generation": spec.map(|spec| spec.generation),
        "inForce": spec.is_some() && record.build.is_known(),
        "form": Form::of(spec.and_then(|spec| spec.filter.as_ref())),
        "policy": record.policy,
        "filter": spec.and_then(|spec| spec.filter.as_ref()),
    })
}

#[cfg(test)]
mod tests;
