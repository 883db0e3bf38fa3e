//! The driver ends, in good order or not, and another one goes on.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use driver::sys::netns::Netns;
use k8s_openapi::api::resource::v1::ResourceSlice;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tests::node::{DRIVER, Node, PATIENCE, ROOT, STATE_DIR, sandbox};
use tests::runtime::Options;
use tests::sandbox::traffic::{Stream, Tally};
use tests::sandbox::{NicError, ProcessError};

use super::world::{
    Deployed, answer_in, config, deploy, inside, looks, nic, nothing_is_left, on_a_node, route,
    sockets, talk, until,
};

fn kill(node: &mut Node) {
    node.driver.kill().unwrap();
    assert!(node.runtime.wait_for_no_plugin(PATIENCE));
}

/// Ends the pod's sandbox while nobody listens.
fn end_unseen(node: &Node, web: &Deployed) {
    node.stop_sandbox(&web.pod).unwrap();
}

#[test]
fn a_driver_killed_between_prepare_and_sandbox_attaches_after_its_restart() {
    on_a_node(1, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "xdp"))]);
        let before = looks(node, 0);
        node.prepare(&web.claims()).unwrap();
        let links = web.link_ids(0);
        assert_eq!(links.len(), 2, "one for each direction");

        kill(node);
        assert_eq!(web.link_ids(0), links);
        node.start_driver().unwrap();
        assert_eq!((web.phases(), web.link_ids(0)), (vec!["prepared"], links.clone()));
        // Kubelet repeats itself after a restart.
        node.prepare(&web.claims()).unwrap();
        assert_eq!(web.link_ids(0), links);

        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        talk(node, 0);
        assert!(web.agrees_with_the_wire(node, 0).received >= 51);
        echo.stop();
        drop(netns);
        web.end(node);
        assert_eq!(looks(node, 0), before);
        nothing_is_left();
    });
}

#[test]
fn a_driver_killed_while_attached_leaves_programs_that_go_on_counting() {
    on_a_node(2, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "xdp")), (1, config(1, "tcx"))]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        let links = [web.link_ids(0), web.link_ids(1)];
        talk(node, 0);
        talk(node, 1);
        let streams = [0, 1].map(|nth| Stream::start(node.network.wire(), route(nth)).unwrap());

        kill(node);
        let counts = [web.pinned_count(0), web.pinned_count(1)];
        for nth in [0, 1] {
            until("packets are counted without a driver", || {
                let now = web.pinned_count(nth);
                if now > counts[nth] + 50 { Ok(()) } else { Err(format!("{now}")) }
            });
        }
        // The runtime tells the new driver of the sandbox that runs.
        node.start_driver().unwrap();

        let tallies = streams.map(Stream::stop);
        assert_eq!(tallies.map(Tally::lost), [0, 0], "{tallies:?}");
        assert_eq!([web.link_ids(0), web.link_ids(1)], links);
        assert_eq!(web.phases(), ["attached"; 2]);
        for nth in [0, 1] {
            let counted = web.agrees_with_the_wire(node, nth);
            assert!(counted.received >= 51 + tallies[usize::from(nth)].sent, "{counted:?}");
        }
        echo.stop();
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}

#[test]
fn a_nic_that_died_with_its_namespace_while_no_driver_ran_is_let_go() {
    on_a_node(2, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "xdp"))]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();

        kill(node);
        drop(netns);
        end_unseen(node, &web);
        until("the NIC dies with its namespace", || match node.network.count(nic(node, 0)) {
            Err(NicError::Absent(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        node.start_driver().unwrap();

        assert!(node.driver.log_tail().contains("it is nowhere"));
        node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
        until("only the other NIC is published", || {
            let slices = node.server.objects::<ResourceSlice>();
            let devices = slices.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
            let names: Vec<_> = devices.map(|device| device.name.as_str()).collect();
            if names == ["nic1"] { Ok(()) } else { Err(format!("{names:?}")) }
        });
    });
}

#[test]
fn a_nic_in_a_sandbox_that_ended_while_no_driver_ran_comes_home() {
    on_a_node(1, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "tcx"))]);
        let before = looks(node, 0);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let running = inside(&netns, "net0");
        assert!(running.is_some());

        kill(node);
        // Somebody else still holds the namespace, so nothing in it dies; and it has its path, as
        // it has while the runtime is still tearing the pod down.
        let known = sandbox(&web.pod);
        node.runtime.stop_pod_sandbox(&known.id).unwrap();
        node.runtime.remove_pod_sandbox(&known.id).unwrap();
        node.start_driver().unwrap();

        until("the NIC is home", || {
            let now = looks(node, 0);
            if now == before { Ok(()) } else { Err(format!("{now:?}")) }
        });
        assert_eq!(inside(&netns, "net0"), None);
        drop(netns);
        Netns::remove(&known.netns.unwrap()).unwrap();
        node.unprepare(&web.claims()).unwrap();
        nothing_is_left();
    });
}

