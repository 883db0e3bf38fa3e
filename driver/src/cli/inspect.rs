//! `weir inspect`: everything that is known of a pod's, a claim's or one device.

mod text;

use std::error::Error;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::output::{pretty, print, traffic_json};
use super::top::Counted;
use super::{CliError, InspectArgs, Output};
use crate::datapath::{self, CounterSource as _, FilterForm, HookFacts, MapCounters};
use crate::model::{Ahead, DatapathSpec, Record, RuleTraffic};
use crate::{state, telemetry};

/// What could be seen, or why it could not.
type Seen<T> = Result<T, String>;

/// One device, from the checkpoint and from the kernel.
struct Inspected {
    record: Record,
    programs: Seen<Vec<HookFacts>>,
    counted: Counted,
    /// `None` where there is no datapath.
    datapath: Option<Details>,
}

/// What there is beside programs and their counters.
struct Details {
    forms: Seen<Vec<FilterForm>>,
    rules: Seen<Vec<RuleTraffic>>,
    /// Bytes.
    memory: Seen<u64>,
    ahead: Seen<Ahead>,
}

pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let bpffs = &args.places.bpffs;
    let source = MapCounters::new(bpffs);
    let records = state::read_records(&args.places.state_dir)?;
    let inspected: Vec<_> = records
        .into_iter()
        .filter(|record| is_meant(record, &args.what))
        .map(|record| {
            let spec = record.datapath.as_ref();
            Inspected {
                programs: spec.map_or(Ok(Vec::new()), |it| seen(datapath::programs(bpffs, &it.id))),
                counted: Counted::read(&record, &source),
                datapath: spec.map(|spec| details(bpffs, &source, &record, spec)),
                record,
            }
        })
        .collect();
    if inspected.is_empty() {
        return Err(CliError::NothingMatches(args.what.clone()));
    }
    print(&match args.output {
        Output::Table => inspected.iter().map(text::of).collect::<Vec<_>>().join("\n"),
        Output::Json => pretty(&inspected.iter().map(json).collect::<Vec<_>>())?,
    })
}

fn details(bpffs: &Path, source: &MapCounters, record: &Record, spec: &DatapathSpec) -> Details {
    Details {
        forms: seen(datapath::forms(spec)),
        rules: seen(source.rules(spec)),
        memory: seen(source.memory(&spec.id)),
        ahead: seen(datapath::ahead(bpffs, record)),
    }
}

fn seen<T>(outcome: Result<T, impl Error>) -> Seen<T> {
    outcome.map_err(|error| telemetry::chain(&error))
}

/// Whether `what` names the record's device, its pod or its claim: the latter two by name, by
/// namespace and name, or by UID.
pub(super) fn is_meant(record: &Record, what: &str) -> bool {
    let Record { pod, claim, device, .. } = record;
    device.name.as_str() == what
        || [&pod.name, &claim.name].into_iter().any(|name| name == what)
        || [pod.uid.as_str(), claim.uid.as_str()].contains(&what)
        || [pod.to_string(), claim.to_string()].iter().any(|name| name == what)
}

fn json(it: &Inspected) -> Value {
    let mut errors = Vec::new();
    let mut value = json!({
        "record": it.record,
        "programs": told(&it.programs, &mut errors),
        "traffic": it.counted.traffic().map(traffic_json),
    });
    if let Counted::Unread(reason) = &it.counted {
        errors.push(reason);
    }
    if let (Some(spec), Some(Details { forms, rules, memory, ahead })) =
        (&it.record.datapath, &it.datapath)
    {
        value["datapath"] = json!({
            "hooks": spec.explanation(),
            "degraded": spec.is_degraded(),
            "generation": spec.generation,
            "filters": told(forms, &mut errors),
            "rules": told(rules, &mut errors),
            "memoryBytes": told(memory, &mut errors),
            "programsAhead": told(ahead, &mut errors),
        });
    }
    if !errors.is_empty() {
        value["errors"] = json!(errors);
    }
    value
}

fn told<'a, T: Serialize>(seen: &'a Seen<T>, errors: &mut Vec<&'a String>) -> Value {
    match seen {
        Ok(seen) => json!(seen),
        Err(reason) => {
            errors.push(reason);
            Value::Null
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::ProgramFacts;
    use crate::model::{
        Action, DefaultAction, DirectionFilter, Filter, FilterRule, HookReason, Origin,
    };
    use crate::telemetry::samples::{record, rules, traffic};
    use crate::testing::rule;

    pub(super) fn inspected() -> Inspected {
        let mut record = record("eth1");
        let operator = FilterRule { origin: Origin::Operator, ..rule("web", Action::Deny) };
        let ingress = DirectionFilter {
            default_action: DefaultAction::Deny,
            stateful: true,
            rules: vec![operator, rule("web", Action::Allow)],
        };
        if let Some(spec) = &mut record.datapath {
            spec.filter = Some(Filter { ingress: Some(ingress), egress: None });
            spec.why = HookReason::Wished;
            spec.generation = 2;
        }
        let program = ProgramFacts {
            name: "weir_xdp".to_owned(),
            tag: "0123456789abcdef".to_owned(),
            jited_bytes: 824,
            translated_bytes: Some(1536),
            verified_instructions: Some(260),
        };
        let hook = HookFacts {
            hook: "xdp",
            link_id: Some(9),
            interface: Some(crate::model::IfIndex(3)),
            program_id: 17,
            program: Some(program),
        };
        let details = Details {
            forms: Ok(vec![FilterForm { direction: "ingress", form: "narrow", entries: 2 }]),
            rules: Ok(rules()),
            memory: Ok(70_000),
            ahead: Ok(Ahead { egress: Some(vec!["spy".to_owned()]), ..Ahead::NOTHING }),
        };
        Inspected {
            record,
            programs: Ok(vec![hook]),
            counted: Counted::Traffic(Box::new(traffic(5, 2))),
            datapath: Some(details),
        }
    }

    #[test]
    fn a_device_is_found_by_every_name_of_it() {
        let record = record("eth1");
        for what in ["eth1", "web", "default/web", "uid-web", "nic", "default/nic", "uid-nic"] {
            assert!(is_meant(&record, what), "{what}");
        }
        for what in ["", "eth", "net1", "default", "default/", "other/web", "xdp"] {
            assert!(!is_meant(&record, what), "{what}");
        }
    }

    #[test]
    fn json_holds_the_record_as_it_is_on_disk() {
        let it = inspected();
        let value = json(&it);
        assert_eq!(serde_json::from_value::<Record>(value["record"].clone()).unwrap(), it.record);
        assert_eq!(value["programs"][0]["program"]["name"], "weir_xdp");
        assert_eq!(value["traffic"]["egress"]["protocols"]["tcp"]["bytes"], 500);
        assert_eq!(value.get("errors"), None);
        let datapath = &value["datapath"];
        assert_eq!(datapath["programsAhead"], json!({ "ingress": [], "egress": ["spy"] }));
        assert_eq!(datapath["rules"][0]["origin"], "operator");
        assert_eq!(datapath["rules"][0]["packets"], 2);
        assert_eq!(datapath["filters"][0]["entries"], 2);
    }

    #[test]
    fn json_says_why_something_is_missing() {
        let mut it = inspected();
        it.programs = Err("no such pin".to_owned());
        it.counted = Counted::Unread("no such map".to_owned());
        let value = json(&it);
        assert_eq!(value["errors"], json!(["no such pin", "no such map"]));
    }
}
