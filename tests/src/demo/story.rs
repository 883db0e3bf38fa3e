//! The story, step by step.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use driver::model::{By, IfName, InterfaceState};
use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};

use super::flows::PodNic;
use super::manifests;
use super::report::Report;
use super::{Options, line, scene};
use crate::node::{self, DRIVER, NODE, Node, PATIENCE, claim_ref};
use crate::runtime;
use crate::sandbox::state_in;
use crate::sandbox::traffic::Echo;

/// The teller.
pub(super) struct Story<'a> {
    options: &'a Options,
    pub report: Report,
}

impl<'a> Story<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self { options, report: Report::default() }
    }

    /// Tells all of it. An error is what made it impossible to go on; what merely does not hold is
    /// in the report.
    pub(super) fn tell(mut self) -> Result<Report> {
        let mut node = Node::new(&self.options.weir, scene::NICS, runtime::Options::default())?;
        manifests::apply(&node.server, &self.options.examples)?;
        self.say("Node", format!(
            "{} in a box: {} NICs; around the driver an API server, kubelet, a container runtime",
            NODE,
            scene::NICS,
        ))?;
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
        self.say(
            "Prepare",
            format!(
                "{:.0} ms: claim read, programs loaded and attached, NICs still on the node",
                self.report.prepare_ms,
            ),
        )?;
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

    /// A line of the story; nothing where JSON is asked for.
    pub(super) fn say(&self, head: &str, text: impl AsRef<str>) -> Result<()> {
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
            slices.retain(|slice| slice.spec.driver == DRIVER);
            let devices = slices.iter().map(|s| s.spec.devices.iter().flatten().count()).sum();
            self.report.devices = devices;
            self.report.slices = slices.len();
            if devices >= usize::from(scene::NICS) || started.elapsed() > PATIENCE {
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
        let claims = node.schedule(&pod)?;
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
        let namespace = pod.namespace().unwrap_or_default();
        let bound = node.server.object(Some(&namespace), &pod.name_any());
        let pod = bound.context("the pod is gone")?;
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
        self.report.residue.extend(node::residue());
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

pub(super) fn milliseconds(duration: Duration) -> f64 {
    // Tenths are what a reader can use.
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