#[test]
fn a_driver_that_is_told_to_stop_leaves_its_programs_and_takes_its_sockets() {
    on_a_node(1, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "xdp"))]);
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        talk(node, 0);
        let (links, kubelet) = (web.link_ids(0), Path::new(ROOT).join("kubelet"));
        assert_eq!(sockets(&kubelet).len(), 2);

        let started = Instant::now();
        let status = node.driver.stop().unwrap();

        let took = started.elapsed();
        assert!(status.success(), "{status}");
        assert!(took < Duration::from_secs(3), "it took {took:?}");
        assert_eq!(sockets(&kubelet), Vec::<&Path>::new());
        assert_eq!(web.link_ids(0), links);
        let counted = web.pinned_count(0);
        talk(node, 0);
        assert!(web.pinned_count(0) >= counted + 51);

        node.start_driver().unwrap();
        assert_eq!((web.phases(), web.link_ids(0)), (vec!["attached"], links));
        web.agrees_with_the_wire(node, 0);
        echo.stop();
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}

#[test]
fn a_driver_that_is_told_to_stop_lets_a_prepared_pod_start_first() {
    on_a_node(1, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "xdp"))]);
        node.prepare(&web.claims()).unwrap();
        let pid = Pid::from_raw(node.driver.pid().unwrap().cast_signed());

        signal::kill(pid, Signal::SIGTERM).unwrap();
        until("kubelet cannot ask for more", || match node.kubelet.driver(DRIVER) {
            None => Ok(()),
            Some(driver) => Err(format!("{driver:?}")),
        });
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();

        assert_eq!(web.phases(), ["attached"]);
        until("the driver has ended", || match node.driver.check() {
            Err(ProcessError::Ended { status, .. }) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        });
        node.start_driver().unwrap();
        drop(netns);
        web.end(node);
        nothing_is_left();
    });
}

#[test]
fn a_corrupted_checkpoint_is_set_aside_and_the_claim_can_be_prepared_again() {
    on_a_node(1, Options::default(), |node| {
        let web = deploy(node, "web", &[(0, config(0, "xdp"))]);
        let before = looks(node, 0);
        node.prepare(&web.claims()).unwrap();
        kill(node);
        let checkpoint = Path::new(STATE_DIR).join("checkpoint.json");
        let aside = Path::new(STATE_DIR).join("checkpoint.json.damaged-1");
        let mut text = fs::read(&checkpoint).unwrap();
        let middle = text.len() / 2;
        text[middle] ^= 1;
        fs::write(&checkpoint, &text).unwrap();
        node.start_driver().unwrap();
        assert_eq!(web.phases(), ["prepared"], "the mirror has it all");
        kill(node);
        fs::remove_file(&aside).unwrap();

        fs::write(&checkpoint, &text).unwrap();
        fs::write(Path::new(STATE_DIR).join("checkpoint.mirror.json"), &text).unwrap();
        node.start_driver().unwrap();

        assert_eq!(fs::read(&aside).unwrap(), text);
        let log = node.driver.log_tail();
        let said = log.lines().find(|line| line.contains("set aside")).unwrap_or_default();
        assert!(said.contains("ERROR") && said.contains("damaged-1"), "{log}");
        assert_eq!(web.phases(), Vec::<&str>::new());

        // Kubelet asks again before it starts the pod.
        node.prepare(&web.claims()).unwrap();
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        let echo = answer_in(&netns);
        talk(node, 0);
        web.agrees_with_the_wire(node, 0);
        echo.stop();
        drop(netns);
        web.end(node);
        assert_eq!(looks(node, 0), before);
        fs::remove_file(aside).unwrap();
        nothing_is_left();
    });
}
