//! `weir inspect`: everything that is known of a pod's, a claim's or one device.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::output::{columns, pretty, print, traffic_json};
use super::top::Counted;
use super::{CliError, InspectArgs, Output};
use crate::datapath::{self, HookFacts, MapCounters};
use crate::model::{DefaultAction, Action, DirectionFilter, DirectionTraffic, Record};
use crate::{state, telemetry};

/// One device, from the checkpoint and from the kernel.
struct Inspected {
    record: Record,
    /// Or why they cannot be seen.
    programs: Result<Vec<HookFacts>, String>,
    counted: Counted,
}

pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let bpffs = &args.places.bpffs;
    let source = MapCounters::new(bpffs);
    let records = state::read_records(&args.places.state_dir)?;
    let inspected: Vec<_> = records
        .into_iter()
        .filter(|record| is_meant(record, &args.what))
        .map(|record| Inspected {
            programs: match &record.datapath {
                Some(spec) => {
                    datapath::programs(bpffs, &spec.id).map_err(|error| telemetry::chain(&error))
                }
                None => Ok(Vec::new()),
            },
            counted: Counted::read(&record, &source),
            record,
        })
        .collect();
    if inspected.is_empty() {
        return Err(CliError::NothingMatches(args.what.clone()));
    }
    print(&match args.output {
        Output::Table => inspected.iter().map(text).collect::<Vec<_>>().join("\n"),
        Output::Json => pretty(&inspected.iter().map(json).collect::<Vec<_>>())?,
    })
}

/// Whether `what` names the record's device, its pod or its claim: the latter two by name, by
/// namespace and name, or by UID.
fn is_meant(record: &Record, what: &str) -> bool {
    let Record { pod, claim, device, .. } = record;
    device.name.as_str() == what
        || [&pod.name, &claim.name].into_iter().any(|name| name == what)
        || [pod.uid.as_str(), claim.uid.as_str()].contains(&what)
        || [pod.to_string(), claim.to_string()].iter().any(|name| name == what)
}

fn text(it: &Inspected) -> String {
    let mut text = columns(&["DEVICE", it.record.device.name.as_str()], facts(&it.record));
    match &it.programs {
        Ok(programs) if programs.is_empty() => {}
        Ok(programs) => {
            let row = |at: &HookFacts| {
                let state = if at.interface.is_some() { "attached" } else { "severed" };
                let program = at.program.as_ref();
                let name = program.map_or("?", |program| program.name.as_str());
                let bytes = program.map_or(0, |program| program.jited_bytes);
                [at.hook, &at.program_id.to_string(), name, state, &bytes.to_string()]
                    .map(ToOwned::to_owned)
                    .to_vec()
            };
            text.push('\n');
            text.push_str(&columns(
                &["HOOK", "PROGRAM ", "NAME", "STATE", "JITED "],
                programs.iter().map(row),
            ));
        }
        // Writing to a string cannot fail, here and below.
        Err(reason) => drop(writeln!(text, "\nThe programs cannot be seen: {reason}")),
    }
    match &it.counted {
        Counted::Nothing => {}
        Counted::Unread(reason) => drop(writeln!(text, "\nThe counters cannot be read: {reason}")),
        Counted::Traffic(traffic) => {
            let mut rows = counts("ingress", &traffic.ingress);
            rows.extend(counts("egress", &traffic.egress));
            text.push('\n');
            text.push_str(&columns(&["DIRECTION", "COUNTED", "PACKETS ", "BYTES "], rows));
        }
    }
    text
}

/// What the checkpoint says, a word and a fact in each row.
fn facts(record: &Record) -> Vec<Vec<String>> {
    let Record { claim, pod, device, before, phase, build, wishes, .. } = record;
    let pod_interface = record.pod_interface();
    let inside = match (phase.netns(), phase.inside()) {
        (Some(netns), Some(index)) => {
            format!("{pod_interface} (index {index}) in {}, {}", netns.id, netns.path.display())
        }
        (Some(netns), None) => format!("{pod_interface} in {}, {}", netns.id, netns.path.display()),
        (None, _) => format!("{pod_interface}, not now"),
    };
    let datapath = match &record.datapath {
        Some(spec) => format!("{} for ingress, tcx for egress, build {}", spec.ingress, build.0),
        None => "none".to_owned(),
    };
    let filter = wishes.ebpf.filter.clone().unwrap_or_default();
    [
        ("phase", phase.name().to_owned()),
        ("pod", format!("{pod} ({})", pod.uid)),
        ("claim", format!("{claim} ({})", claim.uid)),
        ("requests", record.requests.join(", ")),
        ("in the pod", inside),
        ("on the host", format!("{} (index {})", before.name, before.index)),
        ("kind", format!("{}, {}", device.kind, device.driver.as_deref().unwrap_or("no driver"))),
        ("hooks", datapath),
        ("ingress filter", filter_text(filter.ingress.as_ref())),
        ("egress filter", filter_text(filter.egress.as_ref())),
    ]
    .map(|(word, fact)| vec![word.to_owned(), fact])
    .into()
}

