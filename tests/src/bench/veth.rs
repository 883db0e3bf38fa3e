//! What is left of the throughput of a veth pair, with counters in both directions at one end.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use driver::datapath::Datapath;
use driver::model::DatapathSpec;
use ipnet::{IpNet, Ipv4Net};

use super::plan;
use super::report::{Measurement, measurement};
use super::rounds::median;
use super::stream::{self, Flux, Server, Tcp};
use crate::sandbox::{Network, Nic};

/// How often it is measured with and without.
const TURNS: usize = 10;
const NEAR: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
const TCP_TIME: Duration = Duration::from_secs(2);
const UDP_TIME: Duration = Duration::from_millis(500);

/// One stream, without the datapath and with it, in turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    without: Vec<Flux>,
    with: Vec<Flux>,
}

#[derive(Debug, Default)]
pub(super) struct Measured {
    tcp: Turns,
    /// Sent from the end that has the programs, and to it.
    udp_out: Turns,
    udp_in: Turns,
}

/// Measures in the calling thread's namespace.
pub(super) fn measure(bpffs: &Path) -> Result<Vec<Measurement>> {
    let network = Network::new(1)?;
    let nic = network.nics().first().context("the box has no NIC")?;
    network.address_far_end(nic, IpNet::V4(Ipv4Net::new_assert(FAR, 24)))?;
    let datapath = Datapath::open(bpffs)?;
    let spec = plan::counting();
    let server = Server::start(network.wire(), FAR)?;
    // So that nobody answers that there is nobody.
    let _sinks = [stream::sink(None, NEAR)?, stream::sink(Some(network.wire()), FAR)?];
    let mut measured = Measured::default();
    // Once for nothing, so that ARP has asked and memory is there.
    Measured::default().turn(&network, nic, &server, |turns| &mut turns.without)?;
    for turn in 0..TURNS {
        // Now one first, now the other: a machine that gets slower or faster favours neither.
        for has_datapath in [turn % 2 == 1, turn % 2 == 0] {
            if has_datapath {
                with(&datapath, &spec, nic, || {
                    measured.turn(&network, nic, &server, |turns| &mut turns.with)
                })?;
            } else {
                measured.turn(&network, nic, &server, |turns| &mut turns.without)?;
            }
        }
    }
    let tool = measurement("veth_tcp_by_iperf3", f64::from(u8::from(server.is_iperf())), "0 or 1");
    Ok([results(&measured), vec![tool]].concat())
}

/// Does something while the datapath is attached.
fn with(
    datapath: &Datapath,
    spec: &DatapathSpec,
    nic: &Nic,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    datapath.install(spec, &nic.name).context("attach the datapath")?;
    let outcome = work();
    datapath.remove(&spec.id).context("detach the datapath")?;
    outcome
}

impl Measured {
    fn turn(
        &mut self,
        network: &Network,
        nic: &Nic,
        server: &Server,
        side: impl Fn(&mut Turns) -> &mut Vec<Flux>,
    ) -> Result<()> {
        side(&mut self.tcp).push(Tcp { to: FAR, time: TCP_TIME }.run(server)?);
        let out = stream::udp(None, FAR, UDP_TIME, || Ok(network.count(nic)?.from_nic))?;
        side(&mut self.udp_out).push(out);
        let wire = Some(network.wire());
        let back = stream::udp(wire, NEAR, UDP_TIME, || Ok(network.count(nic)?.to_nic))?;
        side(&mut self.udp_in).push(back);
        Ok(())
    }
}

/// The numbers of all streams; not numbers where nothing was measured.
pub(super) fn results(measured: &Measured) -> Vec<Measurement> {
    let mut results = Vec::new();
    for (name, unit, scale, turns) in [
        ("veth_tcp", "Mbit/s", 1e-6, &measured.tcp),
        ("veth_udp", "packets/s", 1.0, &measured.udp_out),
        ("veth_udp_in", "packets/s", 1.0, &measured.udp_in),
    ] {
        let pairs = turns.without.iter().zip(&turns.with);
        let ratios = pairs.map(|(without, with)| with.per_second / without.per_second);
        results.push(measurement(format!("{name}_ratio"), median(ratios.collect()), "times"));
        for (side, fluxes) in [("without", &turns.without), ("with", &turns.with)] {
            let of = |value: fn(&Flux) -> f64| median(fluxes.iter().map(value).collect());
            let rate = of(|flux| flux.per_second) * scale;
            results.push(measurement(format!("{name}_{side}"), rate, unit));
            let cpu = of(|flux| flux.cpu_per_packet);
            results.push(measurement(format!("{name}_cpu_{side}"), cpu, "ns/packet"));
        }
    }
    results
}
