//! The answer as text.

use std::fmt::{Display, Write as _};
use std::iter;

use super::super::output::columns;
use super::super::top::Counted;
use super::{Details, Inspected};
use crate::datapath::{FilterForm, HookFacts};
use crate::model::{
    Action, Ahead, DatapathSpec, DefaultAction, DirectionFilter, DirectionTraffic, Rate, Record,
    RuleTraffic, Traffic,
};

pub(super) fn of(it: &Inspected) -> String {
    let Inspected { record, programs, counted, datapath } = it;
    let mut rows = facts(record);
    if let (Some(spec), Some(details)) = (&record.datapath, datapath) {
        rows.extend(datapath_facts(spec, details, counted.traffic()));
    }
    let row = |(word, fact): (&str, String)| vec![word.to_owned(), fact];
    let mut text = columns(&["DEVICE", record.device.name.as_str()], rows.into_iter().map(row));
    match programs {
        Ok(programs) if programs.is_empty() => {}
        Ok(programs) => {
            text.push('\n');
            text.push_str(&columns(
                &["HOOK", "PROGRAM ", "NAME", "STATE", "JITED "],
                programs.iter().map(program),
            ));
        }
        // Writing to a string cannot fail, here and below.
        Err(reason) => drop(writeln!(text, "\nThe programs cannot be seen: {reason}")),
    }
    if let (Some(spec), Some(Details { rules: Ok(rules), .. })) = (&record.datapath, datapath)
        && !rules.is_empty()
    {
        text.push('\n');
        text.push_str(&rules_text(spec, rules));
    }
    match counted {
        Counted::Nothing => {}
        Counted::Unread(reason) => drop(writeln!(text, "\nThe counters cannot be read: {reason}")),
        Counted::Traffic(traffic) => {
            let rows = traffic.directions().into_iter().flat_map(|(name, it)| counts(name, it));
            text.push('\n');
            text.push_str(&columns(&["DIRECTION", "COUNTED", "PACKETS ", "BYTES "], rows));
        }
    }
    text
}

fn program(at: &HookFacts) -> Vec<String> {
    let state = match (at.link_id, at.interface) {
        (None, _) => "a filter",
        (Some(_), Some(_)) => "attached",
        (Some(_), None) => "severed",
    };
    let program = at.program.as_ref();
    let name = program.map_or("?", |program| program.name.as_str());
    let bytes = program.map_or(0, |program| program.jited_bytes);
    [at.hook, &at.program_id.to_string(), name, state, &bytes.to_string()]
        .map(ToOwned::to_owned)
        .to_vec()
}

/// What the checkpoint says, a word and a fact in each row.
fn facts(record: &Record) -> Vec<(&'static str, String)> {
    let Record { claim, pod, device, before, phase, .. } = record;
    let pod_interface = record.called();
    let inside = match (phase.netns(), phase.inside().filter(|_| record.has_interface())) {
        (Some(netns), Some(index)) => {
            format!("{pod_interface} (index {index}) in {}, {}", netns.id, netns.path.display())
        }
        (Some(netns), None) => format!("{pod_interface} in {}, {}", netns.id, netns.path.display()),
        (None, _) => format!("{pod_interface}, not now"),
    };
    let mut facts = vec![
        ("phase", phase.name().to_owned()),
        ("pod", format!("{pod} ({})", pod.uid)),
        ("claim", format!("{claim} ({})", claim.uid)),
        ("requests", record.requests.join(", ")),
        ("in the pod", inside),
        (
            "on the host",
            if record.has_interface() {
                format!("{} (index {})", before.name, before.index)
            } else {
                device.called().to_owned()
            },
        ),
        ("kind", format!("{}, {}", device.kind, device.driver.as_deref().unwrap_or("no driver"))),
    ];
    facts.push(match &record.datapath {
        Some(spec) => ("hooks", spec.explanation()),
        None => ("hooks", "none".to_owned()),
    });
    if record.datapath.is_some() {
        facts.push(("build", record.build.0.clone()));
    }
    // The word is said once.
    let words = iter::once("not put back").chain(iter::repeat(""));
    facts.extend(words.zip(record.residue.iter().cloned()));
    facts
}

