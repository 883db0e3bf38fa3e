//! The life of pins and links.

use driver::datapath::{
    CounterSource as _, Datapath, DatapathError, HookFacts, MapCounters, programs,
};
use driver::model::{AttachmentId, DatapathSpec, EgressHook, IngressHook};
use driver::plan::{DatapathState, Was};

use super::wire::{Bench, NIC};
use super::{id, spec, tc};

/// What this kernel can do. Where it has no TCX, some hooks have a pinned program in the place of a
/// link; `clsact.rs` tests the rest of their life.
fn all() -> [IngressHook; 3] {
    [IngressHook::Xdp, IngressHook::XdpFrags, tc()]
}

/// Whether an end of the interface can be noticed: without a visit, only by links.
fn has_links(ingress: IngressHook) -> bool {
    ingress != IngressHook::Clsact
}

/// What holds the program of the way out.
fn egress_pin(spec: &DatapathSpec) -> &'static str {
    match spec.egress {
        EgressHook::Tcx => "egress",
        EgressHook::Clsact => "prog_egress",
    }
}

fn install(bench: &Bench, datapath: &Datapath, spec: &DatapathSpec) -> Was {
    bench.host.run(|| datapath.install(spec, &Bench::nic()).unwrap())
}

#[test]
fn a_datapath_comes_and_goes_without_a_trace() {
    for ingress in all() {
        let bench = Bench::new(1500);
        let datapath = Datapath::open(bench.bpffs()).unwrap();
        let spec = spec(ingress, None);
        assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Absent);
        // Several times: a hook that is detached some time later would refuse the next with EBUSY.
        for _ in 0..3 {
            assert_eq!(install(&bench, &datapath, &spec), Was::Otherwise);
            assert_eq!(install(&bench, &datapath, &spec), Was::Same);
            assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Attached);
            assert_eq!(datapath.remove(&id()).unwrap(), Was::Otherwise);
            assert_eq!(datapath.remove(&id()).unwrap(), Was::Same);
            assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Absent);
        }
        assert_eq!(bench.pins(), [""; 0].map(std::path::PathBuf::from));
    }
}

#[test]
fn a_refused_install_leaves_nothing_and_harms_nobody() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let first = spec(IngressHook::Xdp, None);
    install(&bench, &datapath, &first);
    let pins = bench.pins();
    let other = AttachmentId { device: "nic-2".parse().unwrap(), ..id() };
    let second = DatapathSpec { id: other.clone(), ..first.clone() };

    let error = bench.host.run(|| datapath.install(&second, &Bench::nic()).unwrap_err());

    assert!(matches!(error, DatapathError::Attach { .. }), "{error:?}");
    assert_eq!(datapath.observe(&other).unwrap(), DatapathState::Absent);
    assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Attached);
    assert_eq!(bench.pins(), pins);
}

#[test]
fn xdp_is_never_generic() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let spec = spec(IngressHook::Xdp, None);

    // The loopback interface has no native XDP, and generic XDP works on it.
    let error = bench.host.run(|| datapath.install(&spec, &"lo".parse().unwrap()).unwrap_err());

    assert!(matches!(error, DatapathError::Attach { .. }), "{error:?}");
    assert_eq!(bench.pins().len(), 0);
}

#[test]
fn what_died_half_way_is_broken_and_made_whole_by_the_next_install() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let spec = spec(IngressHook::Xdp, None);
    let dir = bench.bpffs().join("weir").join(id().claim.as_str()).join(id().device.as_str());
    for missing in ["xdp", egress_pin(&spec)] {
        install(&bench, &datapath, &spec);
        std::fs::remove_file(dir.join(missing)).unwrap();
        assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Broken, "{missing}");
        assert!(matches!(datapath.replace(&spec), Err(DatapathError::NotInstalled { .. })));

        // The kernel detaches a link whose last pin is gone some time later.
        let mut tries = 0;
        while let Err(error) = bench.host.run(|| datapath.install(&spec, &Bench::nic())) {
            tries += 1;
            assert!(tries < 100, "{missing}: {error:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Attached, "{missing}");
        datapath.remove(&id()).unwrap();
    }
    std::fs::create_dir_all(&dir).unwrap();
    assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Broken, "an empty directory");
    datapath.remove(&id()).unwrap();
    assert_eq!(bench.pins().len(), 0);
}

#[test]
fn links_follow_the_interface_and_notice_its_end() {
    for ingress in all().into_iter().filter(|ingress| has_links(*ingress)) {
        let bench = Bench::new(1500);
        let datapath = Datapath::open(bench.bpffs()).unwrap();
        let spec = spec(ingress, None);
        install(&bench, &datapath, &spec);
        bench.move_to_pod();
        assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Attached);
        let facts = programs(bench.bpffs(), &id()).unwrap();
        assert_eq!(facts.len(), 2);
        let is_linked = |hook: &HookFacts| hook.hook != "egress" || spec.egress == EgressHook::Tcx;
        assert!(facts.iter().all(|hook| hook.interface.is_some() == is_linked(hook)), "{facts:?}");

        bench.pod.delete("eth7");

        assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Broken);
        assert!(matches!(datapath.replace(&spec), Err(DatapathError::Severed { .. })));
        let facts = programs(bench.bpffs(), &id()).unwrap();
        assert!(facts.iter().all(|hook| hook.interface.is_none()), "{facts:?}");
        // The counts are still there to be read.
        MapCounters::new(bench.bpffs()).read(&id()).unwrap();
        assert_eq!(datapath.remove(&id()).unwrap(), Was::Otherwise);
        assert_eq!(bench.pins().len(), 0);
    }
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();

    // The NIC is on the host, not in the pod's namespace.
    let error = bench.pod.run(|| datapath.install(&spec(tc(), None), &Bench::nic()).unwrap_err());

    assert_eq!(error.reason(), "interface");
    assert!(error.to_string().contains(NIC), "{error}");
}
