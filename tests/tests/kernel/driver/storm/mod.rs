//! The driver is killed again and again, at moments that nobody chose, while pods come and go and one
//! of them talks all the time.
//!
//! A NIC of the box is one end of a veth pair, which the kernel destroys together with a namespace
//! that it is in (`default_device_exit_batch()`, net/core/dev.c, Linux 6.12); hardware would fall back
//! to the host. So the namespace of a sandbox whose end nobody saw is held until the claim is
//! unprepared, where there is a NIC to lose in it. A macvlan dies with its namespace on a real node,
//! too, and nothing is held for it.

mod host;
mod life;
mod steady;

use std::collections::BTreeMap;
use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use tests::node::{self, Node, PATIENCE};
use tests::oracle::random;
use tests::runtime::{Options, Runtime};
use tests::sandbox::Process;

use self::host::Host;
use self::life::{Life, Machine, Nature, Stage, Where};
use self::steady::Steady;
use super::world::{Deployed, answer_in, config, deploy, on_a_node, talk, until};

const KILLS: usize = 200;
/// After how many kills everything but the steady pod is taken down and looked for.
const ROUND: usize = 20;
/// Cycles that nobody disturbs, to know how long one takes.
const CALM: u32 = 3;

#[test]
fn a_driver_killed_at_any_moment_loses_no_nic_and_no_packet_and_leaves_nothing() {
    on_a_node(3, Options::default(), |node| {
        furnish_hosts_side();
        let steady = Steady::start(node);
        let pods = [deploy(node, "hard", &[(1, hard())]), deploy(node, "soft", &[(2, soft())])];
        let before = Host::look(node);
        let mut storm = Storm::new(node, &pods[0]);
        let mut sandboxes = 0;
        while storm.killed < kills() {
            sandboxes += storm.round(node, &pods);
            calm(node, &pods);
            until("the node is as it was", || before.compare(&Host::look(node)));
        }
        let sent = steady.stop(node);
        storm.tell(sandboxes, sent);
        // Fewer may have missed one of them.
        if storm.killed >= KILLS {
            for stage in [Stage::Prepare, Stage::Run, Stage::Stop, Stage::Unprepare] {
                let moment = moment(stage, Moment::Service);
                assert!(storm.moments.contains_key(&moment), "never killed at {moment}");
            }
        }
    });
}

/// How often the driver is killed: 200 times, or as often as `WEIR_KILLS` says.
fn kills() -> usize {
    let told = env::var("WEIR_KILLS").ok().map(|text| text.parse().unwrap());
    told.unwrap_or(KILLS)
}

/// What an administrator may have given the NICs that come and go.
fn furnish_hosts_side() {
    for line in [
        "route add 10.91.0.0/16 via 172.31.1.9 dev nic1",
        "route add 10.92.0.0/16 dev nic1 table 91 metric 7",
        "rule add from 172.31.1.0/24 lookup 91 priority 910",
        "neigh add 172.31.1.9 lladdr 02:77:00:00:09:09 dev nic1 nud permanent",
        "address add 172.31.1.2/24 brd + dev nic1",
        "route add 10.93.0.0/16 via 172.31.2.9 dev nic2",
    ] {
        let status = Command::new("ip").args(line.split(' ')).status().unwrap();
        assert!(status.success(), "ip {line}");
    }
    std::fs::write("/proc/sys/net/ipv4/conf/nic1/rp_filter", "2").unwrap();
}

/// A whole NIC with a bit of everything.
fn hard() -> Value {
    let mut config = config(1, "xdp");
    let interface = &mut config["interface"];
    interface["mtu"] = json!(1400);
    interface["hardwareAddr"] = json!("02:77:00:00:0a:01");
    interface["arpIgnore"] = json!(1);
    config["routes"] = json!([
        { "destination": "10.81.0.0/16", "gateway": "198.18.1.1" },
        { "destination": "10.82.0.0/16", "gateway": "198.18.1.1", "table": 81 },
    ]);
    config["rules"] = json!([{ "priority": 810, "source": "198.18.1.0/24", "table": 81 }]);
    config["ethtool"] = json!({ "features": { "tx-tcp-segmentation": false } });
    config
}

/// A macvlan upon a NIC.
fn soft() -> Value {
    let mut config = config(2, "tcx");
    config["subinterface"] = json!({ "type": "macvlan", "mode": "bridge" });
    config["routes"] = json!([
        { "destination": "10.83.0.0/16", "gateway": "198.18.2.1", "table": 82 },
    ]);
    config["rules"] = json!([{ "priority": 820, "source": "198.18.2.0/24", "table": 82 }]);
    config
}

/// What the driver is at when it is killed.
#[derive(Clone, Copy)]
enum Moment {
    Start,
    Service,
}

fn moment(stage: Stage, during: Moment) -> String {
    let during = match during {
        Moment::Start => "its start",
        Moment::Service => "service",
    };
    format!("{} ({during})", stage.name())
}

