//! How answers are laid out and written.

use std::io::{self, Write as _};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::CliError;
use crate::model::{DirectionTraffic, PacketCount, Traffic};

/// Writes to standard output, at once.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// JSON for people and programs alike, on several lines.
pub(super) fn pretty(value: &impl Serialize) -> Result<String, CliError> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

/// Columns without borders, as kubectl has them. Columns whose title ends with a space are aligned
/// to the right.
pub(super) fn columns(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(titles.iter().map(|title| title.trim_end()));
    table.add_rows(rows);
    for (column, title) in table.column_iter_mut().zip(titles) {
        column.set_padding((0, 2));
        if title.ends_with(' ') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `value`, or a dash where there is none.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A number in three or four digits and a decimal prefix: `999`, `1.2k`, `15.3M`.
pub(super) fn short(number: u64) -> String {
    let mut tenths = u128::from(number) * 10;
    for prefix in ["", "k", "M", "G", "T", "P"] {
        if tenths < 10_000 {
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if prefix.is_empty() {
                whole.to_string()
            } else {
                format!("{whole}.{tenth}{prefix}")
            };
        }
        tenths /= 1000;
    }
    format!("{}E", tenths / 10)
}

/// Packets that a rule, a rate or a default has denied, by the names of the verdicts.
pub(super) fn denied(traffic: &DirectionTraffic) -> u64 {
    let is_denied = |name: &str| name.starts_with("denied");
    let denied = traffic.verdicts.iter().filter(|(name, _)| is_denied(name));
    denied.map(|(_, count)| count.packets).sum()
}

/// Traffic as JSON, verdicts and protocols by name.
pub(super) fn traffic_json(traffic: &Traffic) -> Value {
    json!({
        "ingress": direction_json(&traffic.ingress),
        "egress": direction_json(&traffic.egress),
    })
}

fn direction_json(traffic: &DirectionTraffic) -> Value {
    let by_name = |counts: &[(&'static str, PacketCount)]| -> Map<String, Value> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect()
    };
    let numbers = |counts: &[(&'static str, u64)]| -> Map<String, Value> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect()
    };
    let size = |(most, packets): &(Option<u32>, u64)| json!({ "most": most, "packets": packets });
    json!({
        "packets": traffic.total.packets,
        "bytes": traffic.total.bytes,
        "denied": denied(traffic),
        "verdicts": by_name(&traffic.verdicts),
        "protocols": by_name(&traffic.protocols),
        "sizes": traffic.sizes.iter().map(size).collect::<Vec<_>>(),
        "tcpEvents": numbers(&traffic.tcp_events),
        "fragments": traffic.fragments,
        "tagged": traffic.tagged,
        "replies": traffic.replies,
        "flows": {
            "evicted": traffic.flows_evicted,
            "exported": traffic.flows_exported,
            "lost": traffic.flows_lost,
        },
        "generation": traffic.generation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::samples::traffic;

    #[test]
    fn columns_have_no_borders_and_no_trailing_blanks() {
        let rows = [["a", "1"], ["longer", "1000"]];
        let text = columns(&["NAME", "COUNT "], rows.map(|row| row.map(str::to_owned).to_vec()));
        assert_eq!(text, "NAME    COUNT\na           1\nlonger   1000\n");
    }

    #[test]
    fn a_short_number_keeps_its_order_of_magnitude() {
        for (number, said) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (1299, "1.2k"),
            (999_999, "999.9k"),
            (15_300_000, "15.3M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(short(number), said);
        }
    }

    #[test]
    fn every_way_to_be_denied_counts() {
        let mut traffic = traffic(1, 2).ingress;
        traffic.verdicts[2].1.packets = 40;
        traffic.verdicts[3].1.packets = 100;
        assert_eq!(denied(&traffic), 142);
    }
}
