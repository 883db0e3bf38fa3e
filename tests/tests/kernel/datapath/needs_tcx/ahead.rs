//! Programs of others before ours.

use aya::Ebpf;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode};
use common::names;
use driver::datapath::{Datapath, ahead, load_for_test, programs};
use driver::model::{Ahead, By, DatapathSpec, IngressHook, Phase, Record};
use driver::sys::bpf::{self, Linked, Place};

use super::super::wire::{Bench, index};
use super::super::{id, spec};

/// Programs of somebody else, who has another build of the same.
pub(crate) struct Stranger(Ebpf);

impl Stranger {
    pub(crate) fn new() -> Self {
        Self(load_for_test(&spec(IngressHook::Tcx, None)).unwrap())
    }

    /// Attaches `name` in the pod, at `place`, in this order.
    fn attach(&mut self, bench: &Bench, name: &str, place: TcAttachType, order: LinkOrder) {
        let program: &mut SchedClassifier = self.0.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        bench.pod.run(|| {
            let options = TcAttachOptions::TcxOrder(order);
            program.attach_with_options("eth7", place, options).unwrap();
        });
    }

    /// Attaches an XDP program in the pod, as whoever opens sockets of AF_XDP there does.
    pub(crate) fn attach_xdp(&mut self, bench: &Bench, mode: XdpMode) {
        let program: &mut Xdp = self.0.program_mut(names::XDP).unwrap().try_into().unwrap();
        program.load().unwrap();
        bench.pod.run(|| program.attach("eth7", mode).map(drop).unwrap());
    }
}

/// What is recorded of `spec` once its NIC is in the pod.
pub(crate) fn record(bench: &Bench, spec: &DatapathSpec) -> Record {
    let claim = driver::model::ClaimRef { uid: id().claim, ..driver::testing::claim("nic") };
    let device = driver::model::Device { name: id().device, ..driver::testing::device("eth7") };
    let netns = bench.pod.reference();
    let inside = index(&bench.pod.netlink(), "eth7");
    Record {
        claim,
        pod: driver::testing::pod("web"),
        datapath: Some(spec.clone()),
        build: Datapath::build(),
        device,
        ..driver::testing::record("eth7", None, Phase::Attached { netns, inside })
    }
}

fn chain(bench: &Bench, place: Place) -> Vec<Linked> {
    let facts = programs(bench.bpffs(), &id()).unwrap();
    let index = facts.iter().find_map(|hook| hook.interface).unwrap();
    bench.pod.run(|| bpf::chain(index, place).unwrap())
}

#[test]
fn a_stranger_before_us_is_told_of_by_name_and_left_alone() {
    for ingress in [IngressHook::Tcx, IngressHook::Xdp] {
        let bench = Bench::new(1500);
        let datapath = Datapath::open(bench.bpffs()).unwrap();
        let spec = spec(ingress, None);
        bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
        bench.move_to_pod();
        let record = record(&bench, &spec);
        let look = || ahead(bench.bpffs(), &record).unwrap();
        assert_eq!(look(), Ahead::NOTHING);

        // Behind ours, and no business of ours.
        let (mut behind, mut before) = (Stranger::new(), Stranger::new());
        behind.attach(&bench, names::EGRESS, TcAttachType::Egress, LinkOrder::last());
        assert_eq!(look(), Ahead::NOTHING);

        // Each has the other direction's name, so that it is told from ours.
        before.attach(&bench, names::INGRESS, TcAttachType::Egress, LinkOrder::first());
        before.attach(&bench, names::EGRESS, TcAttachType::Ingress, LinkOrder::first());
        let here = [Place::TcxIngress, Place::TcxEgress].map(|place| chain(&bench, place));
        let seen = look();
        let egress = Some(vec![names::INGRESS.to_owned()]);
        let by_xdp = Vec::new();
        let by_tcx = vec![names::EGRESS.to_owned()];
        let at_ingress = if ingress == IngressHook::Tcx { by_tcx } else { by_xdp };
        assert_eq!(seen, Ahead { ingress: Some(at_ingress), egress });

        let still = [Place::TcxIngress, Place::TcxEgress].map(|place| chain(&bench, place));
        assert_eq!(still, here, "nothing was touched");
        assert_eq!(still[1].len(), 3);

        drop(before);
        assert_eq!(look(), Ahead::NOTHING);
        drop(behind);
    }
}

#[test]
fn xdp_of_the_pod_is_before_us_where_we_are_at_tcx() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let spec = spec(IngressHook::Tcx, None);
    bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
    bench.move_to_pod();
    let record = record(&bench, &spec);
    let look = || ahead(bench.bpffs(), &record).unwrap();
    for mode in [XdpMode::Driver, XdpMode::Skb] {
        assert_eq!(look(), Ahead::NOTHING);
        let (mut theirs, mut before) = (Stranger::new(), Stranger::new());
        before.attach(&bench, names::EGRESS, TcAttachType::Ingress, LinkOrder::first());
        theirs.attach_xdp(&bench, mode);

        let in_order = [names::XDP, names::EGRESS].map(ToOwned::to_owned);
        assert_eq!(look(), Ahead { ingress: Some(in_order.to_vec()), ..Ahead::NOTHING });

        let netlink = bench.pod.netlink();
        let eth7 = By::Index(index(&netlink, "eth7"));
        let still = netlink.link(&eth7).unwrap().unwrap().xdp_programs;
        assert_eq!(still.len(), 1, "it was left alone");
    }
}

#[test]
fn a_sandbox_that_is_gone_is_a_passing_thing() {
    let bench = Bench::new(1500);
    let datapath = Datapath::open(bench.bpffs()).unwrap();
    let spec = spec(IngressHook::Tcx, None);
    bench.host.run(|| datapath.install(&spec, &Bench::nic()).unwrap());
    bench.move_to_pod();
    let mut record = record(&bench, &spec);
    if let Phase::Attached { netns, .. } = &mut record.phase {
        netns.path = "/nowhere/at/all".into();
    }
    let error = ahead(bench.bpffs(), &record).unwrap_err();
    assert!(error.is_passing(), "{error}");
    bench.pod.delete("eth7");
    let error = ahead(bench.bpffs(), &record).unwrap_err();
    assert!(error.is_passing(), "{error}");
}
