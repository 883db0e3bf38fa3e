//! Programs that others have put on an interface.

use std::process::Command;

use aya::programs::tc::{self, NlOptions, TcAttachOptions};
use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::json;
use tests::node::Node;
use tests::runtime::Options;

use super::{attributes, become_dranet, interface, run};
use crate::datapath::{spec, strangers, tc as tc_hook};
use crate::driver::configured::{programs_at_tcx, stranger};
use crate::driver::world::{nothing_is_left, on_a_node, until};

/// The names that a list of programs has, once it has any.
fn names(node: &Node, list: &str) -> String {
    until("the program is published", || {
        let found = attributes(node, "dummy0");
        let name = found.get(&format!("dra.net/{list}")).and_then(|it| it.string.clone());
        let is_told = found["dra.net/ebpf"].bool == Some(true);
        name.filter(|_| is_told).ok_or_else(|| format!("{found:?}"))
    })
}

/// Somebody else's classifier on an interface, as `tc filter add … ingress bpf direct-action` puts it.
fn classifier(interface: &str) {
    tc::qdisc_add_clsact(interface).unwrap();
    let mut ebpf = strangers(&spec(tc_hook(), None));
    let program: &mut SchedClassifier =
        ebpf.program_mut(common::names::EGRESS).unwrap().try_into().unwrap();
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let link = program.attach_with_options(interface, TcAttachType::Ingress, options).unwrap();
    // It stays when the program's own descriptor is closed, as tc leaves it.
    std::mem::forget(program.take_link(link).unwrap());
}

#[test]
fn bpf_filter_attributes() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &[]);
        become_dranet(node);
        classifier("dummy0");
        assert_eq!(names(node, "tcFilterNames"), "weir_egress");
    });
}

#[test]
fn bpf_programs_are_removed() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &[]);
        classifier("dummy0");
        let _stranger = stranger("dummy0");
        let wishes = json!({ "interface": { "disableEbpfPrograms": true } });
        let (pod, netns) = run(node, "pod-ebpf", &[("dummy0", wishes)]);
        // Ours are there, one for each direction, and nobody else's.
        assert_eq!(netns.run(|_| programs_at_tcx("dummy0")).unwrap(), [1, 1]);
        let filters = netns.run(|_| {
            let shown =
                Command::new("tc").args(["filter", "show", "dev", "dummy0", "ingress"]).output();
            shown.unwrap().stdout
        });
        assert_eq!(String::from_utf8(filters.unwrap()).unwrap(), "");
        drop(netns);
        pod.end(node);
        nothing_is_left();
    });
}

#[test]
fn tcx_bpf_filter_attributes() {
    on_a_node(0, Options::default(), |node| {
        interface("dummy0", &[]);
        become_dranet(node);
        assert_eq!(attributes(node, "dummy0")["dra.net/ebpf"].bool, Some(false));
        // The interface is not touched, so that no event tells of the program.
        let stranger = stranger("dummy0");
        assert_eq!(names(node, "tcxProgramNames"), "weir_egress");
        drop(stranger);
        until("it is gone", || {
            let found = attributes(node, "dummy0");
            if found["dra.net/ebpf"].bool == Some(false) { Ok(()) } else { Err(String::new()) }
        });
    });
}
