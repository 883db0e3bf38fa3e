//! Addresses from a real DHCP server, dnsmasq, on the wire.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use driver::model::{By, Lease};
use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::{Value, json};
use tests::node::{Node, PATIENCE};
use tests::runtime::Options;

use super::world::{
    Deployed, answer_in, deploy, inside, looks, nic, nothing_is_left, on_a_node, talk, until,
};

/// When dnsmasq wants to be asked for more time: it lends for two minutes at least, and no option
/// changes what it says of T1.
const HALF_A_LEASE: Duration = Duration::from_mins(1);

/// A server on the wire of NIC 0, that lends one address and ends with this value.
struct Server {
    process: Child,
    log: PathBuf,
}

impl Server {
    fn start(node: &Node) -> Self {
        let log = Path::new("/run/dnsmasq.log").to_owned();
        let out = File::create(&log).unwrap();
        let mut command = Command::new("dnsmasq");
        command
            .args(["--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--user=root"])
            .args(["--conf-file=/dev/null", "--pid-file", "--port=0", "--no-ping"])
            .args(["--bind-interfaces", "--interface=wire0", "--dhcp-authoritative"])
            .args(["--dhcp-leasefile=/run/dnsmasq.leases"])
            .arg("--dhcp-range=198.18.0.10,198.18.0.10,255.255.255.0,2m")
            .arg("--dhcp-option=option:router,198.18.0.254")
            .arg("--dhcp-option=option:classless-static-route,203.0.112.0/21,198.18.0.1")
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out);
        let process = node.network.wire().run(|_| command.spawn().unwrap()).unwrap();
        let server = Self { process, log };
        until("dnsmasq listens", || server.said("DHCP, IP range").ok_or_else(|| server.words()));
        server
    }

    fn words(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn said(&self, what: &str) -> Option<()> {
        self.words().contains(what).then_some(())
    }

    fn count(&self, what: &str) -> usize {
        self.words().matches(what).count()
    }

    /// Waits until it has said so for the `times`th time.
    fn says(&self, what: &str, times: usize) {
        until(what, || if self.count(what) >= times { Ok(()) } else { Err(self.words()) });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either may fail only because it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn config() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
        "interface": { "name": "net0", "dhcp": true },
    })
}

fn lease(web: &Deployed) -> Lease {
    web.records()[0].lease.clone().unwrap()
}

/// Destinations and gateways of what is not on the link.
fn routes(netns: &Netns) -> Vec<(String, String)> {
    let show = || Command::new("ip").args(["-j", "-4", "route"]).output().unwrap();
    let told: Value = serde_json::from_slice(&netns.run(|_| show()).unwrap().stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = told.as_array().unwrap().iter().filter(|route| route["gateway"].is_string());
    all.map(|route| (text(&route["dst"]), text(&route["gateway"]))).collect()
}

/// The addresses that the claim's status tells of.
fn told(node: &Node) -> Option<Vec<String>> {
    let claim: ResourceClaim = node.server.object(Some("default"), "web").unwrap();
    claim.status?.devices?.first()?.network_data.clone()?.ips
}

#[test]
fn an_address_is_lent_prolonged_and_given_back() {
    on_a_node(1, Options::default(), |node| {
        let server = Server::start(node);
        // Down, as a NIC is that nobody has used yet.
        let name = nic(node, 0).name.clone();
        let links = Netlink::open().unwrap();
        let index = links.link(&By::Name(name)).unwrap().unwrap().index;
        links.set_down(index).unwrap();
        let before = looks(node, 0);
        let web = deploy(node, "web", &[(0, config())]);

        node.prepare(&web.claims()).unwrap();
        let first = lease(&web);
        assert_eq!(first.address, "198.18.0.10/24".parse().unwrap());
        assert_eq!(first.server, std::net::Ipv4Addr::new(198, 18, 0, 1));

        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        assert_eq!(inside(&netns, "net0").unwrap().addresses, ["198.18.0.10/24".parse().unwrap()]);
        let classless = ("203.0.112.0/21".to_owned(), "198.18.0.1".to_owned());
        assert_eq!(routes(&netns), [classless], "and none by the router, which RFC 3442 rules out");
        let echo = answer_in(&netns);
        talk(node, 0);
        until("the status tells of the address", || match told(node) {
            Some(ips) if ips == ["198.18.0.10/24"] => Ok(()),
            other => Err(format!("{other:?}")),
        });

        node.driver.kill().unwrap();
        assert!(node.runtime.wait_for_no_plugin(PATIENCE));
        node.start_driver().unwrap();
        let discovers = server.count("DHCPDISCOVER(wire0)");
        let first = first.times.unwrap();
        let started = Instant::now();
        while lease(&web).times.unwrap() == first {
            assert!(started.elapsed() < HALF_A_LEASE + PATIENCE, "{}", server.words());
            thread::sleep(Duration::from_millis(100));
        }
        let now = lease(&web).times.unwrap();
        assert!(now.end >= first.renew + 120, "{now:?} {first:?}");
        assert_eq!(server.count("DHCPACK(wire0)"), 2);
        assert_eq!(server.count("DHCPDISCOVER(wire0)"), discovers, "it was only prolonged");
        talk(node, 0);

        echo.stop();
        drop(netns);
        web.end(node);
        server.says("DHCPRELEASE(wire0)", 1);
        assert_eq!(looks(node, 0), before);
        nothing_is_left();
    });
}

#[test]
fn without_a_server_prepare_says_so_and_can_be_repeated() {
    on_a_node(1, Options::default(), |node| {
        let before = looks(node, 0);
        let web = deploy(node, "web", &[(0, config())]);
        let started = Instant::now();

        let answers = node.ask_to_prepare(&web.claims()).unwrap();

        assert!(started.elapsed() < Duration::from_secs(30), "kubelet gives up after 45 s");
        let error = answers[web.claim.uid.as_str()].clone().unwrap_err();
        for part in ["default/web", web.device(0), "interface.dhcp: no DHCP server has offered"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert_eq!(web.phases(), ["prepared"]);
        let server = Server::start(node);
        node.prepare(&web.claims()).unwrap();
        assert_eq!(lease(&web).address, "198.18.0.10/24".parse().unwrap());

        // It was never attached.
        node.unprepare(&web.claims()).unwrap();
        server.says("DHCPRELEASE(wire0)", 1);
        assert_eq!(looks(node, 0), before);
        nothing_is_left();
    });
}
