//! The story, step by step.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use driver::model::{By, ClaimRef, IfName, InterfaceState};
use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};

use super::manifests::{self, Configured};
use super::metrics::Samples;
use super::node::Node;
use super::report::Report;
use super::{Options, line, scene};
use crate::sandbox::traffic::{self, Echo, Expect, Route, Stream, Tally};
use crate::sandbox::{Nic, WireCount, state_in};
use crate::scheduler;

/// The teller.
pub(super) struct Story<'a> {
    options: &'a Options,
    report: Report,
}

/// One NIC of the pod, as it was before and shall be again.
struct PodNic {
    request: &'static str,
    device: String,
    nic: Nic,
    configured: Configured,
    before: InterfaceState,
    wire_before: WireCount,
    /// Datagrams sent to it that must not pass.
    must_not_pass: u64,
}

impl PodNic {
    /// The far end's own address: the first of the pod's network.
    fn peer(&self) -> IpAddr {
        let first = self.configured.address.hosts().next();
        first.unwrap_or_else(|| self.configured.address.network())
    }

    fn route(&self, from: IpAddr, port: u16) -> Route {
        let to = SocketAddr::new(self.configured.address.addr(), port);
        Route { from: SocketAddr::new(from, 0), to, pace: scene::PACE }
    }
}

