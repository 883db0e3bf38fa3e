//! The laws of the engine: whichever step fails, and whenever the driver dies.

mod functions;
mod kept;
mod lease;
mod policy;
mod property;
mod provision;
mod shared;
mod undo;

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Engine;
use crate::attach::{AttachError, PrepareClaim, Wanted};
use crate::model::{
    BuildId, ClaimRef, DirectionFilter, IfIndex, IfName, Inherit, InterfaceWishes, MacAddr, Record,
    Route, Sandbox, Wishes,
};
use crate::state::Checkpoint;
use crate::testing::{
    Death, FakeInterface, FakeNode, Fault, World, claim, device, netns, pod, sandbox,
};

/// A driver's world: a node and a checkpoint that outlive any one driver.
struct Bench {
    node: FakeNode,
    state: TempDir,
    boot: Cell<u32>,
}

impl Bench {
    fn new() -> Self {
        let node = FakeNode::with(&["eth1", "eth2"]);
        node.add_netns(netns(100).id);
        node.add_netns(netns(200).id);
        Self { node, state: TempDir::new().unwrap(), boot: Cell::new(1) }
    }

    /// The node starts anew: nothing is left but the disk.
    fn reboot(&self) {
        *self.node.world() = Self::new().node.snapshot();
        self.boot.set(self.boot.get() + 1);
    }

    fn lose_checkpoint(&self) {
        for file in ["checkpoint.json", "checkpoint.mirror.json"] {
            std::fs::remove_file(self.state.path().join(file)).unwrap();
        }
    }

    /// Starts a driver that meets `fault`, lets it settle and has it do `work`. `None`: it died.
    fn run<T>(
        &self,
        fault: Option<Fault>,
        work: impl FnOnce(&mut Engine<FakeNode>) -> T,
    ) -> Option<T> {
        self.run_build("build-1", fault, work)
    }

    fn run_build<T>(
        &self,
        build: &str,
        fault: Option<Fault>,
        work: impl FnOnce(&mut Engine<FakeNode>) -> T,
    ) -> Option<T> {
        let life = AssertUnwindSafe(|| {
            let boot = format!("boot-{}", self.boot.get());
            let (checkpoint, _) = Checkpoint::open(self.state.path(), &boot).unwrap();
            let build = BuildId(build.to_owned());
            let mut engine = Engine::new(self.node.meeting(fault), checkpoint, build);
            engine.settle();
            work(&mut engine)
        });
        match panic::catch_unwind(life) {
            Ok(done) => Some(done),
            Err(cause) if cause.is::<Death>() => None,
            Err(cause) => panic::resume_unwind(cause),
        }
    }

    fn records(&self) -> Vec<Record> {
        crate::state::read_records(self.state.path()).unwrap()
    }

    fn phases(&self) -> Vec<&'static str> {
        self.records().iter().map(|record| record.phase.name()).collect()
    }
}

fn wishes() -> Wishes {
    Wishes {
        interface: InterfaceWishes {
            addresses: Some(vec!["198.51.100.10/24".parse().unwrap()]),
            mtu: Some(1400),
            mac: Some(MacAddr([2, 0, 0, 0, 1, 1])),
            inherit: Inherit::None,
            ..InterfaceWishes::default()
        },
        routes: vec![Route {
            gateway: Some("198.51.100.1".parse().unwrap()),
            ..Route::to("203.0.113.0/24".parse().unwrap())
        }],
        ..Wishes::default()
    }
}