/// What is known of the datapath as a whole.
fn datapath_facts(
    spec: &DatapathSpec,
    details: &Details,
    traffic: Option<&Traffic>,
) -> Vec<(&'static str, String)> {
    let Details { forms, rules, memory, ahead } = details;
    let filter = spec.filter.as_ref();
    let form = |name: &str| {
        let of = |forms: &Vec<FilterForm>| forms.iter().find(|it| it.direction == name).copied();
        forms.as_ref().map(of)
    };
    let filter_of = |name, filter: Option<&DirectionFilter>| match (filter, form(name)) {
        (None, _) => "none".to_owned(),
        (Some(filter), Ok(Some(form))) => {
            format!("{}; {}, {} entries", filter_text(filter), form.form, form.entries)
        }
        (Some(filter), Ok(None)) => filter_text(filter),
        (Some(filter), Err(reason)) => format!("{}; {reason}", filter_text(filter)),
    };
    let generation = match traffic {
        Some(Traffic { ingress, egress }) => format!(
            "{}; the last packet in was judged by {}, the last one out by {}",
            spec.generation,
            judged(ingress),
            judged(egress)
        ),
        None => spec.generation.to_string(),
    };
    let mut facts = vec![
        ("ingress filter", filter_of("ingress", filter.and_then(|it| it.ingress.as_ref()))),
        ("egress filter", filter_of("egress", filter.and_then(|it| it.egress.as_ref()))),
        ("generation", generation),
        ("memory", or_why(memory.as_ref().map(|bytes| format!("{bytes} bytes in maps")))),
        ("programs ahead", or_why(ahead.as_ref().map(ahead_text))),
    ];
    if let Err(reason) = rules {
        facts.push(("rules", or_why::<String>(Err(reason))));
    }
    facts
}

/// The programs ahead, and where nobody can tell.
fn ahead_text(ahead: &Ahead) -> String {
    let directions = ahead.directions();
    let watched = directions.iter().filter(|(_, programs)| programs.is_some()).count();
    let mut parts = Vec::new();
    if ahead.is_any() {
        parts.push(ahead.to_string());
    } else if watched > 0 {
        parts.push("none".to_owned());
    }
    match directions.iter().find(|(_, programs)| programs.is_none()) {
        Some(_) if watched == 0 => parts.push("not watched".to_owned()),
        Some((direction, _)) => parts.push(format!("{direction} not watched")),
        None => {}
    }
    parts.join("; ")
}

fn or_why<T: Display>(seen: Result<T, &String>) -> String {
    match seen {
        Ok(seen) => seen.to_string(),
        Err(reason) => format!("unknown: {reason}"),
    }
}

/// Which state of the filter the last packet has seen.
fn judged(traffic: &DirectionTraffic) -> String {
    match traffic.generation {
        0 => "none".to_owned(),
        generation => generation.to_string(),
    }
}

fn filter_text(filter: &DirectionFilter) -> String {
    let default = match filter.default_action {
        DefaultAction::Allow => "allow",
        DefaultAction::Deny => "deny",
    };
    let replies = if filter.stateful { ", replies" } else { "" };
    format!("{} rules{replies}, {default} everything else", filter.rules.len())
}

/// Each rule with what it does and what it matched.
fn rules_text(spec: &DatapathSpec, rules: &[RuleTraffic]) -> String {
    let filter = spec.filter.iter();
    let directions = filter.flat_map(|it| it.ingress.iter().chain(&it.egress));
    // In the same order, from the same filter.
    let actions = directions.flat_map(|direction| &direction.rules).map(|rule| action(rule.action));
    let row = |(rule, action): (&RuleTraffic, String)| {
        let RuleTraffic { direction, origin, rule, matched } = rule;
        let (packets, bytes) = (matched.packets.to_string(), matched.bytes.to_string());
        vec![
            (*direction).to_owned(),
            origin.name().to_owned(),
            rule.clone(),
            action,
            packets,
            bytes,
        ]
    };
    columns(
        &["DIRECTION", "ORIGIN", "RULE", "ACTION", "PACKETS ", "BYTES "],
        rules.iter().zip(actions).map(row),
    )
}

fn action(action: Action) -> String {
    match action {
        Action::Allow => "allow".to_owned(),
        Action::Deny => "deny".to_owned(),
        Action::Count => "count".to_owned(),
        Action::RateLimit(limit) => match limit.rate {
            Rate::PacketsPerSecond(rate) => format!("rateLimit {rate} packets/s"),
            Rate::BitsPerSecond(rate) => format!("rateLimit {rate} bit/s"),
        },
    }
}