fn filter_text(filter: Option<&DirectionFilter>) -> String {
    let Some(filter) = filter else {
        return "none".to_owned();
    };
    let mut text = String::new();
    for rule in &filter.rules {
        let action = match rule.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::RateLimit(_) => "rateLimit",
            Action::Count => "count",
        };
        let _ = write!(text, "{action} {}, ", rule.name);
    }
    let default = match filter.default_action {
        DefaultAction::Allow => "allow",
        DefaultAction::Deny => "deny",
    };
    text + default + " everything else"
}

/// Rows for what has been counted in one direction, without the zeroes.
fn counts(direction: &str, traffic: &DirectionTraffic) -> Vec<Vec<String>> {
    let total = [("total", traffic.total)];
    let counts = total.iter().chain(&traffic.verdicts).chain(&traffic.protocols);
    counts
        .filter(|(name, count)| *name == "total" || count.packets > 0)
        .map(|(name, count)| {
            let (packets, bytes) = (count.packets.to_string(), count.bytes.to_string());
            vec![direction.to_owned(), (*name).to_owned(), packets, bytes]
        })
        .collect()
}

fn json(it: &Inspected) -> Value {
    let mut value = json!({
        "record": it.record,
        "programs": it.programs.as_ref().ok(),
        "traffic": it.counted.traffic().map(traffic_json),
    });
    let mut errors = Vec::new();
    errors.extend(it.programs.as_ref().err());
    if let Counted::Unread(reason) = &it.counted {
        errors.push(reason);
    }
    if !errors.is_empty() {
        value["errors"] = json!(errors);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::ProgramFacts;
    use crate::model::{Filter, FilterRule, Phase};
    use crate::telemetry::samples::{record, traffic};

    fn inspected() -> Inspected {
        let mut record = record("eth1");
        let rule = crate::testing::rule("web", Action::Allow);
        let ingress = DirectionFilter {
            default_action: DefaultAction::Deny,
            stateful: false,
            rules: vec![rule],
        };
        record.wishes.ebpf.filter = Some(Filter { ingress: Some(ingress), egress: None });
        let program = ProgramFacts {
            name: "weir_xdp".to_owned(),
            tag: "0123456789abcdef".to_owned(),
            jited_bytes: 824,
            translated_bytes: Some(1536),
            verified_instructions: Some(260),
        };
        let hook = HookFacts {
            hook: "xdp",
            link_id: 9,
            interface: Some(crate::model::IfIndex(3)),
            program_id: 17,
            program: Some(program),
        };
        Inspected { record, programs: Ok(vec![hook]), counted: Counted::Traffic(traffic(5, 2)) }
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
    fn the_text_tells_the_whole_story() {
        assert_eq!(
            text(&inspected()),
            "\
DEVICE          eth1
phase           attached
pod             default/web (uid-web)
claim           default/nic (uid-nic)
requests        nic
in the pod      net1 (index 3) in net:[4026532000], /run/netns/4026532000
on the host     eth1 (index 7)
kind            veth, veth
hooks           xdp for ingress, tcx for egress, build 0123abcd
ingress filter  allow web, deny everything else
egress filter   none

HOOK  PROGRAM  NAME      STATE     JITED
xdp        17  weir_xdp  attached    824

DIRECTION  COUNTED      PACKETS  BYTES
ingress    total              7    700
ingress    allowed            5    500
ingress    denied_rule        2    200
ingress    tcp                5    500
ingress    udp                2    200
egress     total              5    500
egress     allowed            5    500
egress     tcp                5    500
"
        );
    }

    #[test]
    fn what_cannot_be_seen_is_said_and_hides_nothing_else() {
        let mut it = inspected();
        it.record.phase = Phase::Prepared;
        it.programs = Err("no such pin".to_owned());
        it.counted = Counted::Unread("no such map".to_owned());
        let text = text(&it);
        assert!(text.contains("in the pod      net1, not now\n"), "{text}");
        assert!(text.contains("\nThe programs cannot be seen: no such pin\n"), "{text}");
        assert!(text.ends_with("\nThe counters cannot be read: no such map\n"), "{text}");
        assert_eq!(json(&it)["errors"], json!(["no such pin", "no such map"]));
    }

    #[test]
    fn json_holds_the_record_as_it_is_on_disk() {
        let it = inspected();
        let value = json(&it);
        assert_eq!(serde_json::from_value::<Record>(value["record"].clone()).unwrap(), it.record);
        assert_eq!(value["programs"][0]["program"]["name"], "weir_xdp");
        assert_eq!(value["traffic"]["egress"]["protocols"]["tcp"]["bytes"], 500);
        assert_eq!(value.get("errors"), None);
    }
}
