//! `weir top`: what was counted so far, or how much it is each second.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::output::{columns, denied, pretty, print, short, traffic_json};
use super::{CliError, Output, Places, TopArgs};
use crate::datapath::{CounterSource, MapCounters};
use crate::model::{DirectionTraffic, Phase, Record, Telemetry, Traffic};
use crate::{state, telemetry};

/// Clears a terminal and goes to its upper left corner (ECMA-48: ED 2, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// All attachments at one moment.
struct Reading {
    at: Instant,
    lines: Vec<Line>,
}

struct Line {
    record: Record,
    counted: Counted,
}

/// What is known of an attachment's traffic.
pub(super) enum Counted {
    Traffic(Box<Traffic>),
    /// Nothing counts there, or not yet.
    Nothing,
    /// Why the counters could not be read.
    Unread(String),
}

pub(super) fn run(args: &TopArgs) -> Result<(), CliError> {
    let source = MapCounters::new(&args.places.bpffs);
    let mut before = take(&args.places, &source)?;
    if args.once {
        print(&match args.output {
            Output::Table => totals(&before),
            Output::Json => pretty(&json(&before, None))?,
        })?;
        return match before.lines.iter().filter(|line| line.counted.is_unread()).count() {
            0 => Ok(()),
            unread => Err(CliError::Unread(unread)),
        };
    }
    let is_screen = io::stdout().is_terminal();
    for nth in 0_u64.. {
        thread::sleep(args.interval);
        let now = take(&args.places, &source)?;
        print(&match args.output {
            Output::Json => format!("{}\n", json(&now, Some(&before))),
            Output::Table if is_screen => format!("{CLEAR}{}", rates(&now, &before)),
            Output::Table if nth == 0 => rates(&now, &before),
            Output::Table => without_titles(&rates(&now, &before)),
        })?;
        before = now;
    }
    Ok(())
}

fn take(places: &Places, source: &dyn CounterSource) -> Result<Reading, CliError> {
    let records = state::read_records(&places.state_dir)?;
    let line = |record: Record| Line { counted: Counted::read(&record, source), record };
    Ok(Reading { at: Instant::now(), lines: records.into_iter().map(line).collect() })
}

impl Counted {
    pub(super) fn read(record: &Record, source: &dyn CounterSource) -> Self {
        let is_made = !matches!(record.phase, Phase::Preparing | Phase::Unpreparing);
        let counts = |telemetry| telemetry != Telemetry::Off;
        if !is_made || !record.datapath.as_ref().is_some_and(|spec| counts(spec.telemetry)) {
            return Self::Nothing;
        }
        match source.read(&record.id()) {
            Ok(traffic) => Self::Traffic(Box::new(traffic)),
            Err(error) => Self::Unread(telemetry::chain(&error)),
        }
    }

    pub(super) fn traffic(&self) -> Option<&Traffic> {
        match self {
            Self::Traffic(traffic) => Some(traffic),
            Self::Nothing | Self::Unread(_) => None,
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        matches!(self, Self::Unread(_))
    }
}

/// What one attachment had in one direction, in all or in a second.
struct Numbers {
    packets: u64,
    /// Bytes in all, bits in a second: as either is mostly asked for.
    volume: u64,
    denied: u64,
}

impl Numbers {
    fn in_all(traffic: &DirectionTraffic) -> Self {
        let (packets, volume) = (traffic.total.packets, traffic.total.bytes);
        Self { packets, volume, denied: denied(traffic) }
    }

    /// Zero where a count went back: the claim was prepared anew in between.
    fn in_a_second(now: &DirectionTraffic, before: &DirectionTraffic, elapsed: Duration) -> Self {
        let rate = |now: u64, before: u64| {
            let per_second = u128::from(now.saturating_sub(before)) * 1_000_000;
            u64::try_from(per_second / elapsed.as_micros().max(1)).unwrap_or(u64::MAX)
        };
        Self {
            packets: rate(now.total.packets, before.total.packets),
            volume: rate(now.total.bytes, before.total.bytes).saturating_mul(8),
            denied: rate(denied(now), denied(before)),
        }
    }

