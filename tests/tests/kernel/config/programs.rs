//! Programs of others are detached, ours stay.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{Program, SchedClassifier, TcAttachType, Xdp, XdpMode};
use common::names;
use driver::model::{DatapathSpec, IfIndex, OtherPrograms};
use driver::node::Node as _;
use driver::plan::{Step, Was};
use driver::sys::bpf::{self, Place};
use driver::sys::netlink::{Netlink, Side};

use super::stage::{IN_POD, ON_HOST, Stage, on_host};
use crate::bench::run;
use crate::datapath::{has_tcx, id, spec, strangers, tc};

/// What somebody else sees at an interface: programs of XDP, of TCX, of filters.
fn seen(stage: &mut Stage) -> (usize, usize, usize) {
    let place = stage.place();
    let at = stage.in_pod();
    let index = stage.state(&at).index;
    let xdp = usize::from(!stage.seen(&at).link["xdp"].is_null());
    stage.inside(&place, || {
        let netlink = Netlink::open().unwrap();
        let sides = [Side::Ingress, Side::Egress];
        let filters = sides.map(|side| netlink.bpf_filters(index, side).unwrap().len());
        let tcx = [Place::TcxIngress, Place::TcxEgress];
        let tcx = if has_tcx() {
            tcx.map(|place| bpf::chain(index, place).unwrap().len())
        } else {
            [0; 2]
        };
        (xdp, tcx.iter().sum(), filters.iter().sum())
    })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Program {
    ebpf.program_mut(name).unwrap()
}

/// By netlink, without a link. The second program is attached by a filter.
fn attach_without_links(stage: &Stage, ebpf: &mut Ebpf, index: IfIndex) {
    let directory = tempfile::tempdir().unwrap();
    bpf::mount_bpffs(directory.path()).unwrap();
    let pin = directory.path().join("xdp");
    let xdp: &mut Xdp = program(ebpf, names::XDP).try_into().unwrap();
    xdp.pin(&pin).unwrap();
    let tc: &SchedClassifier = (&*program(ebpf, names::INGRESS)).try_into().unwrap();
    let fd = tc.fd().unwrap().as_fd();
    let id = tc.info().unwrap().id();
    let pin = pin.to_str().unwrap();
    stage.inside(&stage.place(), || {
        run("ip", &["link", "set", "dev", IN_POD, "xdpgeneric", "pinned", pin]);
        let netlink = Netlink::open().unwrap();
        netlink.add_clsact(index).unwrap();
        netlink.put_filter(index, Side::Egress, "other", fd).unwrap();
        if has_tcx() {
            bpf::attach_program(index, Place::TcxEgress, id).unwrap();
        }
    });
    nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

/// By links, as aya makes them, which end with what is answered.
fn attach_by_links(stage: &Stage, ebpf: &mut Ebpf) {
    stage.inside(&stage.place(), || {
        let xdp: &mut Xdp = program(ebpf, names::XDP).try_into().unwrap();
        xdp.attach(IN_POD, XdpMode::Skb).unwrap();
        if has_tcx() {
            let tc: &mut SchedClassifier = program(ebpf, names::EGRESS).try_into().unwrap();
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            tc.attach_with_options(IN_POD, TcAttachType::Ingress, options).unwrap();
        }
    });
}

/// A pod with our datapath, and programs of somebody else.
fn furnished(test: impl FnOnce(&mut Stage, &DatapathSpec, Ebpf) + Send) {
    on_host(|stage| {
        let spec = spec(tc(), None);
        let interface = ON_HOST.parse().unwrap();
        let install = Step::InstallDatapath { spec: spec.clone(), interface };
        stage.twice(&install);
        stage.enter_pod();
        let at = stage.in_pod();
        stage.node.apply(&Step::AttachFilters { spec: spec.clone(), at }).unwrap();
        let ebpf = strangers(&spec);
        test(stage, &spec, ebpf);
        stage.node.apply(&Step::RemoveDatapath { id: spec.id }).unwrap();
    });
}

fn detach(stage: &Stage, programs: OtherPrograms) -> Step {
    Step::DetachPrograms { at: stage.in_pod(), programs, ours: id() }
}

/// Ours are at TCX, or without it among the filters.
fn ours() -> (usize, usize, usize) {
    if has_tcx() { (0, 2, 0) } else { (0, 0, 2) }
}

fn and(more: (usize, usize, usize)) -> (usize, usize, usize) {
    let tcx = if has_tcx() { more.1 } else { 0 };
    (ours().0 + more.0, ours().1 + tcx, ours().2 + more.2)
}

#[test]
fn programs_without_links_are_detached() {
    furnished(|stage, _, mut ebpf| {
        let at = stage.in_pod();
        let index = stage.state(&at).index;
        assert_eq!(seen(stage), ours());
        if has_tcx() {
            attach_without_links(stage, &mut ebpf, index);
            assert_eq!(seen(stage), and((1, 1, 1)));
        }
        let step = detach(stage, OtherPrograms::All);
        if has_tcx() {
            let was = stage.twice(&step);
            assert_eq!(step.undo(&was), None, "there is no way back");
        }
        assert_eq!(stage.node.apply(&step).unwrap(), Was::Same);
        assert_eq!(seen(stage), ours());
    });
}

#[test]
fn programs_with_links_are_detached() {
    furnished(|stage, _, mut ebpf| {
        attach_by_links(stage, &mut ebpf);
        assert_eq!(seen(stage), and((1, 1, 0)));
        let step = detach(stage, OtherPrograms::All);
        stage.twice(&step);
        assert_eq!(seen(stage), ours());
    });
}

#[test]
fn programs_are_detached_by_name_and_others_are_left() {
    furnished(|stage, _, mut ebpf| {
        attach_by_links(stage, &mut ebpf);
        let named = |name: &str| OtherPrograms::Named(vec![name.to_owned()]);
        let step = detach(stage, named("nobody"));
        assert_eq!(stage.node.apply(&step).unwrap(), Was::Same);
        // The kernel's name; ours has the same and stays.
        let step = detach(stage, named(names::EGRESS));
        assert_eq!(stage.node.apply(&step).unwrap() == Was::Otherwise, has_tcx());
        assert_eq!(seen(stage), and((1, 0, 0)));
        stage.twice(&detach(stage, named(names::XDP)));
        assert_eq!(seen(stage), ours());
    });
}
