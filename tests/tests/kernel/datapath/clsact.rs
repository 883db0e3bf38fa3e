//! Programs as filters of `clsact`, as on kernels without TCX; this kernel takes both.

use std::thread;

use aya::programs::XdpMode;
use driver::cdi::{CdiDir, Gate};
use driver::datapath::{CounterSource as _, Datapath, DatapathError, MapCounters, ahead, programs};
use driver::model::{
    Action, Ahead, By, DatapathSpec, DefaultAction, EgressHook, IngressHook, InterfaceState, Phase,
    Place, Protocol,
};
use driver::node::{LinuxNode, Node as _};
use driver::plan::{self, DatapathState, Observed, Step, Subject, Was};
use driver::sys::netlink::{FilterFacts, Netlink, Side};

use super::needs_tcx::ahead::{Stranger, record};
use super::wire::{Bench, NIC, POD_ADDRESSES, WIRE_ADDRESSES, index};
use super::{both, id, protocol, rule, spec, verdict};
use crate::bench::run;

const SIDES: [Side; 2] = [Side::Ingress, Side::Egress];

fn filtering() -> DatapathSpec {
    let deny = rule(Action::Deny, &[], Some(Protocol::Udp), &[(7001, 7001)]);
    spec(IngressHook::Clsact, Some(both(DefaultAction::Allow, vec![deny])))
}

fn installed(bench: &Bench, spec: &DatapathSpec) -> Datapath {
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    bench.host.run(|| datapath.install(spec, &Bench::nic()).unwrap());
    datapath
}

/// What is at our places of an interface.
fn filters(netlink: &Netlink, name: &str) -> [Option<FilterFacts>; 2] {
    SIDES.map(|side| netlink.filter(index(netlink, name), side).unwrap())
}

fn names(filters: [Option<FilterFacts>; 2]) -> [Option<String>; 2] {
    filters.map(|filter| filter.map(|filter| filter.name))
}

const NONE: [Option<FilterFacts>; 2] = [None, None];

fn ours() -> [Option<String>; 2] {
    ["weir_ingress", "weir_egress"].map(|name| Some(name.to_owned()))
}

#[test]
fn filters_do_not_travel() {
    let bench = Bench::new(1500);
    let spec = filtering();
    let datapath = installed(&bench, &spec);
    let host = bench.host.netlink();
    let nic = index(&host, NIC);
    assert_eq!(filters(&host, NIC), NONE, "installing attaches nothing");

    assert_eq!(datapath.attach_filters(&spec, &host, nic).unwrap(), Was::Otherwise);
    assert_eq!(datapath.attach_filters(&spec, &host, nic).unwrap(), Was::Same);
    assert_eq!(names(filters(&host, NIC)), ours());
    bench.move_to_pod();
    let pod = bench.pod.netlink();
    assert_eq!(filters(&pod, "eth7"), NONE);

    // Neither do they on the way back, which is how they end with a pod.
    datapath.attach_filters(&spec, &pod, index(&pod, "eth7")).unwrap();
    assert_eq!(names(filters(&pod, "eth7")), ours());
    bench.move_home();
    assert_eq!(filters(&host, NIC), NONE);
}

#[test]
fn xdp_of_the_pod_is_before_our_filters() {
    let bench = Bench::new(1500);
    let spec = filtering();
    let datapath = installed(&bench, &spec);
    bench.move_to_pod_with(&datapath, &spec);
    let record = record(&bench, &spec);
    let look = || ahead(bench.bpffs(), &record).unwrap();
    // Nobody can tell whether other filters are.
    assert_eq!(look(), Ahead { ingress: None, egress: None });

    let mut theirs = Stranger::new();
    theirs.attach_xdp(&bench, XdpMode::Driver);

    assert_eq!(look(), Ahead { ingress: Some(vec!["weir_xdp".to_owned()]), egress: None });
}

#[test]
fn only_our_filters_are_detached_and_the_qdisc_stays() {
    let bench = Bench::new(1500);
    let spec = filtering();
    let datapath = installed(&bench, &spec);
    bench.move_to_pod();
    let pod = bench.pod.netlink();
    let eth7 = index(&pod, "eth7");
    assert_eq!(datapath.detach_filters(&spec, &pod, eth7).unwrap(), Was::Same);
    datapath.attach_filters(&spec, &pod, eth7).unwrap();

    assert_eq!(datapath.detach_filters(&spec, &pod, eth7).unwrap(), Was::Otherwise);
    assert_eq!(datapath.detach_filters(&spec, &pod, eth7).unwrap(), Was::Same);
    assert_eq!(filters(&pod, "eth7"), NONE);
    assert!(pod.add_clsact(eth7).unwrap_err().is_exists());
}

