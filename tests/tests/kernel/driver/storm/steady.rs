//! The pod that is there all the time: datagrams both ways, every one counted.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use driver::datapath::{CounterSource as _, MapCounters};
use driver::model::{AttachmentId, Traffic};
use driver::sys::netns::Netns;
use tests::node::{self, BPFFS, Node, Samples};
use tests::sandbox::traffic::{Echo, Route, Stream};

use super::super::world::{Deployed, answer_in, config, deploy, route, talk};

/// Where the wire answers the pod.
const FAR_PORT: u16 = 7001;
const PACE: Duration = Duration::from_millis(2);
/// Each so many looks at the pins, the driver is asked, too.
const SCRAPE: usize = 5;

pub(super) struct Steady {
    web: Deployed,
    /// To the pod and back, and from the pod and back.
    streams: [Stream; 2],
    echoes: [Echo; 2],
    counts: Counts,
    _netns: Netns,
}

impl Steady {
    pub(super) fn start(node: &Node) -> Self {
        let web = deploy(node, "steady", &[(0, config(0, "xdp"))]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let wire = node.network.wire();
        let echoes = [answer_in(&netns), Echo::start(wire, FAR_PORT).unwrap()];
        talk(node, 0);
        let there = Route { pace: PACE, ..route(0) };
        let back = Route {
            from: SocketAddr::from(([198, 18, 0, 10], 0)),
            to: SocketAddr::from(([198, 18, 0, 1], FAR_PORT)),
            pace: PACE,
        };
        let streams = [Stream::start(wire, there).unwrap(), Stream::start(&netns, back).unwrap()];
        let counts = Counts::watch(web.id(0));
        Self { web, streams, echoes, counts, _netns: netns }
    }

    /// Answers how many datagrams were sent. All have come back, and what was counted never was less
    /// than before.
    pub(super) fn stop(self, node: &Node) -> u64 {
        let tallies = self.streams.map(Stream::stop);
        for tally in &tallies {
            assert_eq!((tally.lost(), tally.refused), (0, 0), "{tallies:?}");
        }
        let looks = self.counts.stop();
        assert!(looks > 100, "{looks}");
        let echoed = self.echoes.map(Echo::stop);
        assert!(echoed[0] >= tallies[0].sent && echoed[1] == tallies[1].sent, "{echoed:?}");
        let sent = tallies.iter().map(|tally| tally.sent).sum();
        let counted = self.web.agrees_with_the_wire(node, 0);
        assert!(counted.received >= sent && counted.sent >= sent, "{counted:?}");
        assert_eq!(self.web.phases(), ["attached"]);
        sent
    }
}

/// Whoever looks again and again whether a counter has gone back.
struct Counts {
    over: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Counts {
    fn watch(id: AttachmentId) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let (source, device) = (MapCounters::new(Path::new(BPFFS)), id.device.to_string());
            let (mut pinned, mut shown) = (Vec::new(), Vec::new());
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) {
                not_less(&mut pinned, numbers(&source.read(&id).unwrap()));
                // A driver that is there shows what was counted before it was, or nothing yet.
                if looks % SCRAPE == 0
                    && let Ok(page) = node::scrape()
                    && let Some(now) = received(&page, &device)
                {
                    not_less(&mut shown, vec![now]);
                }
                looks += 1;
                thread::sleep(Duration::from_millis(50));
            }
            assert!(!shown.is_empty(), "no driver ever showed what was counted");
            looks
        });
        Self { over, thread }
    }

    /// How often it looked.
    fn stop(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn numbers(traffic: &Traffic) -> Vec<u64> {
    let (into, out) = (&traffic.ingress.total, &traffic.egress.total);
    vec![into.packets, into.bytes, out.packets, out.bytes]
}

fn received(page: &Samples, device: &str) -> Option<u64> {
    page.sum("weir_packets_total", &[("device", device), ("direction", "ingress")])
}

fn not_less(last: &mut Vec<u64>, now: Vec<u64>) {
    assert!(last.iter().zip(&now).all(|(last, now)| last <= now), "{last:?} and then {now:?}");
    *last = now;
}