/// Both NICs for one pod, each under its own name there.
fn wanted(claim: ClaimRef) -> PrepareClaim {
    let device = |name: &str, inside: &str| {
        let mut wishes = wishes();
        wishes.interface.name = Some(inside.parse::<IfName>().unwrap());
        // One destination leads through one interface.
        if name == "eth2" {
            wishes.routes[0].destination = "203.0.114.0/24".parse().unwrap();
        }
        Wanted {
            requests: vec!["nic".to_owned()],
            pool: "node-a".to_owned(),
            name: name.parse().unwrap(),
            share: None,
            found: Some(device(name)),
            wishes,
        }
    };
    PrepareClaim {
        claim,
        pod: pod("pod-a"),
        devices: vec![device("eth1", "net1"), device("eth2", "net2")],
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

fn prepare(engine: &mut Engine<FakeNode>) -> Result<Vec<Record>, AttachError> {
    engine.prepare(&wanted(claim("claim-a")))
}

fn attach(engine: &mut Engine<FakeNode>) -> Result<Vec<Record>, AttachError> {
    engine.attach(&pod_a(), soon())
}

fn pod_a() -> Sandbox {
    sandbox("sandbox-1", "pod-a", 100)
}

/// The host's interfaces and no datapaths: the world before anybody asked for anything.
fn untouched(world: &World) -> bool {
    let fresh = Bench::new().node.snapshot();
    *world == World { interfaces: world.interfaces.clone(), ..fresh.clone() }
        && world.interfaces[&None] == fresh.interfaces[&None]
}

fn in_pod(world: &World, inode: u64) -> Vec<String> {
    world.interfaces[&Some(netns(inode).id)].keys().map(ToString::to_string).collect()
}

#[test]
fn devices_travel_into_the_sandbox_and_back() {
    let bench = Bench::new();
    let engine = bench.run(None, |engine| {
        assert_eq!(prepare(engine).unwrap().len(), 2);
        let prepared = bench.node.snapshot();
        assert_eq!(prepared.datapaths.len(), 2);

        assert_eq!(attach(engine).unwrap().len(), 2);
        let attached = bench.node.snapshot();
        assert_eq!(in_pod(&attached, 100), ["net1", "net2"]);
        let inside = &attached.interfaces[&Some(netns(100).id)][&"net1".parse().unwrap()];
        assert!(inside.up);
        assert_eq!(inside.mtu, 1400);
        assert_eq!(inside.mac, MacAddr([2, 0, 0, 0, 1, 1]));
        assert_eq!(inside.addresses, ["198.51.100.10/24".parse().unwrap()]);
        assert_eq!(inside.routes, wishes().routes);

        assert_eq!(engine.detach(&pod_a()).len(), 2);
        assert_eq!(bench.node.snapshot(), prepared);

        engine.unprepare(&claim("claim-a").uid).unwrap();
        assert!(untouched(&bench.node.snapshot()));
    });
    assert!(engine.is_some());
    assert!(bench.records().is_empty());
}

#[test]
fn every_call_can_be_repeated() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        let prepared = prepare(engine).unwrap();
        assert_eq!(prepare(engine).unwrap(), prepared);
        let attached = attach(engine).unwrap();
        assert_eq!(attach(engine).unwrap(), attached);
        assert_eq!(prepare(engine).unwrap(), attached);
        assert_eq!(engine.detach(&pod_a()).len(), 2);
        assert_eq!(engine.detach(&pod_a()).len(), 0);
        engine.unprepare(&claim("claim-a").uid).unwrap();
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert!(untouched(&bench.node.snapshot()));
}

#[test]
fn a_failed_prepare_leaves_no_trace() {
    for failing in 0..2 {
        let bench = Bench::new();
        let error = bench.run(Some(Fault::FailAt(failing)), |e| prepare(e).unwrap_err()).unwrap();
        assert!(matches!(error, AttachError::Step { .. }), "{error}");
        assert!(untouched(&bench.node.snapshot()), "after step {failing}");
        assert!(bench.records().is_empty(), "after step {failing}");
    }
}

/// Whichever step fails, of whichever device, the node looks as if nobody had tried.
#[test]
fn a_failed_attach_leaves_no_trace() {
    attach_without_a_trace(Bench::new);
}

/// Attaches two devices, and has each step fail in turn.
fn attach_without_a_trace(new: impl Fn() -> Bench) {
    let mut failing = 0;
    loop {
        let bench = new();
        bench.run(None, |engine| prepare(engine).map(drop).unwrap());
        let before = bench.node.snapshot();
        let Err(error) = bench.run(Some(Fault::FailAt(failing)), attach).unwrap() else { break };
        assert!(
            matches!(&error, AttachError::Step { residue, .. } if residue.is_empty()),
            "step {failing}: {error}"
        );
        assert_eq!(bench.node.snapshot(), before, "after step {failing}");
        assert_eq!(bench.phases(), ["prepared", "prepared"], "after step {failing}");
        failing += 1;
    }
    assert!(failing >= 16, "two devices take more than {failing} steps");
}

/// Whenever the driver dies while it attaches, its next start settles the devices one way or the
/// other, and a sandbox can be started.
#[test]
fn a_crash_at_any_step_of_an_attach_is_settled_by_the_next_start() {
    crash_everywhere(|bench, fault| {
        bench.run(None, |engine| prepare(engine).map(drop).unwrap());
        let before = bench.node.snapshot();
        let survived = bench.run(fault, |engine| attach(engine).map(drop).unwrap()).is_some();

        bench.run(None, |_| ());

        // Only containers had to be let in, or it was done: then the start goes on where it ended.
        if bench.phases() != ["attached"; 2] {
            assert!(!survived, "{fault:?}");
            assert_eq!(bench.phases(), ["prepared"; 2], "{fault:?}");
            assert_eq!(bench.node.snapshot(), before, "{fault:?}");
            bench.run(None, |engine| attach(engine).map(drop).unwrap()).unwrap();
        }
        assert_eq!(in_pod(&bench.node.snapshot(), 100), ["net1", "net2"], "{fault:?}");
        assert_eq!(bench.node.snapshot().cdi.len(), 1, "{fault:?}");
        survived
    });
}

#[test]
fn a_crash_at_any_step_of_a_detach_is_settled_by_the_next_start() {
    crash_everywhere(|bench, fault| {
        bench.run(None, |engine| prepare(engine).map(drop).unwrap());
        let before = bench.node.snapshot();
        bench.run(None, |engine| attach(engine).map(drop).unwrap());
        let survived = bench.run(fault, |engine| drop(engine.detach(&pod_a()))).is_some();

        // The first device may be detaching while nobody has touched the second yet; the runtime
        // repeats the stop, or its list of sandboxes tells.
        bench.run(None, |engine| engine.synchronize(&[]));

        assert_eq!(bench.phases(), ["prepared"; 2], "{fault:?}");
        assert_eq!(bench.node.snapshot(), before, "{fault:?}");
        survived
    });
}

#[test]
fn a_crash_at_any_step_of_a_prepare_is_settled_by_the_next_start() {
    crash_everywhere(|bench, fault| {
        let survived = bench.run(fault, |engine| prepare(engine).map(drop).unwrap()).is_some();
        bench.run(None, |_| ());
        if !survived {
            assert!(untouched(&bench.node.snapshot()), "{fault:?}");
            assert!(bench.records().is_empty(), "{fault:?}");
        }
        bench.run(None, |engine| assert_eq!(prepare(engine).unwrap().len(), 2)).unwrap();
        survived
    });
}

#[test]
fn a_crash_at_any_step_of_an_unprepare_can_be_repeated() {
    crash_everywhere(|bench, fault| {
        let uid = claim("claim-a").uid;
        bench.run(None, |engine| prepare(engine).map(drop).unwrap());
        let survived = bench.run(fault, |engine| engine.unprepare(&uid).unwrap()).is_some();
        bench.run(None, |engine| engine.unprepare(&uid).unwrap()).unwrap();
        assert!(untouched(&bench.node.snapshot()), "{fault:?}");
        assert!(bench.records().is_empty(), "{fault:?}");
        survived
    });
}

/// A driver that is made to die says nothing; whatever else panics still does.
fn silence_deaths() {
    let quiet = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Death>() {
            quiet(info);
        }
    }));
}