#[test]
fn somebody_elses_filter_in_our_place_is_refused_and_stays() {
    let bench = Bench::new(1500);
    let spec = filtering();
    let datapath = installed(&bench, &spec);
    bench.move_to_pod();
    let pod = bench.pod.netlink();
    let eth7 = index(&pod, "eth7");
    let pin = bench.bpffs().join("weir").join(id().claim.as_str()).join("nic-1/prog_egress");
    let program = driver::sys::bpf::Program::from_pin(&pin).unwrap();
    pod.add_clsact(eth7).unwrap();
    pod.put_filter(eth7, Side::Ingress, "spy", std::os::fd::AsFd::as_fd(&program)).unwrap();

    let error = datapath.attach_filters(&spec, &pod, eth7).unwrap_err();
    assert!(matches!(error, DatapathError::Occupied { .. }), "{error:?}");
    assert!(error.to_string().contains("spy"), "{error}");
    assert_eq!(datapath.detach_filters(&spec, &pod, eth7).unwrap(), Was::Same);
    assert_eq!(names(filters(&pod, "eth7")), [Some("spy".to_owned()), None]);
}

#[test]
fn what_a_pod_removed_is_put_again() {
    let bench = Bench::new(1500);
    let spec = filtering();
    let datapath = installed(&bench, &spec);
    bench.move_to_pod_with(&datapath, &spec);
    bench.pod.run(|| run("tc", &["qdisc", "delete", "dev", "eth7", "clsact"]));
    let pod = bench.pod.netlink();
    assert_eq!(filters(&pod, "eth7"), NONE);

    let was = datapath.attach_filters(&spec, &pod, index(&pod, "eth7")).unwrap();
    assert_eq!(was, Was::Otherwise);
    assert_eq!(names(filters(&pod, "eth7")), ours());
}

/// XDP in and a filter out: what hardware gets on kernels without TCX.
#[test]
fn a_link_and_a_filter_share_their_counters() {
    let bench = Bench::new(1500);
    let spec = DatapathSpec { egress: EgressHook::Clsact, ..spec(IngressHook::Xdp, None) };
    let datapath = installed(&bench, &spec);
    bench.move_to_pod_with(&datapath, &spec);
    assert_eq!(names(filters(&bench.pod.netlink(), "eth7")), [None, ours()[1].clone()]);
    let pod = Bench::listen(&bench.pod, POD_ADDRESSES[0], 7000);
    let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9000);
    let first = Bench::warm_up(&wire, &pod);

    assert_eq!(Bench::exchange(&wire, &pod, 30), 30);
    assert_eq!(Bench::exchange(&pod, &wire, 20), 20);
    let counted = MapCounters::new(bench.bpffs()).read(&id()).unwrap();
    assert_eq!(protocol(&counted.ingress, "udp"), first + 30);
    assert_eq!(protocol(&counted.egress, "udp"), 20);

    let shown = programs(bench.bpffs(), &id()).unwrap();
    let shown: Vec<_> = shown.iter().map(|it| (it.hook, it.link_id.is_some())).collect();
    assert_eq!(shown, [("xdp", true), ("egress", false)]);
    bench.pod.delete("eth7");
    assert_eq!(datapath.observe(&id()).unwrap(), DatapathState::Broken, "its link is severed");
    datapath.remove(&id()).unwrap();
    assert_eq!(bench.pins().len(), 0);
}

