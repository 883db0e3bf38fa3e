//! `weir flows`: who talks to whom, as far as the cache remembers; or flows as they leave it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{FlowOrder, FlowsArgs};
use super::inspect::is_meant;
use super::output::{columns, pretty, print, short};
use super::{CliError, Output};
use crate::datapath::{self, CounterError, CounterSource, Follower, MapCounters};
use crate::model::{AttachmentId, Ends, Flow, Phase, Record, Telemetry, Traffic};
use crate::{state, telemetry};

/// How often what has left the cache is looked for. Nobody is woken: that would cost the programs.
const LOOK: Duration = Duration::from_millis(250);

/// What is known of the flows of one attachment.
struct Kept {
    record: Record,
    /// `None` where no flows are kept.
    flows: Option<Result<Vec<Flow>, String>>,
    /// What was counted beside, where it could be read.
    traffic: Option<Traffic>,
}

pub(super) fn run(args: &FlowsArgs) -> Result<(), CliError> {
    if args.follow {
        return follow(args);
    }
    let bpffs = &args.places.bpffs;
    let source = MapCounters::new(bpffs);
    let kept: Vec<_> = meant(args)?
        .into_iter()
        .map(|record| Kept {
            flows: has_flows(&record).then(|| {
                datapath::flows(bpffs, &record.id()).map_err(|error| telemetry::chain(&error))
            }),
            traffic: source.read(&record.id()).ok(),
            record,
        })
        .collect();
    let shown = shown(&kept, args);
    print(&match args.output {
        Output::Table => table(&kept, &shown),
        Output::Json => pretty(&json(&kept, &shown))?,
    })?;
    match kept.iter().filter(|it| matches!(it.flows, Some(Err(_)))).count() {
        0 => Ok(()),
        unread => Err(CliError::UnreadFlows(unread)),
    }
}

/// The records that the command is about.
fn meant(args: &FlowsArgs) -> Result<Vec<Record>, CliError> {
    let mut records = state::read_records(&args.places.state_dir)?;
    if let Some(what) = &args.what {
        records.retain(|record| is_meant(record, what));
        if records.is_empty() {
            return Err(CliError::NothingMatches(what.clone()));
        }
    }
    Ok(records)
}

fn has_flows(record: &Record) -> bool {
    let is_made = !matches!(record.phase, Phase::Preparing | Phase::Unpreparing);
    let keeps = |telemetry| telemetry == Telemetry::Flows;
    is_made && record.datapath.as_ref().is_some_and(|spec| keeps(spec.telemetry))
}

/// The flows that were asked for, in the order that was asked for.
fn shown<'a>(kept: &'a [Kept], args: &FlowsArgs) -> Vec<(&'a Record, &'a Flow)> {
    let is_wanted = |flow: &Flow| args.direction.is_none_or(|way| way.name() == flow.direction);
    let mut shown = Vec::new();
    for Kept { record, flows, .. } in kept {
        let flows = flows.iter().flatten().flatten();
        shown.extend(flows.filter(|flow| is_wanted(flow)).map(|flow| (record, flow)));
    }
    shown.sort_by_key(|(_, flow)| {
        let first = match args.sort {
            FlowOrder::Bytes => Reverse(u128::from(flow.seen.bytes)),
            FlowOrder::Packets => Reverse(u128::from(flow.seen.packets)),
            FlowOrder::Last => Reverse(u128::MAX - flow.last_seen.as_nanos()),
        };
        // A stable order for those that are equal: the cache has none.
        (first, flow.direction, flow.source, flow.destination, where_to(flow))
    });
    shown.truncate(args.top);
    shown
}

const TITLES: [&str; 11] = [
    "POD",
    "INTERFACE",
    "DIRECTION",
    "PROTOCOL",
    "SOURCE",
    "DESTINATION",
    "FLAGS",
    "VERDICT",
    "PACKETS ",
    "BYTES ",
    "LAST-SEEN ",
];

fn table(kept: &[Kept], shown: &[(&Record, &Flow)]) -> String {
    let rows = shown.iter().map(|(record, flow)| cells(record, flow).into());
    let mut text = columns(&TITLES, rows);
    let all: usize = kept.iter().flat_map(|it| it.flows.iter().flatten()).map(Vec::len).sum();
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(text, "\n{} of {all} flows in the cache", shown.len());
    for Kept { record, flows, traffic } in kept {
        let device = &record.device.name;
        let _ = match (flows, traffic) {
            (None, _) => writeln!(text, "{device}: keeps no flows"),
            (Some(Err(reason)), _) => writeln!(text, "{device}: {reason}"),
            (Some(Ok(_)), Some(traffic)) => writeln!(text, "{device}: {}", left(traffic)),
            (Some(Ok(_)), None) => Ok(()),
        };
    }
    text
}

/// What became of the flows that are not in the cache any more.
fn left(traffic: &Traffic) -> String {
    let [evicted, exported, lost] = departures(traffic);
    format!("{evicted} flows had to leave the cache, {exported} of them exported, {lost} lost")
}