/// Runs `story` with a death before and after each step in turn, until one comes too late to matter.
fn crash_everywhere(story: impl Fn(&Bench, Option<Fault>) -> bool) {
    silence_deaths();
    for moment in [Fault::DieBefore as fn(usize) -> Fault, Fault::DieAfter] {
        let mut step = 0;
        while !story(&Bench::new(), Some(moment(step))) {
            step += 1;
        }
        assert!(step >= 2, "no step was ever reached");
    }
}

#[test]
fn a_device_serves_one_claim_at_a_time() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        let error = engine.prepare(&wanted(claim("claim-b"))).unwrap_err();
        assert_eq!(error.reason(), "in_use");
        assert!(error.to_string().contains("eth2 is in use by claim default/claim-a"), "{error}");
    });
}

#[test]
fn what_cannot_be_had_is_refused_before_anything_is_touched() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        let mut wanted = wanted(claim("claim-a"));
        wanted.devices[1].found.as_mut().unwrap().encapsulation = "infiniband".to_owned();
        wanted.devices[1].wishes.ebpf.filter = Some(crate::model::Filter {
            ingress: Some(DirectionFilter {
                default_action: crate::model::DefaultAction::Allow,
                stateful: false,
                rules: Vec::new(),
            }),
            egress: None,
        });
        let error = engine.prepare(&wanted).unwrap_err();
        assert!(matches!(error, AttachError::Impossible { .. }), "{error}");
        wanted.devices[0].found = None;
        let error = engine.prepare(&wanted).unwrap_err();
        assert_eq!(
            error.to_string(),
            "device eth1 is not on this node, or not offered any more; device eth2: ebpf.hook: eth2 is no Ethernet interface",
            "all of it is told at once"
        );
    });
    assert!(untouched(&bench.node.snapshot()));
    assert!(bench.records().is_empty());
}

