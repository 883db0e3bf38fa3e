//! Reads `/metrics` the way Prometheus would: a page of text, samples with labels.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One answer over HTTP.
#[derive(Debug)]
pub(super) struct Page {
    pub status: u16,
    pub body: String,
}

/// Fetches `path`. HTTP 1.0, so that the answer ends with the connection and is in one piece.
pub(super) fn fetch(address: SocketAddr, path: &str) -> io::Result<Page> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    page(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP answer"))
}

fn page(text: &str) -> Option<Page> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Page { status, body: body.to_owned() })
}

/// The samples of one scrape.
#[derive(Debug, Default)]
pub struct Samples(Vec<Sample>);

#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Samples {
    /// Reads the text format. Lines that are no samples do not count.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(sample).collect())
    }

    /// The sum of all samples of `name` that have these labels. `None` if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(k, v)| sample.labels.get(*k).map(String::as_str) == Some(v))
        };
        let values: Vec<f64> = self.0.iter().filter(fits).map(|sample| sample.value).collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters are whole, not negative and far below 2^53"
        )]
        let sum = values.iter().sum::<f64>() as u64;
        (!values.is_empty()).then_some(sum)
    }

    /// The samples of `name`, by the value of `label`.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let named = self.0.iter().filter(|sample| sample.name == name);
        named.filter_map(|it| Some((it.labels.get(label)?.clone(), it.value))).collect()
    }

    /// The value of a label on the first sample of `name` with these labels.
    pub fn label(&self, name: &str, labels: &[(&str, &str)], wanted: &str) -> Option<&str> {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(k, v)| sample.labels.get(*k).map(String::as_str) == Some(v))
        };
        self.0.iter().find(fits)?.labels.get(wanted).map(String::as_str)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name, labels, rest) = if let Some((name, rest)) = line.split_once('{') {
        let (labels, rest) = labels(rest)?;
        (name, labels, rest)
    } else {
        let (name, rest) = line.split_once(' ')?;
        (name, BTreeMap::new(), rest)
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches(',');
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        text = &rest[end + 1..];
    }
}

/// What `/metrics` shows of one device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counted {
    pub received: u64,
    /// Those of the received that a rule or the default has denied.
    pub denied: u64,
    /// Those that the egress program let pass.
    pub sent: u64,
}

impl Counted {
    /// A device without series counts as one without packets.
    pub fn of(samples: &Samples, device: &str) -> Self {
        let sum = |direction: &str, verdict: Option<&str>| {
            let mut labels = vec![("device", device), ("direction", direction)];
            labels.extend(verdict.map(|verdict| ("verdict", verdict)));
            samples.sum("weir_packets_total", &labels).unwrap_or_default()
        };
        let denied = |direction| {
            sum(direction, Some("denied_rule")) + sum(direction, Some("denied_default"))
        };
        Self {
            received: sum("ingress", None),
            denied: denied("ingress"),
            sent: sum("egress", None) - denied("egress"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "HTTP/1.0 200 OK\r\ncontent-type: text\r\n\r\n\
        # TYPE weir_packets counter\n\
        weir_packets_total{device=\"nic0\",direction=\"ingress\",verdict=\"allowed\"} 40\n\
        weir_packets_total{device=\"nic0\",direction=\"ingress\",verdict=\"denied_rule\"} 2\n\
        weir_packets_total{device=\"nic1\",direction=\"ingress\",verdict=\"allowed\"} 100\n\
        weir_attachment_info{device=\"a \\\"b\\\", c\",hook=\"xdp\"} 1\n\
        up 1.0\n\
        # EOF\n";

    #[test]
    fn samples_are_summed_by_the_labels_that_are_asked_for() {
        let page = page(PAGE).unwrap();
        assert_eq!(page.status, 200);
        let samples = Samples::parse(&page.body);
        let nic0 = [("device", "nic0"), ("direction", "ingress")];
        assert_eq!(samples.sum("weir_packets_total", &nic0), Some(42));
        assert_eq!(samples.sum("weir_packets_total", &[("device", "nic2")]), None);
        assert_eq!(samples.sum("up", &[]), Some(1));
        assert_eq!(samples.by_label("up", "device"), BTreeMap::new());
        assert_eq!(samples.by_label("weir_attachment_info", "hook").len(), 1);
        let quoted = [("device", "a \"b\", c")];
        assert_eq!(samples.label("weir_attachment_info", &quoted, "hook"), Some("xdp"));
    }
}