/// When the driver is killed, and when it was.
struct Storm {
    rng: Rng,
    seed: u64,
    /// How long a start of the driver takes, and a cycle of a pod.
    start: Duration,
    cycle: Duration,
    killed: usize,
    /// What the pods were at when it was, and how often.
    moments: BTreeMap<String, usize>,
}

impl Storm {
    fn new(node: &mut Node, pod: &Deployed) -> Self {
        node.driver.kill().unwrap();
        assert!(node.runtime.wait_for_no_plugin(PATIENCE));
        let start = node.start_driver().unwrap();
        let whereabouts = Where::default();
        let mut life = Life::new(Machine::of(node), pod, nature(0), &whereabouts);
        let started = Instant::now();
        (0..CALM).for_each(|_| life.once(|_| ()));
        let cycle = started.elapsed() / CALM;
        let seed = random::seed();
        Self { rng: Rng::with_seed(seed), seed, start, cycle, killed: 0, moments: BTreeMap::new() }
    }

    /// Kills the driver as often as a round has it while the pods come and go, and has each pod come
    /// to the end of its cycle. Answers how many sandboxes there were.
    fn round(&mut self, node: &mut Node, pods: &[Deployed; 2]) -> usize {
        let Node { driver, runtime, kubelet, tokio, .. } = node;
        let machine = Machine { runtime, kubelet, tokio };
        let whereabouts = [Where::default(), Where::default()];
        let over = AtomicBool::new(false);
        let live = |nth: usize| {
            let mut life = Life::new(machine, &pods[nth], nature(nth), &whereabouts[nth]);
            while !over.load(Ordering::Relaxed) {
                life.once(|_| thread::sleep(Duration::from_millis(20)));
            }
            life.sandboxes()
        };
        thread::scope(|scope| {
            let lives = [0, 1].map(|nth| scope.spawn(move || live(nth)));
            let _over = Over(&over);
            for _ in 0..ROUND {
                // What went wrong there is told by `join`.
                if lives.iter().any(thread::ScopedJoinHandle::is_finished) {
                    break;
                }
                self.wait(runtime);
                self.kill(driver, &whereabouts);
            }
            over.store(true, Ordering::Relaxed);
            lives.map(|life| life.join().unwrap()).iter().sum()
        })
    }

    /// Each third kill is within the start.
    fn next(&self) -> Moment {
        if self.killed.is_multiple_of(3) { Moment::Start } else { Moment::Service }
    }

    /// Waits for the moment of the next kill.
    fn wait(&mut self, runtime: &Runtime) {
        let length = match self.next() {
            Moment::Start => self.start,
            Moment::Service => {
                until("the driver is ready", || {
                    let is_there = node::is_ready() && runtime.wait_for_plugin(Duration::ZERO);
                    if is_there { Ok(()) } else { Err("it is not".to_owned()) }
                });
                self.cycle
            }
        };
        thread::sleep(length.mul_f64(self.rng.f64()));
    }

    fn kill(&mut self, driver: &mut Process, whereabouts: &[Where; 2]) {
        let during = self.next();
        driver.kill().unwrap();
        driver.start().unwrap();
        self.killed += 1;
        for there in whereabouts {
            *self.moments.entry(moment(there.stage(), during)).or_default() += 1;
        }
    }

    #[expect(clippy::print_stdout, reason = "what the storm was like is of interest")]
    fn tell(&self, sandboxes: usize, sent: u64) {
        let Self { seed, start, cycle, killed, moments, .. } = self;
        println!(
            "ring: WEIR_SEED={seed}: {killed} kills, start {start:?}, cycle {cycle:?}, {sandboxes} \
             sandboxes, {sent} datagrams there and back; what pods were at: {moments:?}"
        );
    }
}

/// Has the pods end also where the one who kills panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn nature(nth: usize) -> Nature {
    if nth == 0 { Nature::Veth } else { Nature::Macvlan }
}

/// A macvlan has another address each time, which the wire would learn by and by.
fn forget_neighbors(node: &Node) {
    let flush = || Command::new("ip").args(["neighbour", "flush", "dev", "wire2"]).status();
    assert!(node.network.wire().run(|_| flush()).unwrap().unwrap().success());
}

/// One undisturbed cycle of each pod, in which it can be talked to.
fn calm(node: &Node, pods: &[Deployed; 2]) {
    for (nth, pod) in pods.iter().enumerate() {
        let whereabouts = Where::default();
        let mut life = Life::new(Machine::of(node), pod, nature(nth), &whereabouts);
        life.once(|netns| {
            forget_neighbors(node);
            let echo = answer_in(netns);
            talk(node, if nth == 0 { 1 } else { 2 });
            echo.stop();
        });
        assert_eq!(whereabouts.stage(), Stage::Rest);
    }
}