#[test]
fn a_pod_on_the_host_network_is_refused_and_a_pod_without_claims_is_not_ours() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        let host = Sandbox { netns: None, ..pod_a() };
        let error = engine.attach(&host, soon()).unwrap_err();
        assert!(matches!(error, AttachError::HostNetwork { .. }), "{error}");
        assert!(engine.attach(&sandbox("s", "pod-b", 200), soon()).unwrap().is_empty());
    });
}

#[test]
fn a_hook_that_comes_too_late_changes_nothing() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        let before = bench.node.snapshot();
        let error = engine.attach(&pod_a(), Instant::now()).unwrap_err();
        assert!(matches!(error, AttachError::TooLate { .. }), "{error}");
        assert_eq!(bench.node.snapshot(), before);
    });
    assert_eq!(bench.phases(), ["prepared"; 2]);
}

#[test]
fn a_second_sandbox_of_the_pod_takes_the_devices_over_and_the_late_stop_of_the_first_is_ignored() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        attach(engine).unwrap();
        engine.attach(&sandbox("sandbox-2", "pod-a", 200), soon()).unwrap();
        assert!(engine.detach(&pod_a()).is_empty());
    });
    let world = bench.node.snapshot();
    assert_eq!(in_pod(&world, 200), ["net1", "net2"]);
    assert!(in_pod(&world, 100).is_empty());
}

#[test]
fn unprepare_takes_a_device_back_whose_stop_was_missed() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        attach(engine).unwrap();
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert!(untouched(&bench.node.snapshot()));
}

#[test]
fn a_virtual_device_that_died_with_its_namespace_is_settled() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        attach(engine).unwrap();
        bench.node.remove_netns(netns(100).id);
        engine.detach(&pod_a());
        let error = engine.attach(&sandbox("sandbox-2", "pod-a", 200), soon()).unwrap_err();
        assert!(matches!(error, AttachError::NoSuchDevice { .. }), "{error}");
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    assert!(bench.records().is_empty());
    assert!(bench.node.snapshot().datapaths.is_empty());
}

#[test]
fn a_new_build_replaces_programs_and_an_old_one_leaves_them() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        attach(engine).unwrap();
    });
    // The fault would strike at the first step, so none is made.
    assert!(bench.run(Some(Fault::DieBefore(0)), |_| ()).is_some());
    assert!(bench.run_build("build-2", Some(Fault::DieBefore(0)), |_| ()).is_none());
    assert!(bench.run_build("build-2", None, |_| ()).is_some());
    assert!(bench.records().iter().all(|r| r.build == BuildId("build-2".to_owned())));
    assert_eq!(bench.phases(), ["attached"; 2]);
}

#[test]
fn a_claim_that_serves_the_next_pod_follows_it() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        let mut next = wanted(claim("claim-a"));
        next.pod = pod("pod-b");
        engine.prepare(&next).unwrap();
        let attached = engine.attach(&sandbox("sandbox-2", "pod-b", 200), soon()).unwrap();
        assert_eq!(attached.len(), 2);
    });
}

