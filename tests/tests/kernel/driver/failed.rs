//! What cannot be done, on the way in and on the way out.

use driver::sys::netns::Netns;
use k8s_openapi::api::events::v1::Event;
use serde_json::{Value, json};
use tests::node::{self, Node, sandbox};
use tests::runtime::Options;

use super::configured::{everything, furnish, lines};
use super::gate::assert_unresolvable;
use super::look::{PLACES, weir};
use super::snapshot::Snapshot;
use super::world::{Deployed, deploy, nothing_is_left, on_a_node, prepared_ids, until};

/// Has an event of a reason, that mentions something, told of the claim and of its pod.
fn is_told(node: &Node, of: &Deployed, reason: &str, mentioned: &str) {
    let pod = of.pod.metadata.uid.clone().unwrap();
    for uid in [of.claim.uid.as_str(), &pod] {
        until(&format!("an event {reason} about {uid}"), || {
            let events = node.server.objects::<Event>();
            let is_it = |event: &Event| {
                let regarding = event.regarding.as_ref().and_then(|it| it.uid.as_deref());
                regarding == Some(uid)
                    && event.reason.as_deref() == Some(reason)
                    && event.note.as_ref().is_some_and(|note| note.contains(mentioned))
            };
            if events.iter().any(is_it) { Ok(()) } else { Err(format!("{events:?}")) }
        });
    }
}

/// As much as can be asked for, and a route that the kernel refuses at the very end.
fn everything_and_the_impossible() -> Value {
    let mut wishes = everything();
    let beyond = json!({ "destination": "10.66.0.0/16", "gateway": "192.0.2.77" });
    wishes["routes"].as_array_mut().unwrap().push(beyond);
    wishes
}

#[test]
fn a_route_that_cannot_be_added_fails_the_sandbox_and_leaves_no_trace() {
    on_a_node(1, Options::default(), |node| {
        furnish();
        let before = Snapshot::take();
        let web = deploy(node, "web", &[(0, everything_and_the_impossible())]);
        let ids = prepared_ids(node, &web);
        let prepared = Snapshot::take();

        let refused = format!("{:#}", node.run_sandbox(&web.pod).unwrap_err());

        for part in ["10.66.0.0/16", "Network is unreachable", web.device(0)] {
            assert!(refused.contains(part), "{part} is not in: {refused}");
        }
        assert!(!refused.contains("could not be undone"), "{refused}");
        prepared.is_as_now();
        is_told(node, &web, "AttachFailed", "10.66.0.0/16");
        assert_eq!(web.phases(), ["prepared"]);
        assert_eq!(web.records()[0].residue, Vec::<String>::new());
        let path = sandbox(&web.pod).netns.unwrap();
        // A runtime that goes on all the same gets no container started.
        node.runtime.add_running(sandbox(&web.pod));
        assert_unresolvable(node, &web, &ids);
        Netns::remove(&path).unwrap();
        node.unprepare(&web.claims()).unwrap();
        before.is_as_now();
        nothing_is_left();
    });
}

/// What is told of what could not be put back: the metric, and lines of `weir inspect`.
fn residue(of: &Deployed) -> (Option<u64>, Vec<String>) {
    let shown = weir(&[&["inspect", "default/web"][..], &PLACES].concat());
    let start = shown.lines().skip_while(|line| !line.starts_with("not put back"));
    let lines = start.take_while(|line| line.starts_with("not put back") || line.starts_with(' '));
    let metric = node::scrape().unwrap().sum("weir_residue", &[("device", of.device(0))]);
    (metric, lines.map(ToOwned::to_owned).collect())
}

#[test]
fn a_route_that_the_host_gave_to_another_meanwhile_is_owed_until_there_is_room_for_it() {
    on_a_node(2, Options::default(), |node| {
        furnish();
        let before = Snapshot::take();
        let web = deploy(node, "web", &[(0, everything())]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        assert_eq!(residue(&web), (Some(0), Vec::new()));
        lines(&["route add 10.90.0.0/16 via 172.31.1.254 table 5000"]);

        drop(netns);
        node.stop_sandbox(&web.pod).unwrap();

        let (count, told) = residue(&web);
        assert_eq!((count, told.len()), (Some(1), 1), "{told:?}");
        for part in ["10.90.0.0/16", "nic0", "File exists"] {
            assert!(told[0].contains(part), "{part} is not in {told:?}");
        }
        is_told(node, &web, "DeviceResidue", "10.90.0.0/16");
        assert_eq!(web.phases(), ["prepared"], "the pod's end is not held up");

        // Whoever has been here in the meantime, what the first one met is what is owed.
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        drop(netns);
        node.stop_sandbox(&web.pod).unwrap();
        assert_eq!(residue(&web).0, Some(1));
        lines(&["route del 10.90.0.0/16 via 172.31.1.254 table 5000"]);
        node.unprepare(&web.claims()).unwrap();
        before.is_as_now();
        nothing_is_left();
    });
}