/// Rows for what has been counted in one direction, without the zeroes.
fn counts(direction: &str, traffic: &DirectionTraffic) -> Vec<Vec<String>> {
    let row = |what: &str, packets: u64, bytes: String| {
        vec![direction.to_owned(), what.to_owned(), packets.to_string(), bytes]
    };
    let mut rows = vec![row("total", traffic.total.packets, traffic.total.bytes.to_string())];
    for (name, count) in traffic.verdicts.iter().chain(&traffic.protocols) {
        rows.push(row(name, count.packets, count.bytes.to_string()));
    }
    for (name, packets) in &traffic.tcp_events {
        rows.push(row(name, *packets, "-".to_owned()));
    }
    for (most, packets) in &traffic.sizes {
        let name = most.map_or("larger".to_owned(), |most| format!("up to {most} bytes"));
        rows.push(row(&name, *packets, "-".to_owned()));
    }
    for (name, packets) in [
        ("fragments", traffic.fragments),
        ("tagged", traffic.tagged),
        ("replies", traffic.replies),
        ("flows evicted", traffic.flows_evicted),
        ("flows exported", traffic.flows_exported),
        ("flows lost", traffic.flows_lost),
    ] {
        rows.push(row(name, packets, "-".to_owned()));
    }
    let is_shown = |row: &Vec<String>| row[1] == "total" || row[2] != "0";
    rows.into_iter().filter(is_shown).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::inspected;
    use super::*;
    use crate::model::Phase;

    #[test]
    fn the_text_tells_the_whole_story() {
        let text = of(&inspected());
        let story = "\
DEVICE          eth1
phase           attached
pod             default/web (uid-web)
claim           default/nic (uid-nic)
requests        nic
in the pod      net1 (index 3) in net:[4026532000], /run/netns/4026532000
on the host     eth1 (index 7)
kind            veth, veth
hooks           ingress by xdp, because the claim asks for it; egress by tcx
build           0123abcd
ingress filter  2 rules, replies, deny everything else; narrow, 2 entries
egress filter   none
generation      2; the last packet in was judged by 1, the last one out by 1
memory          70000 bytes in maps
programs ahead  egress: spy

HOOK  PROGRAM  NAME      STATE     JITED
xdp        17  weir_xdp  attached    824

DIRECTION  ORIGIN    RULE  ACTION  PACKETS  BYTES
ingress    operator  web   deny          2    200
ingress    claim     web   allow         5    500

DIRECTION  COUNTED          PACKETS  BYTES
ingress    total                  7    700
ingress    allowed                5    500
ingress    denied_rule            2    200
ingress    tcp                    5    500
ingress    udp                    2    200
ingress    syn                    1      -
ingress    up to 128 bytes        7      -
ingress    fragments              2      -
ingress    tagged                 3      -
ingress    replies                4      -
ingress    flows evicted         30      -
ingress    flows exported        20      -
ingress    flows lost            10      -
egress     total                  5    500
";
        assert!(text.starts_with(story), "{text}");
    }

    #[test]
    fn what_could_not_be_put_back_is_told_a_line_each() {
        let mut it = inspected();
        it.record.residue = ["a route (exists)", "a rule"].map(ToOwned::to_owned).to_vec();
        let text = of(&it);
        let lines = "\nnot put back    a route (exists)\n                a rule\ningress filter";
        assert!(text.contains(lines), "{text}");
    }

    #[test]
    fn where_nobody_looks_none_is_not_said() {
        let nothing = || Some(Vec::new());
        for (ingress, egress, told) in [
            (nothing(), nothing(), "none"),
            (nothing(), None, "none; egress not watched"),
            (Some(vec!["spy".to_owned()]), None, "ingress: spy; egress not watched"),
            (None, None, "not watched"),
        ] {
            assert_eq!(ahead_text(&Ahead { ingress, egress }), told);
        }
    }

    #[test]
    fn what_cannot_be_seen_is_said_and_hides_nothing_else() {
        let mut it = inspected();
        it.record.phase = Phase::Prepared;
        it.programs = Err("no such pin".to_owned());
        it.counted = Counted::Unread("no such map".to_owned());
        let details = it.datapath.as_mut().unwrap();
        details.ahead = Err("no such namespace".to_owned());
        details.rules = Err("no hits".to_owned());
        details.forms = Err("no compiler".to_owned());
        let text = of(&it);
        assert!(text.contains("in the pod      net1, not now\n"), "{text}");
        assert!(text.contains("\nprograms ahead  unknown: no such namespace\n"), "{text}");
        assert!(text.contains("\nrules           unknown: no hits\n"), "{text}");
        assert!(text.contains("deny everything else; no compiler\n"), "{text}");
        assert!(text.contains("\nThe programs cannot be seen: no such pin\n"), "{text}");
        assert!(text.ends_with("\nThe counters cannot be read: no such map\n"), "{text}");
    }
}