#[test]
fn a_device_gets_its_datapath_back_or_is_not_attached() {
    let bench = Bench::new();
    bench.run(None, |engine| prepare(engine).map(drop).unwrap());
    bench.node.world().datapaths.clear();
    // The start mends; so does an attach.
    bench.run(None, |engine| {
        assert_eq!(bench.node.snapshot().datapaths.len(), 2);
        bench.node.world().datapaths.clear();
        attach(engine).unwrap();
        assert_eq!(bench.node.snapshot().datapaths.len(), 2);
        engine.detach(&pod_a());
    });
    // First what is left is removed, then the install fails.
    bench.run(Some(Fault::FailAt(1)), |engine| {
        bench.node.world().datapaths.clear();
        let error = attach(engine).unwrap_err();
        assert!(matches!(error, AttachError::NoDatapath { .. }), "{error}");
    });
    assert_eq!(bench.phases(), ["prepared"; 2]);
}

#[test]
fn the_next_pod_of_a_claim_gets_what_the_former_one_still_holds() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        prepare(engine).unwrap();
        attach(engine).unwrap();
        let mut next = wanted(claim("claim-a"));
        next.pod = pod("pod-b");
        engine.prepare(&next).unwrap();
        engine.attach(&sandbox("sandbox-2", "pod-b", 200), soon()).unwrap();
    });
    assert_eq!(in_pod(&bench.node.snapshot(), 200), ["net1", "net2"]);
}

#[test]
fn hardware_that_is_nowhere_is_waited_for_and_comes_home() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        let mut wanted = wanted(claim("claim-a"));
        for device in &mut wanted.devices {
            device.found.as_mut().unwrap().is_virtual = false;
        }
        for interface in bench.node.world().interfaces.get_mut(&None).unwrap().values_mut() {
            interface.is_hardware = true;
        }
        engine.prepare(&wanted).unwrap();
        attach(engine).unwrap();
        // The kernel takes the namespace down in the background: for a while the interface is
        // neither here nor there, then it is on the host under the name from the pod.
        let taken = bench.node.world().interfaces.remove(&Some(netns(100).id)).unwrap();
        assert!(engine.detach(&pod_a()).is_empty());
        let error = engine.unprepare(&claim("claim-a").uid).unwrap_err();
        assert!(matches!(error, AttachError::Stranded { .. }), "{error}");
        let fallen = taken.into_iter().map(|(name, mut interface)| {
            (interface.up, interface.addresses, interface.routes) = Default::default();
            (name, interface)
        });
        bench.node.world().interfaces.get_mut(&None).unwrap().extend(fallen);
        engine.unprepare(&claim("claim-a").uid).unwrap();
    });
    let host = &bench.node.snapshot().interfaces[&None];
    let fresh = &Bench::new().node.snapshot().interfaces[&None];
    for name in ["eth1", "eth2"] {
        let name: IfName = name.parse().unwrap();
        let fresh = FakeInterface { is_hardware: true, ..fresh[&name].clone() };
        assert_eq!(host[&name], fresh);
    }
    assert!(bench.records().is_empty());
}

#[test]
fn what_a_lost_checkpoint_left_is_swept() {
    let bench = Bench::new();
    bench.run(None, |engine| prepare(engine).map(drop).unwrap());
    bench.lose_checkpoint();
    bench.run(None, |engine| {
        assert_eq!(bench.node.snapshot().datapaths.len(), 2);
        engine.unprepare(&claim("claim-a").uid).unwrap();
        assert!(bench.node.snapshot().datapaths.is_empty());
    });
    bench.run(None, |engine| prepare(engine).map(drop).unwrap());
    bench.lose_checkpoint();
    bench.run(None, Engine::sweep);
    assert!(untouched(&bench.node.snapshot()));
}

#[test]
fn names_that_cannot_all_be_had_in_one_pod_are_refused() {
    let bench = Bench::new();
    bench.run(None, |engine| {
        for (first, second) in [("net1", "net1"), ("net1", "eth0")] {
            let mut wanted = wanted(claim("claim-a"));
            for (device, name) in wanted.devices.iter_mut().zip([first, second]) {
                device.wishes.interface.name = Some(name.parse().unwrap());
            }
            let error = engine.prepare(&wanted).unwrap_err();
            assert!(error.to_string().contains(second), "{error}");
        }
    });
    assert!(untouched(&bench.node.snapshot()));
}