impl<'a> Story<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self { options, report: Report::default() }
    }

    /// Tells all of it. An error is what made it impossible to go on; what merely does not hold is
    /// in the report.
    pub(super) fn tell(mut self) -> Result<Report> {
        let mut node = Node::new(&self.options.weir)?;
        manifests::apply(&node.server, &self.options.examples)?;
        self.say("Node", format!("{} in a box: {} NICs, and beside the driver an API server, kubelet and a container runtime", scene::NODE, scene::NICS))?;
        self.report.ready_ms = milliseconds(node.start_driver()?);
        self.say(
            "Driver",
            format!(
                "weir node is ready after {:.0} ms: registered with kubelet, connected over NRI",
                self.report.ready_ms
            ),
        )?;
        self.show_slices(&node)?;
        let (pod, claim) = self.schedule(&node)?;
        let mut nics = self.pod_nics(&node, &claim)?;
        let claims = [claim_ref(&claim)?];

        let took = node.prepare(&claims)?;
        self.report.prepare_ms = milliseconds(took);
        self.say("Prepare", format!("{:.0} ms: claim read, programs loaded and attached while the NICs are still on the node", self.report.prepare_ms))?;
        let (netns, took) = node.run_sandbox(&pod)?;
        self.report.hook_ms = milliseconds(took);
        self.say(
            "Sandbox",
            format!("the hook held the runtime up for {:.1} ms", self.report.hook_ms),
        )?;
        self.show_interfaces(&node, &netns, &nics)?;

        let echo = Echo::start(&netns, scene::ALLOWED_PORT).context("start the echo")?;
        self.send_traffic(&node, &mut nics)?;
        let counted = self.compare_counters(&node, &nics, "Counters")?;
        self.restart_under_traffic(&mut node, &nics, counted)?;
        echo.stop();

        // The namespace ends, and with it what is in it, when nobody holds it open.
        drop(netns);
        node.stop_sandbox(&pod)?;
        node.unprepare(&claims)?;
        self.delete(&node, &pod, &claim)?;
        self.look_back(&node, &nics)?;
        let status = node.driver.stop()?;
        self.report.check(status.success(), format_args!("the driver ended with {status}"));
        self.conclude()?;
        Ok(self.report)
    }

    fn say(&self, head: &str, text: impl AsRef<str>) -> Result<()> {
        if self.options.json {
            return Ok(());
        }
        line(&format!("{head:<9} {}", text.as_ref()))
    }

    fn yaml(&self, object: &impl serde::Serialize) -> Result<()> {
        if !self.options.yaml {
            return Ok(());
        }
        line(&format!("---\n{}", serde_saphyr::to_string(object).context("write YAML")?))
    }

    fn show_slices(&mut self, node: &Node) -> Result<()> {
        let started = Instant::now();
        let slices = loop {
            let mut slices = node.server.objects::<ResourceSlice>();
            slices.retain(|slice| slice.spec.driver == scene::DRIVER);
            let devices = slices.iter().map(|s| s.spec.devices.iter().flatten().count()).sum();
            self.report.devices = devices;
            self.report.slices = slices.len();
            if devices >= usize::from(scene::NICS) || started.elapsed() > scene::PATIENCE {
                break slices;
            }
            thread::sleep(Duration::from_millis(20));
        };
        self.report.equal("devices", self.report.devices as u64, scene::NICS.into());
        self.say(
            "Slices",
            format!("{} with {} devices:", self.report.slices, self.report.devices),
        )?;
        let heads = ["DEVICE", "INTERFACE", "TYPE", "MTU", "NATIVE XDP", "TCX"];
        for row in manifests::table(heads, &manifests::rows(&slices)) {
            self.say("", row)?;
        }
        slices.iter().try_for_each(|slice| self.yaml(slice))
    }

    fn schedule(&mut self, node: &Node) -> Result<(Pod, ResourceClaim)> {
        for class in node.server.objects::<DeviceClass>() {
            let selectors = class.spec.selectors.iter().flatten().filter_map(|s| s.cel.as_ref());
            let selectors: Vec<&str> = selectors.map(|cel| cel.expression.trim()).collect();
            self.say("Class", format!("{}: {}", class.name_any(), selectors.join(" && ")))?;
            self.yaml(&class)?;
        }
        let pod = manifests::pod(&node.server)?;
        let client = node.tokio.block_on(async { node.server.client() })?;
        let namespace = pod.namespace().unwrap_or_default();
        let name = pod.name_any();
        let scheduled = scheduler::schedule(&client, &namespace, &name, scene::NODE);
        let claims = node.tokio.block_on(scheduled)?;
        ensure!(claims.len() == 1, "the pod has {} claims, the demo knows one", claims.len());
        let claim = claims.into_iter().next().context("no claim")?;
        self.report.claim_selector = manifests::selectors(&claim);
        self.report.allocated = manifests::allocated(&claim);
        for (request, selector) in &self.report.claim_selector {
            let device = self.report.allocated.get(request).map_or("nothing", String::as_str);
            let name = claim.name_any();
            self.say("Claim", format!("{name}, request {request}: {selector} -> {device}"))?;
        }
        self.yaml(&claim)?;
        let pod = node.server.object(Some(&namespace), &name).context("the pod is gone")?;
        self.yaml(&pod)?;
        Ok((pod, claim))
    }

    /// What the pod's NICs are like now, before anything is prepared; gives their far ends the
    /// addresses of the pod's networks.
    fn pod_nics(&self, node: &Node, claim: &ResourceClaim) -> Result<Vec<PodNic>> {
        let mut nics = Vec::new();
        for request in [scene::FILTERED, scene::PLAIN] {
            let device = self.report.allocated.get(request);
            let device = device.with_context(|| format!("nothing is allocated for {request}"))?;
            let nic = node.network.nic(&device.parse()?).cloned();
            let nic = nic.with_context(|| format!("device {device} is no NIC of the box"))?;
            let before = node.network.state(&nic.name)?;
            let before = before.with_context(|| format!("{} is not on the node", nic.name))?;
            let wire_before = node.network.count(&nic)?;
            let configured = manifests::configured(claim, request)?;
            let device = device.clone();
            let must_not_pass = 0;
            let nic =
                PodNic { request, device, nic, configured, before, wire_before, must_not_pass };
            let length = nic.configured.address.prefix_len();
            let mut addresses = vec![IpNet::new(nic.peer(), length)?];
            if request == scene::FILTERED {
                addresses.push(IpNet::new(scene::BLOCKED_PEER.into(), length)?);
            } else {
                addresses.push(IpNet::new(scene::DISTANT_PEER, 32)?);
            }
            for address in addresses {
                node.network.address_far_end(&nic.nic, address)?;
            }
            nics.push(nic);
        }
        Ok(nics)
    }

    fn show_interfaces(&mut self, node: &Node, netns: &Netns, nics: &[PodNic]) -> Result<()> {
        let links = Netlink::open_in(netns)?;
        for nic in nics {
            let name: IfName = nic.configured.interface.parse()?;
            let state = state_in(&links, &name)?;
            let gone = node.network.state(&nic.nic.name)?.is_none();
            self.report.check(gone, format_args!("{} is still on the node", nic.nic.name));
            let Some(state) = state else {
                self.report.check(false, format_args!("{name} is not in the pod"));
                continue;
            };
            let has_address = state.addresses.contains(&nic.configured.address);
            self.report.check(has_address, format_args!("{name} has {:?}", state.addresses));
            self.report.check(state.up, format_args!("{name} is down in the pod"));
            let xdp = links.link(&By::Name(name.clone()))?.is_some_and(|l| l.is_xdp_attached());
            let is_right = xdp == (nic.request == scene::FILTERED);
            self.report.check(is_right, format_args!("{name}: XDP attached is {xdp}"));
            let addresses: Vec<String> = state.addresses.iter().map(IpNet::to_string).collect();
            let hook = if xdp { "XDP" } else { "TCX" };
            self.say(
                "In pod",
                format!(
                    "{name} (was {}): {}, mtu {}, ingress by {hook}",
                    nic.nic.name,
                    addresses.join(" "),
                    state.mtu
                ),
            )?;
        }
        Ok(())
    }

    fn send_traffic(&mut self, node: &Node, nics: &mut [PodNic]) -> Result<()> {
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
    fn compare_counters(&mut self, node: &Node, nics: &[PodNic], head: &str) -> Result<u64> {
        let samples = node.scrape()?;
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
            self.say(head, format!("{interface}: /metrics says {} received, {} of them denied, {} sent; the wire says {to_nic}, {}, {from_nic}", counted.received, counted.denied, counted.sent, nic.must_not_pass))?;
        }
        Ok(self.report.rx_packets)
    }

    fn restart_under_traffic(
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
        self.say("Restart", format!("driver killed with -9 at {rate} datagrams/s, {without} sent without it, ready again after {:.0} ms: {} of {} lost", milliseconds(ready), self.report.lost_during_restart, self.report.sent_during_restart))?;
        let now = self.compare_counters(node, nics, "Counters")?;
        let kept = now >= counted + self.report.sent_during_restart;
        self.report
            .check(kept, format_args!("counters went from {counted} to {now} over the restart"));
        Ok(())
    }

    fn delete(&self, node: &Node, pod: &Pod, claim: &ResourceClaim) -> Result<()> {
        let client = node.tokio.block_on(async { node.server.client() })?;
        let namespace = pod.namespace().unwrap_or_default();
        let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
        let claims = Api::<ResourceClaim>::namespaced(client, &namespace);
        node.tokio.block_on(async {
            pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
            claims.delete(&claim.name_any(), &DeleteParams::default()).await
        })?;
        self.say("Pod gone", "sandbox stopped, claim unprepared, both deleted")
    }

    fn look_back(&mut self, node: &Node, nics: &[PodNic]) -> Result<()> {
        let links = Netlink::open()?;
        self.report.restored = true;
        for nic in nics {
            let name = &nic.nic.name;
            let after = node.network.state(name)?;
            // The kernel may have to number it anew when it comes back.
            let after = after.map(|after| InterfaceState { index: nic.before.index, ..after });
            let same = after.as_ref() == Some(&nic.before);
            self.report.restored &= same;
            self.report.check(same, format_args!("{name} was {:?} and is {after:?}", nic.before));
            let link = links.link(&By::Name(name.clone()))?;
            if link.is_some_and(|link| link.is_xdp_attached()) {
                self.report.residue.push(format!("an XDP program on {name}"));
            }
        }
        self.report.residue.extend(node.residue());
        let residue = self.report.residue.join(", ");
        self.report.check(residue.is_empty(), format_args!("left behind: {residue}"));
        let names: Vec<&str> = nics.iter().map(|nic| nic.nic.name.as_str()).collect();
        let word = if self.report.restored { "as they were" } else { "NOT as they were" };
        self.say(
            "Node",
            format!("{} are back and {word}: name, MAC, MTU, addresses, up", names.join(" and ")),
        )?;
        let residue = if residue.is_empty() { "nothing" } else { &residue };
        self.say("Residue", format!("{residue} left: pins, records, CDI specs, namespaces"))
    }

    fn conclude(&self) -> Result<()> {
        for failed in &self.report.failed {
            self.say("FAILED", failed)?;
        }
        if self.report.failed.is_empty() {
            self.say(
                "Checked",
                "every number above was compared with the wire or with the state before",
            )?;
        }
        Ok(())
    }
}

/// What `/metrics` shows of one device.
struct Counted {
    received: u64,
    denied: u64,
    /// Those that the egress program let pass.
    sent: u64,
}

impl Counted {
    fn of(samples: &Samples, device: &str) -> Self {
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

fn claim_ref(claim: &ResourceClaim) -> Result<ClaimRef> {
    Ok(ClaimRef {
        namespace: claim.namespace().unwrap_or_default(),
        name: claim.name_any(),
        uid: claim.uid().unwrap_or_default().parse()?,
    })
}

fn milliseconds(duration: Duration) -> f64 {
    // Tenths are what a reader can use.
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
