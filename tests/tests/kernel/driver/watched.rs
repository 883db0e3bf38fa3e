//! What the driver tells of a pod while it runs: who talks to whom, and who got in front of us.

use std::time::Instant;

use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use common::names;
use driver::datapath::load_for_test;
use driver::model::IngressHook;
use driver::sys::netns::Netns;
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::json;
use tests::node::{self, Node};
use tests::runtime::Options;

use super::look::{PLACES, weir, weir_json};
use super::world::{Deployed, answer_in, config, deploy, nothing_is_left, on_a_node, talk, until};

/// What the claim's status says of a condition of its one device.
fn condition(node: &Node, of: &Deployed, what: &str) -> Option<(String, String)> {
    let claim: ResourceClaim = node.server.object(Some("default"), &of.claim.name)?;
    let device = claim.status?.devices?.into_iter().next()?;
    let found = device.conditions?.into_iter().find(|condition| condition.type_ == what)?;
    Some((found.status, found.message))
}

fn ahead(of: &Deployed) -> Option<u64> {
    let labels = [("device", of.device(0)), ("direction", "egress")];
    node::scrape().unwrap().sum("weir_programs_ahead", &labels)
}

/// Puts a program in front of all that goes out of `net0`. It goes with the value.
fn stranger(netns: &Netns, of: &Deployed) -> aya::Ebpf {
    let spec = driver::testing::spec(of.id(0), IngressHook::Tcx);
    let mut ebpf = load_for_test(&spec).unwrap();
    let program: &mut SchedClassifier =
        ebpf.program_mut(names::INGRESS).unwrap().try_into().unwrap();
    program.load().unwrap();
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    netns
        .run(|_| program.attach_with_options("net0", TcAttachType::Egress, first).map(drop))
        .unwrap()
        .unwrap();
    ebpf
}

#[test]
fn a_program_that_gets_in_front_of_ours_is_told_of_everywhere() {
    on_a_node(3, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "tcx"))]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let says = |what, status: &str| {
            until(what, || match condition(node, &web, what) {
                Some((found, message)) if found == status => Ok(message),
                found => Err(format!("{found:?}")),
            })
        };
        says("Ready", "True");
        says("DatapathDegraded", "False");
        says("Tampered", "False");
        until("somebody has looked", || {
            ahead(&web).filter(|count| *count == 0).ok_or(String::new())
        });

        let spy = stranger(&netns, &web);
        // The driver looks every half minute, and whenever what is prepared changes.
        let other = deploy(node, "other", &[(1, config(1, "tcx"))]);
        node.prepare(&other.claims()).unwrap();

        let message = says("Tampered", "True");
        assert!(message.ends_with("egress: weir_ingress"), "{message}");
        until("the metric tells", || ahead(&web).filter(|count| *count == 1).ok_or(String::new()));
        let text = weir(&[&["inspect", "default/web"][..], &PLACES].concat());
        assert!(text.contains("\nprograms ahead  egress: weir_ingress\n"), "{text}");
        assert_eq!(condition(node, &other, "Tampered"), None, "it is not attached");

        drop(spy);
        node.unprepare(&other.claims()).unwrap();
        says("Tampered", "False");

        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}

#[test]
fn flows_tell_who_talked_to_the_pod() {
    on_a_node(1, Options::default(), |node| {
        let mut wanted = config(0, "tcx");
        wanted["ebpf"]["telemetry"] = json!("flows");
        let web = deploy(node, "web", &[(0, wanted)]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        let start = Instant::now();
        talk(node, 0);

        let arguments = ["flows", "web", "--direction", "ingress", "--sort", "packets"];
        let flows = weir_json(&[&arguments[..], &PLACES].concat());

        let flow = &flows["flows"][0];
        assert_eq!((&flow["pod"], &flow["protocol"]), (&json!("web"), &json!("udp")));
        assert_eq!(flow["source"], "198.18.0.1");
        assert_eq!(flow["destination"], "198.18.0.10");
        assert!(flow["packets"].as_u64() >= Some(50), "{flow}");
        // Ticks are coarse.
        let at_most = start.elapsed().as_secs_f64() + 0.25;
        assert!(flow["lastSeenSecondsAgo"].as_f64() <= Some(at_most), "{flow}");
        let table = weir(&[&arguments[..], &PLACES].concat());
        assert!(
            table.contains("198.18.0.10:7000") && table.contains("flows had to leave"),
            "{table}"
        );
        println!("{table}{}", weir(&[&["inspect", "default/web"][..], &PLACES].concat()));

        echo.stop();
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}