/// Flows that left the cache, those of them that were exported, and those that should have been.
fn departures(traffic: &Traffic) -> [u64; 3] {
    let Traffic { ingress, egress } = traffic;
    [
        ingress.flows_evicted + egress.flows_evicted,
        ingress.flows_exported + egress.flows_exported,
        ingress.flows_lost + egress.flows_lost,
    ]
}

fn cells(record: &Record, flow: &Flow) -> [String; 11] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let (from, to) = ports(flow.ends);
    [
        record.pod.to_string(),
        record.called().to_owned(),
        flow.direction.to_owned(),
        protocol(flow),
        end(flow.source, from),
        end(flow.destination, to),
        or_dash(&flow.tcp_flags),
        flow.verdict.to_owned(),
        short(flow.seen.packets),
        short(flow.seen.bytes),
        ago(flow.last_seen),
    ]
}

fn ports(ends: Ends) -> (Option<u16>, Option<u16>) {
    match ends {
        Ends::Ports { source_port, destination_port } => {
            (Some(source_port), Some(destination_port))
        }
        Ends::Icmp { .. } | Ends::None {} => (None, None),
    }
}

/// Of ICMP with the type, which makes flows of their own.
fn protocol(flow: &Flow) -> String {
    match flow.ends {
        Ends::Icmp { icmp_type, .. } => format!("{}/{icmp_type}", flow.protocol),
        Ends::Ports { .. } | Ends::None {} => flow.protocol.to_owned(),
    }
}

