//! The box that the demo runs in: nothing of it outlives the process that made it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use driver::sys::netns::Netns;
use nix::mount::{self, MsFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::sandbox::Network;
use tests::sandbox::traffic::{self, Echo, Expect, Route, Stream};

use crate::bench::in_own_namespaces;

/// Starts a box that only holds, and waits until it is furnished.
fn held_box() -> Child {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .arg("--hold")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(demo.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "a box with 3 NICs\n");
    demo
}

/// The network namespaces of all processes whose parent is `parent`, or of all there are.
fn namespaces(parent: Option<u32>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything; state and parent follow it.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let of = rest.split_whitespace().nth(1).and_then(|pid| pid.parse().ok());
        if parent.is_none() || of == parent {
            found.extend(fs::read_link(entry.path().join("ns/net")));
        }
    }
    found
}

#[test]
fn whatever_kills_the_process_outside_ends_the_box() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut demo = held_box();
        let inside = namespaces(Some(demo.id()));
        assert_eq!(inside.len(), 1, "pid 1 of the box");
        assert_ne!(inside, [fs::read_link("/proc/thread-self/ns/net").unwrap()]);

        kill(Pid::from_raw(demo.id().cast_signed()), signal).unwrap();
        demo.wait().unwrap();

        let started = Instant::now();
        while namespaces(None).contains(&inside[0]) {
            assert!(started.elapsed() < Duration::from_secs(5), "{signal}: the box is still there");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn what_the_wire_counts_is_what_was_sent() {
    in_own_namespaces(|_| {
        // The box's namespaces are mounted there.
        let none = None::<&Path>;
        mount::mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let network = Network::new(2).unwrap();
        let nic = network.nics()[1].clone();
        network.address_far_end(&nic, "172.31.1.2/24".parse().unwrap()).unwrap();
        let before = network.count(&nic).unwrap();
        let host = Netns::of_this_thread().unwrap();
        let echo = Echo::start(&host, 7000).unwrap();
        let route = |port| Route {
            from: SocketAddr::from(([172, 31, 1, 2], 0)),
            to: SocketAddr::from(([172, 31, 1, 1], port)),
            pace: Duration::from_millis(1),
        };

        let tally = traffic::burst(network.wire(), route(7000), 50, Expect::Answers).unwrap();
        assert_eq!((tally.sent, tally.answered, tally.lost()), (50, 50, 0));
        let silent = traffic::burst(network.wire(), route(9), 5, Expect::Silence).unwrap();
        assert_eq!((silent.sent, silent.answered), (5, 0));
        let stream = Stream::start(network.wire(), route(7000)).unwrap();
        thread::sleep(Duration::from_millis(100));
        let streamed = stream.stop();
        assert!(streamed.sent > 0 && streamed.lost() == 0, "{streamed:?}");
        assert_eq!(echo.stop(), 50 + streamed.sent);

        // Beside the datagrams there is one question for the link-layer address, and perhaps the
        // answer to the other side's.
        let count = network.count(&nic).unwrap();
        let asked = count.to_nic - before.to_nic - (50 + 5 + streamed.sent);
        assert!((1..=2).contains(&asked), "{asked} frames more than datagrams");
        assert!(network.state(&nic.name).unwrap().is_some_and(|state| state.mtu == 1490));
    });
}
