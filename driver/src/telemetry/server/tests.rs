//! Through a real socket, as a scraper and as kubelet's probes see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::attach::Desk;
use crate::datapath::{CounterError, MapCounters};
use crate::model::{
    Ahead, AttachmentId, BuildId, DatapathSpec, Filter, Phase, Record, RuleTraffic, Telemetry,
    Traffic,
};
use crate::telemetry::samples::{record, rules, traffic};
use crate::telemetry::{Condition, Sighting};

/// Counters out of a table. What is not in it fails as a missing pin does.
struct Table(BTreeMap<AttachmentId, Traffic>);

impl CounterSource for Table {
    fn read(&self, id: &AttachmentId) -> Result<Traffic, CounterError> {
        match self.0.get(id) {
            Some(traffic) => Ok(traffic.clone()),
            None => MapCounters::new("/nonexistent".as_ref()).read(id),
        }
    }

    fn rules(&self, spec: &DatapathSpec) -> Result<Vec<RuleTraffic>, CounterError> {
        Ok(if spec.filter.is_some() { rules() } else { Vec::new() })
    }

    fn memory(&self, _: &AttachmentId) -> Result<u64, CounterError> {
        Ok(70_000)
    }
}

struct Serving {
    address: SocketAddr,
    desk: Desk,
    sightings: watch::Sender<Sightings>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl Serving {
    async fn start(records: Vec<Record>, counted: Vec<(AttachmentId, Traffic)>) -> Self {
        let (worker, desk) = Worker::pair();
        desk.records.send_replace(Arc::new(records));
        let (sightings, seen) = watch::channel(Sightings::default());
        let (metrics, readiness) = (Metrics::new(), Readiness::default());
        let listen = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listen.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let source = Arc::new(Table(counted.into_iter().collect()));
        let task = tokio::spawn(serve(
            listen,
            metrics.clone(),
            readiness.clone(),
            source,
            seen,
            worker,
            shutdown.clone(),
        ));
        Self { address, desk, sightings, metrics, readiness, shutdown, task }
    }

    /// The head and the body of the answer.
    async fn ask(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn scrape(&self) -> String {
        let (head, body) = self.ask("/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains(&format!("content-type: {OPEN_METRICS}\r\n")), "{head}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        body
    }
}

fn assert_has(body: &str, lines: &[&str]) {
    for line in lines {
        assert!(body.lines().any(|it| it == *line), "{line} is not in\n{body}");
    }
}

#[tokio::test]
async fn a_scrape_shows_what_each_pod_had() {
    let record = record("eth1");
    let counted = vec![(record.id(), traffic(5, 2))];
    let serving = Serving::start(vec![record], counted).await;

    let body = serving.scrape().await;

    let who = r#"namespace="default",pod="web",claim="nic",device="eth1",interface="net1""#;
    let lines = [
        "# TYPE weir_packets counter".to_owned(),
        "# UNIT weir_packets packets".to_owned(),
        format!(r#"weir_packets_total{{{who},direction="ingress",verdict="allowed"}} 5"#),
        format!(r#"weir_packets_total{{{who},direction="ingress",verdict="denied_rule"}} 2"#),
        format!(r#"weir_packets_total{{{who},direction="egress",verdict="denied_rule"}} 0"#),
        "# TYPE weir_bytes counter".to_owned(),
        "# UNIT weir_bytes bytes".to_owned(),
        format!(r#"weir_bytes_total{{{who},direction="ingress",verdict="allowed"}} 500"#),
        format!(r#"weir_protocol_packets_total{{{who},direction="ingress",protocol="udp"}} 2"#),
        format!(r#"weir_protocol_bytes_total{{{who},direction="egress",protocol="tcp"}} 500"#),
        r#"weir_attachments{phase="attached"} 1"#.to_owned(),
        r#"weir_attachments{phase="prepared"} 0"#.to_owned(),
        format!(
            r#"weir_attachment_info{{{who},hook="xdp",egress="tcx",reason="wished",degraded="false",telemetry="counters",phase="attached"}} 1"#
        ),
        "weir_counter_read_errors_total 0".to_owned(),
    ];
    assert_has(&body, &lines.each_ref().map(String::as_str));
}

#[tokio::test]
async fn an_attachment_that_cannot_be_read_is_counted_and_hides_no_other() {
    let (readable, broken) = (record("eth1"), record("eth2"));
    let counted = vec![(readable.id(), traffic(1, 0))];
    let serving = Serving::start(vec![readable, broken], counted).await;

    let body = serving.scrape().await;

    assert_has(
        &body,
        &["weir_counter_read_errors_total 1", r#"weir_attachments{phase="attached"} 2"#],
    );
    let counted = |device: &str| {
        let label = format!("device=\"{device}\"");
        body.lines()
            .filter(|it| it.starts_with("weir_packets_total") && it.contains(&label))
            .count()
    };
    assert_eq!((counted("eth1"), counted("eth2")), (10, 0));
}

#[tokio::test]
async fn what_does_not_count_is_not_read() {
    let (mut off, mut bare, mut early) = (record("eth1"), record("eth2"), record("eth3"));
    off.datapath.as_mut().unwrap().telemetry = Telemetry::Off;
    bare.datapath = None;
    early.phase = Phase::Preparing;
    let serving = Serving::start(vec![off, bare, early], Vec::new()).await;

    let body = serving.scrape().await;

    assert_has(
        &body,
        &["weir_counter_read_errors_total 0", r#"weir_attachments{phase="preparing"} 1"#],
    );
    assert!(body.contains(r#"device="eth2",interface="net1",hook="none""#), "{body}");
}

#[tokio::test]
async fn a_label_value_cannot_end_its_quotes() {
    let mut record = record("eth1");
    record.wishes.interface.name = Some("a\"b\\c".parse().unwrap());
    let serving = Serving::start(vec![record], Vec::new()).await;
    assert!(serving.scrape().await.contains(r#"interface="a\"b\\c""#));
}

/// The lines of each name, for one attachment.
fn series(body: &str) -> BTreeMap<&str, usize> {
    let mut names = BTreeMap::new();
    for line in body.lines().filter(|line| line.contains("device=\"eth1\"")) {
        *names.entry(line.split('{').next().unwrap()).or_default() += 1;
    }
    names
}

#[tokio::test]
async fn an_attachment_has_a_fixed_number_of_series_and_two_for_each_rule() {
    let mut record = record("eth1");
    record.datapath.as_mut().unwrap().filter = Some(Filter::default());
    record.residue = ["a route", "an address"].map(ToOwned::to_owned).to_vec();
    let id = record.id();
    let serving = Serving::start(vec![record], vec![(id.clone(), traffic(5, 2))]).await;
    let ahead = Ahead { egress: Some(vec!["spy".to_owned()]), ..Ahead::NOTHING };
    let sighting = Sighting { ahead, since: std::time::SystemTime::UNIX_EPOCH };
    serving.sightings.send_replace(Arc::new(BTreeMap::from([(id, sighting)])));

    let body = serving.scrape().await;

    // In both directions: 5 verdicts, 2 of the 8 protocols, 3 of the 12 sizes, 2 of the 4 events.
    let expected = [
        ("weir_attachment_info", 1),
        ("weir_bytes_total", 10),
        ("weir_datapath_memory_bytes", 1),
        ("weir_flows_evicted_total", 2),
        ("weir_flows_exported_total", 2),
        ("weir_flows_lost_total", 2),
        ("weir_fragments_total", 2),
        ("weir_packet_size_bytes_bucket", 6),
        ("weir_packet_size_bytes_count", 2),
        ("weir_packet_size_bytes_sum", 2),
        ("weir_packets_total", 10),
        ("weir_policy_generation", 2),
        ("weir_policy_generation_applied", 1),
        ("weir_programs_ahead", 2),
        ("weir_protocol_bytes_total", 4),
        ("weir_protocol_packets_total", 4),
        ("weir_replies_total", 2),
        ("weir_residue", 1),
        ("weir_rule_bytes_total", 2),
        ("weir_rule_packets_total", 2),
        ("weir_tagged_packets_total", 2),
        ("weir_tcp_events_total", 4),
    ];
    assert_eq!(series(&body), BTreeMap::from(expected), "{body}");
    let who = r#"namespace="default",pod="web",claim="nic",device="eth1",interface="net1""#;
    let lines = [
        format!(r#"weir_packet_size_bytes_bucket{{le="64.0",{who},direction="ingress"}} 0"#),
        format!(r#"weir_packet_size_bytes_bucket{{le="128.0",{who},direction="ingress"}} 7"#),
        format!(r#"weir_packet_size_bytes_bucket{{le="+Inf",{who},direction="ingress"}} 7"#),
        format!(r#"weir_packet_size_bytes_count{{{who},direction="ingress"}} 7"#),
        format!(r#"weir_packet_size_bytes_sum{{{who},direction="ingress"}} 700.0"#),
        format!(r#"weir_tcp_events_total{{{who},direction="egress",event="syn"}} 1"#),
        format!(
            r#"weir_rule_packets_total{{{who},direction="ingress",origin="operator",rule="web"}} 2"#
        ),
        format!(
            r#"weir_rule_bytes_total{{{who},direction="ingress",origin="claim",rule="web"}} 500"#
        ),
        format!(r#"weir_programs_ahead{{{who},direction="egress"}} 1"#),
        format!(r#"weir_programs_ahead{{{who},direction="ingress"}} 0"#),
        format!("weir_policy_generation_applied{{{who}}} 1"),
        format!("weir_datapath_memory_bytes{{{who}}} 70000"),
        format!("weir_residue{{{who}}} 2"),
        "# UNIT weir_datapath_memory_bytes bytes".to_owned(),
    ];
    assert_has(&body, &lines.each_ref().map(String::as_str));
}

#[tokio::test]
async fn which_filter_is_in_force_is_not_said_while_nobody_knows() {
    let mut record = record("eth1");
    record.build = BuildId::default();
    let id = record.id();
    let serving = Serving::start(vec![record], vec![(id, traffic(1, 1))]).await;
    let body = serving.scrape().await;
    let series = series(&body);
    assert_eq!(series.get("weir_policy_generation_applied"), None);
    assert_eq!(series["weir_policy_generation"], 2);
}

#[tokio::test]
async fn programs_ahead_are_not_counted_where_nobody_can_tell() {
    let record = record("eth1");
    let id = record.id();
    let serving = Serving::start(vec![record], Vec::new()).await;
    for (ingress, egress, lines) in
        [(None, None, 0), (Some(Vec::new()), None, 1), (Some(Vec::new()), Some(Vec::new()), 2)]
    {
        let sighting =
            Sighting { ahead: Ahead { ingress, egress }, since: std::time::SystemTime::UNIX_EPOCH };
        serving.sightings.send_replace(Arc::new(BTreeMap::from([(id.clone(), sighting)])));
        let body = serving.scrape().await;
        assert_eq!(body.matches("weir_programs_ahead{").count(), lines, "{body}");
    }
}

/// Prometheus drops a scrape in which a family comes twice or in pieces.
#[tokio::test]
async fn every_family_comes_once_and_in_one_piece() {
    let records = vec![record("eth1"), record("eth2")];
    let counted = records.iter().map(|record| (record.id(), traffic(1, 1))).collect();
    let serving = Serving::start(records, counted).await;
    serving.metrics.dra_request(
        "NodePrepareResources",
        crate::telemetry::Outcome::Success,
        FAREWELL,
    );

    let body = serving.scrape().await;

    let mut families = Vec::new();
    for line in body.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (family, help) = rest.split_once(' ').unwrap();
            assert!(!families.contains(&family), "{family} twice in\n{body}");
            assert!(help.ends_with('.'), "{line}");
            families.push(family);
        }
        let family = families.last().unwrap();
        let named = line.trim_start_matches(['#', ' ']).trim_start_matches("HELP ");
        let named = named.trim_start_matches("TYPE ").trim_start_matches("UNIT ");
        assert!(named.starts_with(family), "{line} among {family}");
    }
    let is_known =
        |family: &&&str| ["weir_", "process_"].iter().any(|prefix| family.starts_with(prefix));
    assert_eq!(families.iter().filter(is_known).count(), families.len(), "{families:?}");
}

#[tokio::test]
async fn alive_is_as_long_as_the_worker_is() {
    let mut serving = Serving::start(Vec::new(), Vec::new()).await;
    assert!(serving.ask("/healthz").await.0.starts_with("HTTP/1.1 200 "));

    serving.desk = Worker::pair().1;

    let (head, body) = serving.ask("/healthz").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "the worker has ended\n");
}

#[tokio::test]
async fn ready_is_when_nothing_is_missing() {
    let serving = Serving::start(Vec::new(), Vec::new()).await;
    let (head, body) = serving.ask("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body.lines().count(), 3, "{body}");

    serving.readiness.set(Condition::DraRegistered, true);
    serving.readiness.set(Condition::NriConnected, true);
    let (_, body) = serving.ask("/readyz").await;
    assert_eq!(body, "no ResourceSlices have been published\n");

    serving.readiness.set(Condition::SlicesPublished, true);
    assert!(serving.ask("/readyz").await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn it_ends_when_told_even_if_a_client_lingers() {
    let serving = Serving::start(Vec::new(), Vec::new()).await;
    let lingering = TcpStream::connect(serving.address).await.unwrap();

    serving.shutdown.cancel();

    let ended = tokio::time::timeout(FAREWELL * 5, serving.task).await;
    ended.expect("the server ends").unwrap().unwrap();
    drop(lingering);
}