fn end(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// For sorting: what tells flows between the same addresses apart.
fn where_to(flow: &Flow) -> (&'static str, Option<u16>, Option<u16>, u16) {
    let (from, to) = ports(flow.ends);
    let identifier = match flow.ends {
        Ends::Icmp { icmp_identifier, .. } => icmp_identifier,
        Ends::Ports { .. } | Ends::None {} => 0,
    };
    (flow.protocol, from, to, identifier)
}

/// In the largest unit that is not zero: `0.3s`, `59s`, `2m`, `5h`, `3d`.
fn ago(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("0.{}s", duration.subsec_millis() / 100),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn json(kept: &[Kept], shown: &[(&Record, &Flow)]) -> Value {
    let attachment = |it: &Kept| {
        let mut value = who(&it.record);
        if let Some(traffic) = &it.traffic {
            let [evicted, exported, lost] = departures(traffic);
            value["left"] = json!({ "evicted": evicted, "exported": exported, "lost": lost });
        }
        let kept = it.flows.as_ref().and_then(|flows| flows.as_ref().ok());
        value["inCache"] = json!(kept.map(Vec::len));
        if let Some(Err(reason)) = &it.flows {
            value["error"] = json!(reason);
        }
        value
    };
    json!({
        "flows": shown.iter().map(|(record, flow)| flow_json(record, flow)).collect::<Vec<_>>(),
        "attachments": kept.iter().map(attachment).collect::<Vec<_>>(),
    })
}

fn who(record: &Record) -> Value {
    json!({
        "namespace": record.claim.namespace,
        "pod": record.pod.name,
        "claim": record.claim.name,
        "device": record.device.name,
        "interface": record.called(),
    })
}

fn flow_json(record: &Record, flow: &Flow) -> Value {
    let mut value = who(record);
    if let (Some(all), Ok(Value::Object(flow))) =
        (value.as_object_mut(), serde_json::to_value(flow))
    {
        let ends = flow.get("ends").and_then(Value::as_object).cloned().unwrap_or_default();
        all.extend(flow.into_iter().filter(|(key, _)| key != "ends"));
        all.extend(ends);
    }
    value
}

/// Prints what leaves the caches, for ever.
fn follow(args: &FlowsArgs) -> Result<(), CliError> {
    let mut followers = BTreeMap::<AttachmentId, Follower>::new();
    if args.output == Output::Table {
        print(&line(&TITLES.map(|title| title.trim_end().to_owned())))?;
    }
    loop {
        let records = state::read_records(&args.places.state_dir)?;
        let is_meant = |record: &&Record| {
            has_flows(record) && args.what.as_ref().is_none_or(|what| is_meant(record, what))
        };
        let records: Vec<_> = records.iter().filter(is_meant).collect();
        followers.retain(|id, _| records.iter().any(|record| record.id() == *id));
        for record in records {
            let id = record.id();
            if !followers.contains_key(&id) {
                match Follower::open(&args.places.bpffs, &id) {
                    Ok(follower) => drop(followers.insert(id.clone(), follower)),
                    // Just made, or just removed.
                    Err(CounterError::Absent { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            let Some(follower) = followers.get_mut(&id) else { continue };
            let is_over = follower.is_over();
            print(&lines(record, &follower.take()?, args))?;
            if is_over {
                followers.remove(&id);
            }
        }
        thread::sleep(LOOK);
    }
}

fn lines(record: &Record, flows: &[Flow], args: &FlowsArgs) -> String {
    let is_wanted = |flow: &&Flow| args.direction.is_none_or(|way| way.name() == flow.direction);
    let said = |flow: &Flow| match args.output {
        Output::Table => line(&cells(record, flow)),
        Output::Json => format!("{}\n", flow_json(record, flow)),
    };
    flows.iter().filter(is_wanted).map(said).collect()
}

/// A row whose columns hold where what comes later is no longer than usual.
fn line(cells: &[String; 11]) -> String {
    const WIDTHS: [usize; 11] = [20, 9, 9, 8, 21, 21, 5, 14, 7, 7, 9];
    let padded = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:<width$}"));
    let row = padded.collect::<Vec<_>>().join("  ");
    format!("{}\n", row.trim_end())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::model::PacketCount;
    use crate::telemetry::samples::{record, traffic};

    #[derive(clap::Parser)]
    struct Flows {
        #[command(flatten)]
        args: FlowsArgs,
    }

    fn args(words: &str) -> FlowsArgs {
        Flows::parse_from(["flows"].into_iter().chain(words.split_whitespace())).args
    }

    fn flow(source: &str, ends: Ends, packets: u64, last_seen: u64) -> Flow {
        Flow {
            direction: "ingress",
            protocol: "tcp",
            source: source.parse().unwrap(),
            destination: "10.0.0.9".parse().unwrap(),
            ends,
            tcp_flags: "S.".to_owned(),
            verdict: "allowed",
            seen: PacketCount { packets, bytes: 3000 - packets },
            first_seen: Duration::from_secs(100),
            last_seen: Duration::from_secs(last_seen),
        }
    }

    fn kept() -> Vec<Kept> {
        let tcp = Ends::Ports { source_port: 40_000, destination_port: 443 };
        let ping = Ends::Icmp { icmp_identifier: 7, icmp_type: 8 };
        let mut echo = flow("10.0.0.3", ping, 1500, 90);
        (echo.protocol, echo.tcp_flags, echo.direction) = ("icmp", String::new(), "egress");
        let flows = vec![echo, flow("10.0.0.2", tcp, 10, 0)];
        let unread = Some(Err("no such map".to_owned()));
        vec![
            Kept { record: record("eth1"), flows: Some(Ok(flows)), traffic: Some(traffic(1, 0)) },
            Kept { record: record("eth2"), flows: unread, traffic: None },
            Kept { record: record("eth3"), flows: None, traffic: None },
        ]
    }

    #[test]
    fn the_table_tells_what_it_shows_and_what_is_gone() {
        let kept = kept();
        assert_eq!(
            table(&kept, &shown(&kept, &args(""))),
            "\
POD          INTERFACE  DIRECTION  PROTOCOL  SOURCE          DESTINATION   FLAGS  VERDICT  PACKETS  BYTES  LAST-SEEN
default/web  net1       ingress    tcp       10.0.0.2:40000  10.0.0.9:443  S.     allowed       10   2.9k       0.0s
default/web  net1       egress     icmp/8    10.0.0.3        10.0.0.9      -      allowed     1.5k   1.5k         1m

2 of 2 flows in the cache
eth1: 60 flows had to leave the cache, 40 of them exported, 20 lost
eth2: no such map
eth3: keeps no flows
"
        );
    }

    #[test]
    fn flows_come_in_the_order_that_was_asked_for() {
        let kept = kept();
        let sources = |words| {
            let shown = shown(&kept, &args(words));
            shown.iter().map(|(_, flow)| flow.source.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(sources("--sort bytes"), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(sources("--sort packets"), ["10.0.0.3", "10.0.0.2"]);
        assert_eq!(sources("--sort last"), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(sources("--sort last --top 1"), ["10.0.0.2"]);
        assert_eq!(sources("--direction egress"), ["10.0.0.3"]);
    }

    #[test]
    fn json_has_numbers_where_people_get_short_ones() {
        let kept = kept();
        let value = json(&kept, &shown(&kept, &args("")));
        let [tcp, icmp] = &value["flows"].as_array().unwrap()[..] else { panic!("{value}") };
        assert_eq!((&tcp["device"], &tcp["sourcePort"]), (&json!("eth1"), &json!(40_000)));
        assert_eq!((&tcp["bytes"], &tcp["lastSeenSecondsAgo"]), (&json!(2990), &json!(0.0)));
        assert_eq!((&icmp["icmpType"], icmp.get("ends")), (&json!(8), None));
        let [eth1, eth2, eth3] = &value["attachments"].as_array().unwrap()[..] else { panic!() };
        assert_eq!((&eth1["inCache"], &eth1["left"]["lost"]), (&json!(2), &json!(20)));
        assert_eq!(eth2["error"], "no such map");
        assert_eq!((&eth3["inCache"], eth3.get("error")), (&Value::Null, None));
    }

    #[test]
    fn a_followed_flow_is_one_line() {
        let (record, flow) = (record("eth1"), flow("2001:db8::1", Ends::None {}, 1, 7200));
        let rows = lines(&record, &[flow.clone(), flow.clone()], &args("--follow"));
        assert_eq!(rows.lines().count(), 2);
        assert!(rows.contains("  2001:db8::1 ") && rows.ends_with("2h\n"), "{rows}");
        let json = lines(&record, &[flow], &args("--follow --output json"));
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["pod"], "web");
    }
}
