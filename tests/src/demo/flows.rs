//! The middle of the story: traffic to the pod, what was counted of it, and the driver's death.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::{Context, Result};
use driver::model::InterfaceState;

use super::manifests::Configured;
use super::scene;
use super::story::{Story, milliseconds};
use crate::node::{self, Counted, Node};
use crate::sandbox::traffic::{self, Expect, Route, Stream, Tally};
use crate::sandbox::{Nic, WireCount};

/// One NIC of the pod, as it was before and shall be again.
pub(super) struct PodNic {
    pub request: &'static str,
    pub device: String,
    pub nic: Nic,
    pub configured: Configured,
    pub before: InterfaceState,
    pub wire_before: WireCount,
    /// Datagrams sent to it that must not pass.
    pub must_not_pass: u64,
}

impl PodNic {
    /// The far end's own address: the first of the pod's network.
    pub(super) fn peer(&self) -> IpAddr {
        let first = self.configured.address.hosts().next();
        first.unwrap_or_else(|| self.configured.address.network())
    }

    fn route(&self, from: IpAddr, port: u16) -> Route {
        let to = SocketAddr::new(self.configured.address.addr(), port);
        Route { from: SocketAddr::new(from, 0), to, pace: scene::PACE }
    }
}

impl Story<'_> {
    pub(super) fn send_traffic(&mut self, node: &Node, nics: &mut [PodNic]) -> Result<()> {
        let wire = node.network.wire();
        for nic in nics {
            let mut flows = vec![(nic.peer(), scene::ALLOWED_PORT, Expect::Answers)];
            if nic.request == scene::PLAIN {
                flows.push((scene::DISTANT_PEER, scene::ALLOWED_PORT, Expect::Answers));
            }
            if nic.configured.has_filter {
                let blocked = scene::BLOCKED_PEER.into();
                flows.push((blocked, scene::ALLOWED_PORT, Expect::Silence));
                if nic.configured.denies_by_default {
                    flows.push((nic.peer(), scene::OTHER_PORT, Expect::Silence));
                }
            }
            for (from, port, expect) in flows {
                let tally = traffic::burst(wire, nic.route(from, port), scene::BURST, expect)
                    .with_context(|| format!("send from {from} to {}", nic.configured.interface))?;
                self.judge_flow(nic, from, port, expect, tally)?;
                if expect == Expect::Silence {
                    nic.must_not_pass += tally.sent;
                }
            }
        }
        Ok(())
    }

    fn judge_flow(
        &mut self,
        nic: &PodNic,
        from: IpAddr,
        port: u16,
        expect: Expect,
        tally: Tally,
    ) -> Result<()> {
        let interface = &nic.configured.interface;
        let what = format!("{from} to {interface}, UDP port {port}");
        let (wanted, word) = match expect {
            Expect::Answers => (tally.sent, "allowed"),
            Expect::Silence => (0, "denied"),
        };
        self.report.equal(format_args!("answers, {what}"), tally.answered, wanted);
        self.report.equal(format_args!("sent, {what}"), tally.sent, scene::BURST);
        self.say(
            "Traffic",
            format!("{what}: {} sent, {} answered ({word})", tally.sent, tally.answered),
        )
    }

    /// Compares `/metrics` with what the wire has counted; answers the packets received over all.
    pub(super) fn compare_counters(
        &mut self,
        node: &Node,
        nics: &[PodNic],
        head: &str,
    ) -> Result<u64> {
        let samples = node::scrape()?;
        let report = &mut self.report;
        (report.rx_packets, report.rx_denied, report.tx_packets) = (0, 0, 0);
        report.expected_rx_packets = 0;
        report.expected_rx_denied = 0;
        report.expected_tx_packets = 0;
        for nic in nics {
            let wire = node.network.count(&nic.nic)?;
            let counted = Counted::of(&samples, &nic.device);
            let to_nic = wire.to_nic - nic.wire_before.to_nic;
            let from_nic = wire.from_nic - nic.wire_before.from_nic;
            let interface = &nic.configured.interface;
            self.report.equal(format_args!("{interface} received"), counted.received, to_nic);
            self.report.equal(
                format_args!("{interface} denied"),
                counted.denied,
                nic.must_not_pass,
            );
            self.report.equal(format_args!("{interface} sent"), counted.sent, from_nic);
            self.report.rx_packets += counted.received;
            self.report.rx_denied += counted.denied;
            self.report.tx_packets += counted.sent;
            self.report.expected_rx_packets += to_nic;
            self.report.expected_rx_denied += nic.must_not_pass;
            self.report.expected_tx_packets += from_nic;
            let hook = samples.label("weir_attachment_info", &[("device", &nic.device)], "hook");
            if let Some(hook) = hook {
                self.report.hooks.insert(nic.request.to_owned(), hook.to_owned());
            }
            let Counted { received, denied, sent } = counted;
            self.say(
                head,
                format!(
                    "{interface}: /metrics has {received} in, {denied} of them denied, {sent} out; \
                     the wire has {to_nic}, {}, {from_nic}",
                    nic.must_not_pass,
                ),
            )?;
        }
        Ok(self.report.rx_packets)
    }

    pub(super) fn restart_under_traffic(
        &mut self,
        node: &mut Node,
        nics: &[PodNic],
        counted: u64,
    ) -> Result<()> {
        let mut streams = Vec::new();
        for nic in nics {
            let route = nic.route(nic.peer(), scene::ALLOWED_PORT);
            streams.push(Stream::start(node.network.wire(), route).context("start a stream")?);
        }
        thread::sleep(scene::WHILE);
        node.driver.kill()?;
        let before: u64 = streams.iter().map(Stream::sent).sum();
        thread::sleep(scene::WHILE);
        let without: u64 = streams.iter().map(Stream::sent).sum::<u64>() - before;
        let ready = node.start_driver()?;
        thread::sleep(scene::WHILE);
        let tallies: Vec<Tally> = streams.into_iter().map(Stream::stop).collect();
        self.report.sent_during_restart = tallies.iter().map(|tally| tally.sent).sum();
        self.report.lost_during_restart = tallies.iter().map(|tally| tally.lost()).sum();
        self.report.equal("lost during the restart", self.report.lost_during_restart, 0);
        self.report.check(without > 0, "no traffic flowed while the driver was dead");
        let rate = nics.len() as u128 * 1000 / scene::PACE.as_millis();
        self.say(
            "Restart",
            format!(
                "driver killed with -9 at {rate} datagrams/s, {without} sent while it was dead, \
                 ready again after {:.0} ms: {} of {} lost",
                milliseconds(ready),
                self.report.lost_during_restart,
                self.report.sent_during_restart,
            ),
        )?;
        let now = self.compare_counters(node, nics, "Counters")?;
        let kept = now >= counted + self.report.sent_during_restart;
        self.report
            .check(kept, format_args!("counters went from {counted} to {now} over the restart"));
        Ok(())
    }
}
