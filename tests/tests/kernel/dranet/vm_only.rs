//! What needs kinds of interfaces that a machine's own kernel may not have.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use driver::sys::netns::Netns;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
use serde_json::{Value, json};
use tests::runtime::Options;

use super::{ip_in, pair, run};
use crate::driver::world::{PORT, nothing_is_left, on_a_node, until};

fn in_vrf(interface: &str, address: &str, more: &[(&str, &str)]) -> Value {
    let route = |(to, via): &(&str, &str)| json!({ "destination": to, "gateway": via });
    json!({
        "interface": {
            "name": interface, "addresses": [address], "forwarding": true,
            "vrf": { "name": "vrf-test", "table": 100 },
        },
        "routes": more.iter().map(route).collect::<Vec<_>>(),
    })
}

/// Reads what the other side says, asked by way of one interface.
fn ask(netns: &Netns, interface: &str, to: SocketAddr) -> Result<String, String> {
    let asked = netns.run(|_| {
        let stream = SockType::Stream;
        let socket =
            socket::socket(AddressFamily::Inet, stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        socket::setsockopt(&socket, sockopt::BindToDevice, &interface.into()).unwrap();
        let SocketAddr::V4(to) = to else { panic!("{to} is no IPv4 address") };
        socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to))
            .map_err(|error| error.to_string())?;
        let mut text = String::new();
        let read = TcpStream::from(socket).read_to_string(&mut text);
        read.map(|_| text).map_err(|error| error.to_string())
    });
    asked.unwrap()
}

/// From pod to pod through a third one, each with its interfaces in a VRF.
#[test]
#[ignore = "needs vrf: vm ring"]
fn vrf_routing() {
    on_a_node(0, Options::default(), |node| {
        pair("vrf-test-pod-1", "vrf-rtr-1");
        pair("vrf-test-pod-2", "vrf-rtr-2");
        let one = in_vrf("eth1", "10.10.10.1/24", &[("10.10.20.0/24", "10.10.10.2")]);
        let (pod_1, netns_1) = run(node, "pod-vrf-1", &[("vrf-test-pod-1", one)]);
        let (between, netns) = run(
            node,
            "pod-vrf-router",
            &[
                ("vrf-rtr-1", in_vrf("eth1", "10.10.10.2/24", &[])),
                ("vrf-rtr-2", in_vrf("eth2", "10.10.20.2/24", &[])),
            ],
        );
        let two = in_vrf("eth1", "10.10.20.1/24", &[("10.10.10.0/24", "10.10.20.2")]);
        let (pod_2, netns_2) = run(node, "pod-vrf-2", &[("vrf-test-pod-2", two)]);
        assert_eq!(ip_in(&netns, &["link", "show", "dev", "eth2"])[0]["master"], "vrf-test");

        let to = SocketAddr::from(([10, 10, 20, 1], PORT));
        let listener = netns_2.run(|_| TcpListener::bind(("0.0.0.0", PORT))).unwrap().unwrap();
        let served = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello"));
        let text = until("the other pod answers", || ask(&netns_1, "eth1", to));
        assert_eq!(text, "hello");
        served.join().unwrap().unwrap();

        drop((netns_1, netns, netns_2));
        for pod in [pod_1, between, pod_2] {
            pod.end(node);
        }
        nothing_is_left();
    });
}