/// A filter gets its new program in one act: under load no packet is lost, missed or counted twice.
#[test]
fn filters_are_exchanged_under_load() {
    let bench = Bench::new(1500);
    let spec = filtering();
    let datapath = installed(&bench, &spec);
    bench.move_to_pod_with(&datapath, &spec);
    let pod = Bench::listen(&bench.pod, POD_ADDRESSES[0], 7000);
    let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9000);
    let first = Bench::warm_up(&wire, &pod);
    let before = filters(&bench.pod.netlink(), "eth7").map(|filter| filter.unwrap().program);
    // As after a kill: nothing of the former driver is left but what is pinned.
    drop(datapath);

    let arrived = thread::scope(|scope| {
        let traffic = scope.spawn(|| Bench::exchange(&wire, &pod, 2000));
        let datapath = Datapath::open(bench.bpffs()).unwrap();
        for _ in 0..5 {
            bench.replace_in_pod(&datapath, &spec);
        }
        traffic.join().unwrap()
    });

    assert_eq!(arrived, 2000);
    let counted = MapCounters::new(bench.bpffs()).read(&id()).unwrap();
    assert_eq!(protocol(&counted.ingress, "udp"), first + 2000);
    let after = filters(&bench.pod.netlink(), "eth7").map(|filter| filter.unwrap().program);
    for (before, after) in before.into_iter().zip(after) {
        assert_ne!(before, after);
    }
}

fn apply(node: &mut LinuxNode, bench: &Bench, steps: &[Step]) -> Vec<(Step, Was)> {
    bench.host.run(|| steps.iter().map(|it| (it.clone(), node.apply(it).unwrap())).collect())
}

fn seen(node: &mut LinuxNode, bench: &Bench, place: Place) -> InterfaceState {
    let subject = Subject::Interface { place, by: By::Name(Bench::nic()) };
    let observed = bench.host.run(|| node.observe(&subject).unwrap());
    let Observed::Interface(Some(state)) = observed else { panic!("{observed:?}") };
    state
}

/// The whole way by the plans that the driver makes.
#[test]
fn the_journey_there_and_back_filters_in_the_pod_and_leaves_nothing() {
    let bench = Bench::new(1500);
    let spec = filtering();
    let home = tempfile::tempdir().unwrap();
    let gate = Gate::install(home.path()).unwrap();
    let cdi = CdiDir::open(home.path(), "weir.dev", gate).unwrap();
    let mut node =
        bench.host.run(|| LinuxNode::open(Datapath::open(bench.bpffs()).unwrap(), cdi).unwrap());
    let mut record = driver::testing::record(NIC, None, Phase::Prepared);
    let before = seen(&mut node, &bench, Place::Host);
    record.before = before.clone();
    record.wishes.interface.addresses = Some(vec!["10.9.0.2/24".parse().unwrap()]);
    record.datapath = Some(spec.clone());
    apply(&mut node, &bench, &[Step::InstallDatapath { spec, interface: Bench::nic() }]);

    // A journey that is taken back at once, as after a failure of its last step.
    let netns = bench.pod.reference();
    let done = apply(&mut node, &bench, &plan::attach(&record, &netns));
    let undo: Vec<_> = done.iter().rev().filter_map(|(step, was)| step.undo(was)).collect();
    assert!(undo.iter().any(|step| step.kind() == "detach_filters"));
    apply(&mut node, &bench, &undo);
    assert_eq!(filters(&bench.host.netlink(), NIC), NONE);

    apply(&mut node, &bench, &plan::attach(&record, &netns));
    assert_eq!(names(filters(&bench.pod.netlink(), NIC)), ours());
    let pod = Bench::listen(&bench.pod, POD_ADDRESSES[0], 7000);
    let closed = Bench::listen(&bench.pod, POD_ADDRESSES[0], 7001);
    let wire = Bench::listen(&bench.wire, WIRE_ADDRESSES[0], 9000);
    Bench::warm_up(&wire, &pod);
    assert_eq!(Bench::exchange(&wire, &pod, 10), 10);
    closed.set_nonblocking(true).unwrap();
    assert_eq!(Bench::exchange(&wire, &closed, 10), 0);
    let counted = MapCounters::new(bench.bpffs()).read(&id()).unwrap();
    assert_eq!(verdict(&counted.ingress, "denied_rule"), 10);

    let inside = seen(&mut node, &bench, Place::Pod(netns.clone()));
    apply(&mut node, &bench, &plan::detach(&record, &inside, &netns));
    assert_eq!(filters(&bench.host.netlink(), NIC), NONE);
    let programs: Vec<_> =
        programs(bench.bpffs(), &id()).unwrap().iter().map(|it| it.program_id).collect();
    assert_eq!(programs.len(), 2, "it may go to a pod again");

    apply(&mut node, &bench, &[Step::RemoveDatapath { id: id() }]);
    assert_eq!(bench.pins().len(), 0);
    crate::bench::until("the programs are unloaded", || {
        !aya::programs::loaded_programs()
            .filter_map(Result::ok)
            .any(|program| programs.contains(&program.id()))
    });
}