    fn cells(&self, format: fn(u64) -> String) -> [String; 3] {
        [format(self.packets), format(self.volume), format(self.denied)]
    }
}

impl Line {
    /// The first cells of a row: who it is about.
    fn who(&self) -> Vec<String> {
        let Record { pod, device, datapath, phase, .. } = &self.record;
        vec![
            pod.to_string(),
            self.record.called().to_owned(),
            device.name.to_string(),
            datapath.as_ref().map_or("none", |spec| spec.ingress.name()).to_owned(),
            phase.name().to_owned(),
        ]
    }

    fn row(&self, numbers: Option<[Numbers; 2]>, format: fn(u64) -> String) -> Vec<String> {
        let mut row = self.who();
        match numbers {
            Some(numbers) => row.extend(numbers.iter().flat_map(|it| it.cells(format))),
            None => row.extend(["-"; 6].map(str::to_owned)),
        }
        row
    }

    fn totals(&self) -> Option<[Numbers; 2]> {
        let traffic = self.counted.traffic()?;
        Some([Numbers::in_all(&traffic.ingress), Numbers::in_all(&traffic.egress)])
    }

    /// `None` until the attachment was read twice.
    fn rates(&self, before: &Reading, elapsed: Duration) -> Option<[Numbers; 2]> {
        let id = self.record.id();
        let earlier = before.lines.iter().find(|line| line.record.id() == id)?;
        let (now, before) = (self.counted.traffic()?, earlier.counted.traffic()?);
        Some([
            Numbers::in_a_second(&now.ingress, &before.ingress, elapsed),
            Numbers::in_a_second(&now.egress, &before.egress, elapsed),
        ])
    }
}

fn totals(reading: &Reading) -> String {
    const TITLES: [&str; 11] = [
        "POD",
        "INTERFACE",
        "DEVICE",
        "HOOK",
        "PHASE",
        "RX-PACKETS ",
        "RX-BYTES ",
        "RX-DENIED ",
        "TX-PACKETS ",
        "TX-BYTES ",
        "TX-DENIED ",
    ];
    let rows =
        reading.lines.iter().map(|line| line.row(line.totals(), |number| number.to_string()));
    columns(&TITLES, rows) + &unread(reading)
}

fn rates(now: &Reading, before: &Reading) -> String {
    const TITLES: [&str; 11] = [
        "POD",
        "INTERFACE",
        "DEVICE",
        "HOOK",
        "PHASE",
        "RX-PACKET/S ",
        "RX-BIT/S ",
        "RX-DENIED/S ",
        "TX-PACKET/S ",
        "TX-BIT/S ",
        "TX-DENIED/S ",
    ];
    let elapsed = now.at.duration_since(before.at);
    let rows = now.lines.iter().map(|line| line.row(line.rates(before, elapsed), short));
    columns(&TITLES, rows) + &unread(now)
}

/// Why some rows have no numbers, a line for each.
fn unread(reading: &Reading) -> String {
    let reason = |line: &Line| match &line.counted {
        Counted::Unread(reason) => Some(format!("{}: {reason}\n", line.record.device.name)),
        Counted::Traffic(_) | Counted::Nothing => None,
    };
    reading.lines.iter().filter_map(reason).collect()
}

fn without_titles(table: &str) -> String {
    table.split_once('\n').map(|(_, rows)| rows.to_owned()).unwrap_or_default()
}

fn json(now: &Reading, before: Option<&Reading>) -> Value {
    let attachment = |line: &Line| {
        let Record { claim, pod, device, datapath, phase, .. } = &line.record;
        let mut value = json!({
            "namespace": claim.namespace,
            "pod": pod.name,
            "claim": claim.name,
            "device": device.name,
            "interface": line.record.called(),
            "hook": datapath.as_ref().map_or("none", |spec| spec.ingress.name()),
            "phase": phase.name(),
            "traffic": line.counted.traffic().map(traffic_json),
        });
        if let Counted::Unread(reason) = &line.counted {
            value["error"] = json!(reason);
        }
        let elapsed = |before: &Reading| now.at.duration_since(before.at);
        if let Some([ingress, egress]) =
            before.and_then(|before| line.rates(before, elapsed(before)))
        {
            value["perSecond"] = json!({ "ingress": rate(&ingress), "egress": rate(&egress) });
        }
        value
    };
    json!({ "attachments": now.lines.iter().map(attachment).collect::<Vec<_>>() })
}

fn rate(numbers: &Numbers) -> Value {
    json!({ "packets": numbers.packets, "bits": numbers.volume, "denied": numbers.denied })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::samples::{record, traffic};

    fn reading(at: Instant, counted: [(&str, Counted); 2]) -> Reading {
        let line = |(device, counted)| Line { record: record(device), counted };
        Reading { at, lines: counted.map(line).into() }
    }

    fn counted(allowed: u64, denied: u64) -> Counted {
        Counted::Traffic(Box::new(traffic(allowed, denied)))
    }

    #[test]
    fn once_shows_exact_totals() {
        let unread = Counted::Unread("no such pin".to_owned());
        let reading = reading(Instant::now(), [("eth1", counted(12_345, 7)), ("eth2", unread)]);
        assert_eq!(
            totals(&reading),
            "\
POD          INTERFACE  DEVICE  HOOK  PHASE     RX-PACKETS  RX-BYTES  RX-DENIED  TX-PACKETS  TX-BYTES  TX-DENIED
default/web  net1       eth1    xdp   attached       12352   1235200          7       12345   1234500          0
default/web  net1       eth2    xdp   attached           -         -          -           -         -          -
eth2: no such pin
"
        );
    }

    #[test]
    fn rates_are_by_second_and_never_negative() {
        let start = Instant::now();
        let before = reading(start, [("eth1", counted(100, 0)), ("eth2", counted(900, 9))]);
        let after = start + Duration::from_millis(2500);
        let now = reading(after, [("eth1", counted(5100, 5)), ("eth2", counted(10, 0))]);
        let table = rates(&now, &before);
        let cells = |line: usize| {
            table.lines().nth(line).unwrap().split_whitespace().skip(5).collect::<Vec<_>>()
        };
        // 5005 packets in and 5000 out of 100 bytes each, 5 of them denied, in 2.5 seconds.
        assert_eq!(cells(1), ["2.0k", "1.6M", "2", "2.0k", "1.6M", "0"]);
        assert_eq!(cells(2), ["0"; 6]);
    }

    #[test]
    fn a_device_that_has_just_come_has_no_rate_yet() {
        let start = Instant::now();
        let before = reading(start, [("eth1", counted(1, 0)), ("eth2", Counted::Nothing)]);
        let after = start + Duration::from_secs(1);
        let now = reading(after, [("eth3", counted(1, 0)), ("eth2", counted(1, 0))]);
        for line in rates(&now, &before).lines().skip(1) {
            assert!(line.ends_with('-'), "{line}");
        }
    }

    #[test]
    fn json_names_verdicts_and_says_why_something_is_missing() {
        let start = Instant::now();
        let unread = || Counted::Unread("no such pin".to_owned());
        let before = reading(start, [("eth1", counted(0, 0)), ("eth2", unread())]);
        let after = start + Duration::from_secs(1);
        let now = reading(after, [("eth1", counted(3, 2)), ("eth2", unread())]);

        let value = json(&now, Some(&before));

        let [eth1, eth2] = &value["attachments"].as_array().unwrap()[..] else { panic!("{value}") };
        assert_eq!(eth1["pod"], "web");
        assert_eq!(eth1["traffic"]["ingress"]["packets"], 5);
        assert_eq!(eth1["traffic"]["ingress"]["verdicts"]["denied_rule"]["packets"], 2);
        assert_eq!(
            eth1["perSecond"]["ingress"],
            json!({ "packets": 5, "bits": 4000, "denied": 2 })
        );
        assert_eq!((&eth2["traffic"], &eth2["error"]), (&Value::Null, &json!("no such pin")));
        assert_eq!(json(&now, None)["attachments"][0].get("perSecond"), None);
    }

    #[test]
    fn later_rows_come_without_titles() {
        assert_eq!(without_titles("A  B\n1  2\n3  4\n"), "1  2\n3  4\n");
    }
}
